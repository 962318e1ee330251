// Package endpointmirror copies Endpoints that users write, for Services without
// selector, into EndpointSlices.
//
//	in:   Services, Endpoints, EndpointSlices
//	out:  EndpointSlices, created, updated and deleted
//
// It is the only writer of the slices that are labelled with its name. Readers of
// slices therefore need not know Endpoints at all. Its apply.go is endpointslice.Apply.
package endpointmirror

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/endpointslice"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

// Config says what the controller works on.
type Config struct {
	Client client.Interface
	Log    *slog.Logger
}

// Controller reconciles Endpoints.
type Controller struct {
	queue     *reconcile.Queue
	slices    client.Typed[*discoveryv1.EndpointSlice]
	sliceView client.View[*discoveryv1.EndpointSlice]
	services  client.View[*corev1.Service]
	endpoints client.View[*corev1.Endpoints]
	writes    *reconcile.Writes
}

// New checks the configuration.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil {
		return nil, fmt.Errorf("endpoint mirror: no client")
	}
	c := &Controller{slices: client.For(cfg.Client, client.EndpointSlices), writes: reconcile.NewWrites()}
	c.sliceView = c.slices.Informer(client.ListOptions{})
	c.services = client.For(cfg.Client, client.Services).Informer(client.ListOptions{})
	c.endpoints = client.For(cfg.Client, client.Endpoints).Informer(client.ListOptions{})
	endpointslice.AddIndex(c.sliceView.Informer)
	var err error
	c.queue, err = reconcile.New(reconcile.Config{
		Name: "endpointmirror", Reconcile: c.reconcile, Log: cfg.Log,
		Watch: []reconcile.Watch{
			{Informer: c.services.Informer, Keys: reconcile.Self},
			{Informer: c.endpoints.Informer, Keys: reconcile.Self},
			{Informer: c.sliceView.Informer, Keys: c.writes.Keys(func(ev client.Event) []types.NamespacedName {
				return endpointslice.ServiceOf(ev, managedBy)
			})},
		},
	})
	return c, err
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.queue.Run(ctx) }

// Stats returns the queue's counters.
func (c *Controller) Stats() reconcile.Stats { return c.queue.Stats() }

func (c *Controller) reconcile(ctx context.Context, key types.NamespacedName) (time.Duration, error) {
	svc, _ := c.services.Get(key.Namespace, key.Name)
	e, _ := c.endpoints.Get(key.Namespace, key.Name)
	have := endpointslice.Managed(reconcile.Over(c.writes, key, c.sliceView.ByIndex(endpointslice.ByService, key.String())), managedBy)
	return 0, endpointslice.Apply(ctx, c.slices, c.writes, key, compute(svc, e, have))
}
