// Package endpoints keeps the older Endpoints object of each Service with a selector,
// for software that does not read EndpointSlices.
//
//	in:   Services, Pods, Endpoints
//	out:  Endpoints create, update, delete
//
// Invariant: Endpoints that belong to a Service without selector are somebody
// else's and never touched; an object whose Service is gone goes if this controller
// made it.
package endpoints

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/backends"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

// Config says what the controller works on.
type Config struct {
	Client   client.Interface
	Backends *backends.Index // may be shared; default a new one
	Log      *slog.Logger
}

// Controller reconciles Services.
type Controller struct {
	backends  *backends.Index
	queue     *reconcile.Queue
	endpoints client.Typed[*corev1.Endpoints]
	view      client.View[*corev1.Endpoints]
	writes    *reconcile.Writes
}

// New checks the configuration.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil {
		return nil, fmt.Errorf("endpoints controller: no client")
	}
	if cfg.Backends == nil {
		cfg.Backends = backends.New(cfg.Client)
	}
	c := &Controller{backends: cfg.Backends, endpoints: client.For(cfg.Client, client.Endpoints), writes: reconcile.NewWrites()}
	c.view = c.endpoints.Informer(client.ListOptions{})
	var err error
	c.queue, err = reconcile.New(reconcile.Config{
		Name: "endpoints", Reconcile: c.reconcile, Log: cfg.Log,
		Watch: []reconcile.Watch{
			{Informer: c.backends.Services.Informer, Keys: reconcile.Self},
			{Informer: c.backends.Pods.Informer, Keys: c.backends.Keys},
			{Informer: c.view.Informer, Keys: c.writes.Keys(reconcile.Self)},
		},
	})
	return c, err
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.queue.Run(ctx) }

// Stats returns the queue's counters.
func (c *Controller) Stats() reconcile.Stats { return c.queue.Stats() }

func (c *Controller) reconcile(ctx context.Context, key types.NamespacedName) (time.Duration, error) {
	have, exists := c.view.Get(key.Namespace, key.Name)
	if exists {
		have = reconcile.Newest(c.writes, key, have)
	} else if pending := reconcile.Over[*corev1.Endpoints](c.writes, key, nil); len(pending) > 0 {
		have = pending[0]
	}
	svc, ok := c.backends.Services.Get(key.Namespace, key.Name)
	switch {
	case !ok:
		c.writes.Forget(key)
		if have != nil && have.Labels[managedBy] == manager {
			ref := pods.RefOf(have)
			return 0, c.apply(ctx, Plan{Delete: &ref})
		}
		return 0, nil
	case len(svc.Spec.Selector) == 0 || svc.Spec.Type == corev1.ServiceTypeExternalName || svc.DeletionTimestamp != nil:
		return 0, nil
	}
	return 0, c.apply(ctx, compute(svc, c.backends.Of(svc), have))
}
