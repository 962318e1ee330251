package replicaset

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
)

// apply carries out a plan. Every write is remembered until the informer shows it.
// It stops at the first error; failure is set where users should read about it in
// the set's conditions.
func (c *Controller) apply(ctx context.Context, rs *appsv1.ReplicaSet, p Plan) (failure *Failure, err error) {
	if err := c.adopt(ctx, rs, p.Adopt); err != nil {
		return nil, err
	}
	for _, ref := range p.Release {
		if err := c.release(ctx, rs, ref); err != nil {
			return nil, err
		}
	}
	if err := c.create(ctx, rs, p.Create); err != nil {
		return &Failure{"FailedCreate", err.Error()}, err
	}
	if err := c.delete(ctx, rs, p.Delete); err != nil {
		return &Failure{"FailedDelete", err.Error()}, err
	}
	return nil, c.updateStatus(ctx, rs, p.Status)
}

// adopt makes the set the pods' controller, after asking the server itself whether
// the set still exists: an informer may be late, and a pod adopted for a set that is
// gone would be garbage-collected.
func (c *Controller) adopt(ctx context.Context, rs *appsv1.ReplicaSet, refs []pods.Ref) error {
	if len(refs) == 0 {
		return nil
	}
	fresh, err := c.sets.Get(ctx, rs.Namespace, rs.Name)
	if err != nil {
		return fmt.Errorf("adopt pods for replica set %s: %w", client.Key(rs), err)
	}
	if fresh.UID != rs.UID || fresh.DeletionTimestamp != nil {
		return fmt.Errorf("adopt pods for replica set %s: it is being deleted or was replaced", client.Key(rs))
	}
	for _, ref := range refs {
		owner := metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))
		err := c.patch(ctx, rs, ref, map[string]any{"ownerReferences": []any{owner}})
		if err != nil {
			return fmt.Errorf("adopt pod %s: %w", ref.NamespacedName, err)
		}
	}
	return nil
}

// release gives a pod up whose labels no longer match.
func (c *Controller) release(ctx context.Context, rs *appsv1.ReplicaSet, ref pods.Ref) error {
	drop := map[string]any{"$patch": "delete", "uid": rs.UID}
	err := c.patch(ctx, rs, ref, map[string]any{"ownerReferences": []any{drop}})
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) { // it is gone, or another pod has its name
		return nil
	}
	if err != nil {
		return fmt.Errorf("release pod %s: %w", ref.NamespacedName, err)
	}
	return nil
}

// patch changes a pod's metadata, if it still is the same pod.
func (c *Controller) patch(ctx context.Context, rs *appsv1.ReplicaSet, ref pods.Ref, meta map[string]any) error {
	meta["uid"] = ref.UID
	data, err := json.Marshal(map[string]any{"metadata": meta})
	if err != nil {
		return err
	}
	pod, err := c.pods.Patch(ctx, ref.Namespace, ref.Name, types.StrategicMergePatchType, data, "")
	if err != nil {
		return err
	}
	c.writes.Wrote(client.Key(rs), pod)
	return nil
}

// create makes n pods, in batches of 1, 2, 4, ... so that where none can be created,
// as with an exhausted quota, only a few requests fail.
func (c *Controller) create(ctx context.Context, rs *appsv1.ReplicaSet, n int) error {
	for batch := 1; n > 0; batch *= 2 {
		size := min(batch, n)
		if err := each(size, func(int) error { return c.createOne(ctx, rs) }); err != nil {
			return err
		}
		n -= size
	}
	return nil
}

func (c *Controller) createOne(ctx context.Context, rs *appsv1.ReplicaSet) error {
	pod, err := c.pods.Create(ctx, newPod(rs))
	if err != nil {
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil // nothing can be created there, and nothing needs to be
		}
		c.cfg.Recorder.Event(rs, corev1.EventTypeWarning, "FailedCreate", "Create", "Error creating: %v", err)
		return fmt.Errorf("create pod for replica set %s: %w", client.Key(rs), err)
	}
	c.writes.Wrote(client.Key(rs), pod)
	c.cfg.Recorder.Event(rs, corev1.EventTypeNormal, "SuccessfulCreate", "Create", "Created pod: %s", pod.Name)
	return nil
}

func newPod(rs *appsv1.ReplicaSet) *corev1.Pod {
	t := rs.Spec.Template.DeepCopy()
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: rs.Namespace, GenerateName: rs.Name + "-",
			Labels: t.Labels, Annotations: t.Annotations, Finalizers: t.Finalizers,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))},
		},
		Spec: t.Spec,
	}
}

func (c *Controller) delete(ctx context.Context, rs *appsv1.ReplicaSet, refs []pods.Ref) error {
	return each(len(refs), func(i int) error {
		ref := refs[i]
		err := c.pods.Delete(ctx, ref.Namespace, ref.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &ref.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			c.cfg.Recorder.Event(rs, corev1.EventTypeWarning, "FailedDelete", "Delete", "Error deleting: %v", err)
			return fmt.Errorf("delete pod %s: %w", ref.NamespacedName, err)
		}
		c.writes.Deleted(client.Key(rs), ref.UID)
		c.cfg.Recorder.Event(rs, corev1.EventTypeNormal, "SuccessfulDelete", "Delete", "Deleted pod: %s", ref.Name)
		return nil
	})
}

func (c *Controller) updateStatus(ctx context.Context, rs *appsv1.ReplicaSet, status *appsv1.ReplicaSetStatus) error {
	if status == nil {
		return nil
	}
	next := *rs // its maps and slices are not changed
	next.Status = *status
	written, err := c.sets.UpdateStatus(ctx, &next)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("update status of replica set %s: %w", client.Key(rs), err)
	}
	c.setWrites.Wrote(client.Key(rs), written)
	return nil
}

// each calls f(0) to f(n-1) at the same time and returns the first error.
func each(n int, f func(i int) error) error {
	if n == 1 {
		return f(0)
	}
	var wait sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wait.Go(func() { errs[i] = f(i) })
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
