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
	leases  client.View[*coordinationv1.Lease]
	writes  *reconcile.Writes

	mu    sync.Mutex
	heard map[string]sign
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
		writes: reconcile.NewWrites(), heard: map[string]sign{},
	}
	c.view = c.nodes.Informer(client.ListOptions{})
	c.podView = c.pods.Informer(client.ListOptions{})
	pods.AddNodeIndex(c.podView.Informer)
	c.leases = client.For(cfg.Client, client.Leases).Informer(client.ListOptions{Namespace: corev1.NamespaceNodeLease})
	var err error
	c.queue, err = reconcile.New(reconcile.Config{
		Name: "nodelifecycle", Workers: 4, Reconcile: c.reconcile, Log: cfg.Log,
		Watch: []reconcile.Watch{
			{Informer: c.view.Informer, Keys: c.writes.Keys(c.nodeSeen)},
			{Informer: c.leases.Informer, Keys: c.leaseSeen},
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
	} else {
		c.hear(node, nil)
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
	if node, ok := c.view.Get("", ev.Object.GetName()); ok && ev.Type != client.Deleted {
		c.hear(node, ev.Object.(*coordinationv1.Lease))
	}
	return nil
}

// sign is the last that was heard of a node: what it said, and when by our clock.
type sign struct {
	report, renewal time.Time // by the node's clock: only that they move counts
	at              time.Time
}

// hear notes whether a node has given a new sign of life, and returns the last.
func (c *Controller) hear(node *corev1.Node, lease *coordinationv1.Lease) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, known := c.heard[node.Name]
	next := s
	if t := heartbeat(node); t.After(s.report) {
		next.report = t
	}
	if lease != nil && lease.Spec.RenewTime != nil && lease.Spec.RenewTime.After(s.renewal) {
		next.renewal = lease.Spec.RenewTime.Time
	}
	if !known || next != s {
		next.at = time.Now()
		c.heard[node.Name] = next
	}
	return next.at
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
	node = reconcile.Newest(c.writes, key, node)
	plan := compute(c.snapshot(node), time.Now())
	return plan.RetryAfter, c.apply(ctx, node, plan)
}

// snapshot reads the signs of life from the informers once more: they may be ahead of
// their events.
func (c *Controller) snapshot(node *corev1.Node) Snapshot {
	lease, _ := c.leases.Get(corev1.NamespaceNodeLease, node.Name)
	s := Snapshot{Node: node, Heard: c.hear(node, lease), Grace: c.cfg.Grace, Alone: true}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.heard {
		if now.Sub(h.at) < c.cfg.Grace {
			s.Alone = false
			break
		}
	}
	return s
}
