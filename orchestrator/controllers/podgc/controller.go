// Package podgc removes pods that no agent will remove: of nodes that are gone, never
// scheduled, or ended and too many.
//
//	in:   Pods, Nodes
//	out:  Pod status Failed, Pod delete without grace
//
// Invariant: a node counts as gone only after it has been missing for the quarantine
// and the server itself has said so.
package podgc

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

// Config says what the controller works on.
type Config struct {
	Client     client.Interface
	Keep       int           // ended pods that are kept; default 12500, negative: all
	Period     time.Duration // between two passes; default 20 s
	Quarantine time.Duration // a node's absence before its pods go; default 40 s
	Log        *slog.Logger
}

// Controller removes pods.
type Controller struct {
	cfg     Config
	queue   *reconcile.Queue
	pods    client.Typed[*corev1.Pod]
	nodes   client.Typed[*corev1.Node]
	podView client.View[*corev1.Pod]
	view    client.View[*corev1.Node]
	missing map[string]time.Time // since when; owned by the one worker
}

// New checks the configuration.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil {
		return nil, fmt.Errorf("pod GC: no client")
	}
	if cfg.Keep == 0 {
		cfg.Keep = 12500
	}
	if cfg.Period <= 0 {
		cfg.Period = 20 * time.Second
	}
	if cfg.Quarantine <= 0 {
		cfg.Quarantine = 40 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Controller{
		cfg: cfg, pods: client.For(cfg.Client, client.Pods), nodes: client.For(cfg.Client, client.Nodes),
		missing: map[string]time.Time{},
	}
	c.podView, c.view = c.pods.Informer(client.ListOptions{}), c.nodes.Informer(client.ListOptions{})
	none := func(client.Event) []types.NamespacedName { return nil }
	var err error
	c.queue, err = reconcile.New(reconcile.Config{
		Name: "podgc", Workers: 1, Reconcile: c.reconcile, Log: cfg.Log,
		Watch: []reconcile.Watch{{Informer: c.podView.Informer, Keys: none}, {Informer: c.view.Informer, Keys: none}},
	})
	return c, err
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	c.queue.Add(types.NamespacedName{})
	return c.queue.Run(ctx)
}

// Stats returns the queue's counters.
func (c *Controller) Stats() reconcile.Stats { return c.queue.Stats() }

func (c *Controller) reconcile(ctx context.Context, _ types.NamespacedName) (time.Duration, error) {
	list := c.podView.List("")
	gone, err := c.gone(ctx, list, time.Now())
	if err != nil {
		return 0, err
	}
	return c.cfg.Period, c.apply(ctx, compute(Snapshot{Pods: list, Missing: gone, Keep: c.cfg.Keep}))
}

// gone returns the nodes that pods are bound to and that have been missing for long.
func (c *Controller) gone(ctx context.Context, list []*corev1.Pod, now time.Time) (map[string]bool, error) {
	absent := map[string]time.Time{}
	for _, pod := range list {
		name := pod.Spec.NodeName
		if _, ok := c.view.Get("", name); ok || name == "" {
			continue
		}
		absent[name] = now
		if since, known := c.missing[name]; known {
			absent[name] = since
		}
	}
	c.missing = absent
	gone := map[string]bool{}
	for name, since := range absent {
		if now.Sub(since) < c.cfg.Quarantine {
			continue
		}
		_, err := c.nodes.Get(ctx, "", name)
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("get node %s: %w", name, err)
		}
		gone[name] = err != nil
	}
	return gone, nil
}
