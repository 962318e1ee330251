// Package nodelifecycle notices nodes that fall silent, and taints nodes by their
// conditions.
//
//	in:   Nodes, their Leases in kube-node-lease, Pods
//	out:  Node conditions Unknown, Node taints; Pod condition Ready false
//
// It is the only writer of the taints node.kubernetes.io/*; package tainteviction
// acts on them. Invariant: a node's silence is measured by this process's own clock,
// from when it last saw the node's lease or status move. So clocks that differ, and
// a control plane that was down for an hour, evict nobody.
package nodelifecycle

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

// Config says what the controller works on.
type Config struct {
	Client   client.Interface
	Recorder *reconcile.Recorder // nil: no events
	Grace    time.Duration       // a node's silence before it counts as unreachable; default 50 s
	Log      *slog.Logger
}

// Controller reconciles Nodes.
type Controller struct {
	cfg     Config
	queue   *reconcile.Queue
	nodes   client.Typed[*corev1.Node]
	pods    client.Typed[*corev1.Pod]
	view    client.View[*corev1.Node]
	podView client.View[*corev1.Pod]
	writes  *reconcile.Writes

	mu    sync.Mutex
	heard map[string]time.Time
}

// New checks the configuration.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil {
		return nil, fmt.Errorf("node lifecycle controller: no client")
	}
	if cfg.Grace <= 0 {
		cfg.Grace = 50 * time.Second
	}
	c := &Controller{
		cfg: cfg, nodes: client.For(cfg.Client, client.Nodes), pods: client.For(cfg.Client, client.Pods),
		writes: reconcile.NewWrites(), heard: map[string]time.Time{},
	}
	c.view = c.nodes.Informer(client.ListOptions{})
	c.podView = c.pods.Informer(client.ListOptions{})
	pods.AddNodeIndex(c.podView.Informer)
	leases := client.For(cfg.Client, client.Leases).Informer(client.ListOptions{Namespace: corev1.NamespaceNodeLease})
	var err error
	c.queue, err = reconcile.New(reconcile.Config{
		Name: "nodelifecycle", Workers: 4, Reconcile: c.reconcile, Log: cfg.Log,
		Watch: []reconcile.Watch{
			{Informer: c.view.Informer, Keys: c.writes.Keys(c.nodeSeen)},
			{Informer: leases.Informer, Keys: c.leaseSeen},
			{Informer: c.podView.Informer, Keys: func(client.Event) []types.NamespacedName { return nil }},
		},
	})
	return c, err
}

// nodeSeen takes a node that appears, or an agent's report, as a sign of life.
func (c *Controller) nodeSeen(ev client.Event) []types.NamespacedName {
	node := ev.Object.(*corev1.Node)
	if ev.Type == client.Deleted {
		c.mu.Lock()
		delete(c.heard, node.Name)
		c.mu.Unlock()
		return reconcile.Self(ev)
	}
	if old, _ := ev.Old.(*corev1.Node); old == nil || heartbeat(node).After(heartbeat(old)) {
		c.hear(node.Name)
	}
	return reconcile.Self(ev)
}

// heartbeat is when an agent last reported. What is unknown was written here.
func heartbeat(node *corev1.Node) time.Time {
	var last time.Time
	for _, c := range node.Status.Conditions {
		if c.Status != corev1.ConditionUnknown && c.LastHeartbeatTime.After(last) {
			last = c.LastHeartbeatTime.Time
		}
	}
	return last
}

// leaseSeen takes a renewal as a sign of life. Nothing is due because of it: the node
// is looked at again when the grace period would have ended.
func (c *Controller) leaseSeen(ev client.Event) []types.NamespacedName {
	lease := ev.Object.(*coordinationv1.Lease)
	if old, _ := ev.Old.(*coordinationv1.Lease); ev.Type == client.Deleted || old != nil && old.Spec.RenewTime.Equal(lease.Spec.RenewTime) {
		return nil
	}
	c.hear(lease.Name)
	return nil
}

func (c *Controller) hear(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard[node] = time.Now()
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	c.mu.Lock()
	clear(c.heard) // what was not listened for was not silence
	c.mu.Unlock()
	return c.queue.Run(ctx)
}

// Stats returns the queue's counters.
func (c *Controller) Stats() reconcile.Stats { return c.queue.Stats() }

func (c *Controller) reconcile(ctx context.Context, key types.NamespacedName) (time.Duration, error) {
	node, ok := c.view.Get("", key.Name)
	if !ok {
		c.writes.Forget(key)
		return 0, nil
	}
	plan := compute(c.snapshot(reconcile.Newest(c.writes, key, node)), time.Now())
	return plan.RetryAfter, c.apply(ctx, reconcile.Newest(c.writes, key, node), plan)
}

func (c *Controller) snapshot(node *corev1.Node) Snapshot {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Snapshot{Node: node, Heard: c.heard[node.Name], Grace: c.cfg.Grace, Alone: true}
	if s.Heard.IsZero() {
		s.Heard, c.heard[node.Name] = now, now
	}
	for _, at := range c.heard {
		if now.Sub(at) < c.cfg.Grace {
			s.Alone = false
			break
		}
	}
	return s
}
