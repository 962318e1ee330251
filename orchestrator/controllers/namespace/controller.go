// Package namespace empties each namespace that is being deleted, and then lets it go.
//
//	in:   Namespaces, every namespaced resource that the API serves
//	out:  deletion of their objects; Namespace status conditions and finalizer
//
// It is the only writer of Namespace.status and of the finalizer "kubernetes".
// Invariant: a namespace goes only after every resource, custom ones included, was
// listed anew and found empty.
package namespace

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

// Discovery lists what there is in a cluster.
type Discovery interface {
	// Resources returns every served resource, in one version, that can be listed
	// and deleted.
	Resources(ctx context.Context) ([]client.Resource, error)
}

// Config says what the controller works on.
type Config struct {
	Client    client.Interface
	Discovery Discovery
	Log       *slog.Logger
}

// Controller reconciles Namespaces.
type Controller struct {
	cfg        Config
	queue      *reconcile.Queue
	namespaces client.Typed[*corev1.Namespace]
	resource   client.Resource
	view       client.View[*corev1.Namespace]
}

// New checks the configuration.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Discovery == nil {
		return nil, fmt.Errorf("namespace controller: client and discovery are required")
	}
	c := &Controller{cfg: cfg, namespaces: client.For(cfg.Client, client.Namespaces), resource: client.Namespaces.Resource}
	c.view = c.namespaces.Informer(client.ListOptions{})
	podView := client.For(cfg.Client, client.Pods).Informer(client.ListOptions{})
	var err error
	c.queue, err = reconcile.New(reconcile.Config{
		Name: "namespace", Workers: 4, Reconcile: c.reconcile, Log: cfg.Log,
		Watch: []reconcile.Watch{
			{Informer: c.view.Informer, Keys: dying},
			{Informer: podView.Informer, Keys: c.keysOfPod},
		},
	})
	return c, err
}

// dying maps an event to its namespace if that is being deleted.
func dying(ev client.Event) []types.NamespacedName {
	if ev.Object.GetDeletionTimestamp() == nil {
		return nil
	}
	return reconcile.Self(ev)
}

// keysOfPod maps a pod that has gone to its namespace if that waits for it.
func (c *Controller) keysOfPod(ev client.Event) []types.NamespacedName {
	if ev.Type != client.Deleted {
		return nil
	}
	ns, ok := c.view.Get("", ev.Object.GetNamespace())
	if !ok || ns.DeletionTimestamp == nil {
		return nil
	}
	return []types.NamespacedName{{Name: ns.Name}}
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.queue.Run(ctx) }

// Stats returns the queue's counters.
func (c *Controller) Stats() reconcile.Stats { return c.queue.Stats() }

func (c *Controller) reconcile(ctx context.Context, key types.NamespacedName) (time.Duration, error) {
	seen, ok := c.view.Get("", key.Name)
	if !ok || seen.DeletionTimestamp == nil {
		return 0, nil
	}
	// What is deleted cannot be brought back: ask the server, not the informer.
	ns, err := c.namespaces.Get(ctx, "", key.Name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("get namespace %s: %w", key.Name, err)
	}
	for {
		s, err := c.snapshot(ctx, ns)
		if err != nil {
			return 0, err
		}
		plan := compute(s, time.Now())
		if err := c.apply(ctx, ns, plan); err != nil {
			return 0, err
		}
		if len(plan.Delete) == 0 || plan.Status != nil {
			return plan.RetryAfter, nil
		}
		// Most objects are gone as soon as they are deleted: look again at once.
	}
}

// snapshot lists everything in a namespace.
func (c *Controller) snapshot(ctx context.Context, ns *corev1.Namespace) (Snapshot, error) {
	s := Snapshot{Namespace: ns}
	resources, err := c.cfg.Discovery.Resources(ctx)
	if err != nil {
		s.Failures = append(s.Failures, err.Error())
	}
	for _, r := range resources {
		if !r.Namespaced {
			continue
		}
		items, _, err := c.cfg.Client.List(ctx, r, client.ListOptions{Namespace: ns.Name})
		if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
			continue // its definition has just gone, or it is not something that is kept
		}
		if err != nil {
			return s, fmt.Errorf("list %s in namespace %s: %w", r.Resource, ns.Name, err)
		}
		for _, o := range items {
			s.Items = append(s.Items, Item{
				Ref: pods.RefOf(o), Resource: r, Deleting: o.GetDeletionTimestamp() != nil, Finalizers: o.GetFinalizers(),
			})
		}
	}
	return s, nil
}
