// Package status writes what the node agent knows into the API: it is the only
// writer of the status of this node's pods.
//
//	in:   the newest status of each pod; pods that are to be deleted
//	out:  patches of Pod status; deletions
//
// One write for a pod is under way at a time. What comes meanwhile replaces what
// waits, so that the API is never behind by more than one write.
package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// Config is what a Writer works with.
type Config struct {
	Client client.Interface
	Log    *slog.Logger
}

// Writer writes pods' status.
type Writer struct {
	cfg  Config
	pods client.Typed[*corev1.Pod]
	ctx  context.Context

	mu      sync.Mutex
	queue   map[types.UID]*entry
	running sync.WaitGroup
}

// entry is a pod that has been written or waits to be.
type entry struct {
	pod    *corev1.Pod
	want   *corev1.PodStatus // newest that is not written; nil: none
	last   *corev1.PodStatus // as written
	delete bool
	busy   bool
}

// New checks the configuration. Nothing is written after ctx has ended.
func New(ctx context.Context, cfg Config) (*Writer, error) {
	if cfg.Client == nil {
		return nil, errors.New("configure status: Client is needed")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Writer{cfg: cfg, pods: client.For(cfg.Client, client.Pods), ctx: ctx, queue: map[types.UID]*entry{}}, nil
}

// Wait returns when no write is under way.
func (w *Writer) Wait() { w.running.Wait() }

// Set publishes a status. pod is the object that it is based on.
func (w *Writer) Set(pod *corev1.Pod, s corev1.PodStatus) {
	w.change(pod, func(e *entry) { e.want = &s })
}

// Delete removes the object from the API when its last status is written.
func (w *Writer) Delete(pod *corev1.Pod) {
	w.change(pod, func(e *entry) { e.delete = true })
}

// Forget drops what waits: the object is gone.
func (w *Writer) Forget(pod *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.queue, pod.UID)
}

func (w *Writer) change(pod *corev1.Pod, f func(*entry)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.queue[pod.UID]
	if e == nil {
		e = &entry{}
		w.queue[pod.UID] = e
	}
	e.pod = pod
	f(e)
	if !e.busy {
		e.busy = true
		w.running.Go(func() { w.drain(e) })
	}
}

// drain writes until nothing waits for this pod.
func (w *Writer) drain(e *entry) {
	delay := 100 * time.Millisecond
	for w.ctx.Err() == nil {
		w.mu.Lock()
		pod, want, last, del := e.pod, e.want, e.last, e.delete
		if want == nil && !del {
			e.busy = false
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		err := w.write(pod, want, last, del)
		if err == nil || apierrors.IsNotFound(err) {
			w.written(e, want, del)
			if del || err != nil {
				return
			}
			delay = 100 * time.Millisecond
			continue
		}
		w.cfg.Log.Info("write pod status", "pod", client.Key(pod), "err", err)
		select {
		case <-w.ctx.Done():
		case <-time.After(delay):
			delay = min(2*delay, 10*time.Second)
		}
	}
}

func (w *Writer) written(e *entry, want *corev1.PodStatus, del bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if want != nil {
		e.last = want
	}
	if e.want == want {
		e.want = nil
	}
	if del {
		delete(w.queue, e.pod.UID)
	}
}

func (w *Writer) write(pod *corev1.Pod, want, last *corev1.PodStatus, del bool) error {
	if want != nil {
		old := last
		if old == nil {
			old = &pod.Status
		}
		patch, err := Patch(pod.UID, old, want)
		if err != nil {
			return err
		}
		if patch != nil {
			if _, err := w.pods.Patch(w.ctx, pod.Namespace, pod.Name, types.StrategicMergePatchType, patch, "status"); err != nil {
				return fmt.Errorf("patch status of pod %s: %w", client.Key(pod), err)
			}
		}
	}
	if !del {
		return nil
	}
	zero := int64(0)
	err := w.pods.Delete(w.ctx, pod.Namespace, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &pod.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete pod %s: %w", client.Key(pod), err)
	}
	return nil
}

// Patch is the strategic merge patch that makes the status want out of old, for
// the pod of that UID only; nil when they are equal.
func Patch(uid types.UID, old, want *corev1.PodStatus) ([]byte, error) {
	from, err := json.Marshal(corev1.Pod{Status: *old})
	if err != nil {
		return nil, err
	}
	to, err := json.Marshal(corev1.Pod{Status: *want})
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(from, to, corev1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("compare status: %w", err)
	}
	if string(patch) == "{}" {
		return nil, nil
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(patch, &m); err != nil {
		return nil, err
	}
	m["metadata"], _ = json.Marshal(map[string]types.UID{"uid": uid})
	return json.Marshal(m)
}
