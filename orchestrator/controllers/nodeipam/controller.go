// Package nodeipam gives every node its part of the pod networks.
//
//	in:   Nodes, the cluster's pod networks
//	out:  Node.spec.podCIDR and podCIDRs, once for each node
//
// It is the only writer of these fields. Invariant: no two nodes have overlapping
// networks; so nodes are served one at a time, and each allocation sees the ones
// before it even if the informer does not show them yet.
package nodeipam

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

// Config says which networks there are to give.
type Config struct {
	Client   client.Interface
	Ranges   []Range             // one for each address family, the primary first
	Recorder *reconcile.Recorder // nil: no events
	Log      *slog.Logger
}

// Controller allocates networks.
type Controller struct {
	cfg    Config
	queue  *reconcile.Queue
	nodes  client.Typed[*corev1.Node]
	view   client.View[*corev1.Node]
	writes *reconcile.Writes
}

// New checks the configuration.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || len(cfg.Ranges) == 0 {
		return nil, fmt.Errorf("node IPAM controller: client and ranges are required")
	}
	for _, r := range cfg.Ranges {
		if err := r.check(); err != nil {
			return nil, err
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Controller{cfg: cfg, nodes: client.For(cfg.Client, client.Nodes), writes: reconcile.NewWrites()}
	c.view = c.nodes.Informer(client.ListOptions{})
	var err error
	c.queue, err = reconcile.New(reconcile.Config{
		Name: "nodeipam", Workers: 1, Reconcile: c.reconcile, Log: cfg.Log,
		Watch: []reconcile.Watch{{Informer: c.view.Informer, Keys: c.writes.Keys(lacking)}},
	})
	return c, err
}

// lacking maps an event to its node if that has no network yet.
func lacking(ev client.Event) []types.NamespacedName {
	if len(ev.Object.(*corev1.Node).Spec.PodCIDRs) > 0 {
		return nil
	}
	return reconcile.Self(ev)
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.queue.Run(ctx) }

// Stats returns the queue's counters.
func (c *Controller) Stats() reconcile.Stats { return c.queue.Stats() }

func (c *Controller) reconcile(ctx context.Context, key types.NamespacedName) (time.Duration, error) {
	node, ok := c.view.Get("", key.Name)
	if !ok || len(node.Spec.PodCIDRs) > 0 {
		return 0, nil
	}
	nodes := reconcile.Over(c.writes, all, c.view.List(""))
	node = reconcile.Newest(c.writes, all, node)
	return 0, c.apply(ctx, node, compute(node, nodes, c.cfg.Ranges))
}
