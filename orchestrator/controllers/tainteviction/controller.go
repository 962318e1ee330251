// Package tainteviction deletes pods from nodes whose taints they do not tolerate, or
// no longer.
//
//	in:   Nodes, Pods
//	out:  Pod condition DisruptionTarget, Pod delete
//
// Invariant: a pod that tolerates all taints NoExecute of its node without limit is
// never touched; a taint that goes in time saves the pods that waited.
package tainteviction

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

// Config says what the controller works on.
type Config struct {
	Client   client.Interface
	Recorder *reconcile.Recorder // nil: no events
	Log      *slog.Logger
}

// Controller reconciles Pods on tainted nodes.
type Controller struct {
	cfg     Config
	queue   *reconcile.Queue
	pods    client.Typed[*corev1.Pod]
	nodes   client.View[*corev1.Node]
	podView client.View[*corev1.Pod]

	mu    sync.Mutex
	since map[types.UID]time.Time // when a pod that waits was first seen to
}

// New checks the configuration.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil {
		return nil, fmt.Errorf("taint eviction controller: no client")
	}
	c := &Controller{cfg: cfg, pods: client.For(cfg.Client, client.Pods), since: map[types.UID]time.Time{}}
	c.podView = c.pods.Informer(client.ListOptions{})
	c.nodes = client.For(cfg.Client, client.Nodes).Informer(client.ListOptions{})
	pods.AddNodeIndex(c.podView.Informer)
	var err error
	c.queue, err = reconcile.New(reconcile.Config{
		Name: "tainteviction", Workers: 4, Reconcile: c.reconcile, Log: cfg.Log,
		Watch: []reconcile.Watch{
			{Informer: c.nodes.Informer, Keys: c.keysOfNode},
			{Informer: c.podView.Informer, Keys: c.keysOfPod},
		},
	})
	return c, err
}

func evicts(node client.Object) []corev1.Taint {
	if node == nil {
		return nil
	}
	taints := slices.Clone(node.(*corev1.Node).Spec.Taints)
	return slices.DeleteFunc(taints, func(t corev1.Taint) bool { return t.Effect != corev1.TaintEffectNoExecute })
}

// keysOfNode maps a node whose taints have changed to its pods.
func (c *Controller) keysOfNode(ev client.Event) []types.NamespacedName {
	if ev.Type == client.Deleted || equality.Semantic.DeepEqual(evicts(ev.Old), evicts(ev.Object)) {
		return nil
	}
	var keys []types.NamespacedName
	for _, pod := range c.podView.ByIndex(pods.ByNode, ev.Object.GetName()) {
		keys = append(keys, client.Key(pod))
	}
	return keys
}

// keysOfPod maps a pod that comes to a tainted node, or changes there, to itself.
func (c *Controller) keysOfPod(ev client.Event) []types.NamespacedName {
	pod := ev.Object.(*corev1.Pod)
	if ev.Type == client.Deleted {
		c.forget(pod.UID)
	}
	if ev.Type == client.Deleted || pod.Spec.NodeName == "" {
		return nil
	}
	if old, _ := ev.Old.(*corev1.Pod); old != nil && old.Spec.NodeName == pod.Spec.NodeName && len(old.Spec.Tolerations) == len(pod.Spec.Tolerations) {
		return nil
	}
	if node, ok := c.nodes.Get("", pod.Spec.NodeName); !ok || len(evicts(node)) == 0 {
		return nil
	}
	return reconcile.Self(ev)
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.queue.Run(ctx) }

// Stats returns the queue's counters.
func (c *Controller) Stats() reconcile.Stats { return c.queue.Stats() }

func (c *Controller) reconcile(ctx context.Context, key types.NamespacedName) (time.Duration, error) {
	pod, ok := c.podView.Get(key.Namespace, key.Name)
	if !ok || pod.Spec.NodeName == "" {
		return 0, nil
	}
	node, _ := c.nodes.Get("", pod.Spec.NodeName)
	now := time.Now()
	plan := compute(pod, node, c.first(pod.UID, now), now)
	if plan.RetryAfter == 0 {
		c.forget(pod.UID)
	}
	return plan.RetryAfter, c.apply(ctx, pod, plan)
}

func (c *Controller) first(uid types.UID, now time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.since[uid]; !known {
		c.since[uid] = now
	}
	return c.since[uid]
}

func (c *Controller) forget(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.since, uid)
}
