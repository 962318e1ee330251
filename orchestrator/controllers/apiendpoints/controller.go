// Package apiendpoints keeps the Service default/kubernetes and its endpoints, which
// no selector could find: the addresses of the API servers.
//
//	in:   the servers' addresses; the Service, EndpointSlice and Endpoints of that name
//	out:  the three objects, created or updated
//
// It is their only writer. Invariant: they exist and name exactly the servers of
// Config, whoever else edits or deletes them.
package apiendpoints

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

// Config says where the API servers are.
type Config struct {
	Client  client.Interface
	Service netip.Addr       // of the Service: the first of the service network
	Servers []netip.AddrPort // of one address family, as pods reach them
	Log     *slog.Logger
}

// Controller reconciles the three objects.
type Controller struct {
	cfg       Config
	queue     *reconcile.Queue
	services  client.Typed[*corev1.Service]
	slices    client.Typed[*discoveryv1.EndpointSlice]
	endpoints client.Typed[*corev1.Endpoints]
	sliceView client.View[*discoveryv1.EndpointSlice]
	view      client.View[*corev1.Endpoints]
	svcView   client.View[*corev1.Service]
}

// New checks the configuration.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || len(cfg.Servers) == 0 || !cfg.Service.IsValid() {
		return nil, fmt.Errorf("API endpoints controller: client, service and servers are required")
	}
	c := &Controller{cfg: cfg, services: client.For(cfg.Client, client.Services), slices: client.For(cfg.Client, client.EndpointSlices), endpoints: client.For(cfg.Client, client.Endpoints)}
	only := client.ListOptions{Namespace: namespace, FieldSelector: "metadata.name=" + name}
	c.sliceView, c.view = c.slices.Informer(only), c.endpoints.Informer(only)
	c.svcView = c.services.Informer(only)
	var err error
	c.queue, err = reconcile.New(reconcile.Config{
		Name: "apiendpoints", Reconcile: c.reconcile, Log: cfg.Log,
		Watch: []reconcile.Watch{
			{Informer: c.svcView.Informer, Keys: reconcile.One},
			{Informer: c.sliceView.Informer, Keys: reconcile.One},
			{Informer: c.view.Informer, Keys: reconcile.One},
		},
	})
	return c, err
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	c.queue.Add(types.NamespacedName{}) // there may be no object yet, and so no event
	return c.queue.Run(ctx)
}

// Stats returns the queue's counters.
func (c *Controller) Stats() reconcile.Stats { return c.queue.Stats() }

func (c *Controller) reconcile(ctx context.Context, _ types.NamespacedName) (time.Duration, error) {
	var s Snapshot
	s.Service, _ = c.svcView.Get(namespace, name)
	s.Slice, _ = c.sliceView.Get(namespace, name)
	s.Endpoints, _ = c.view.Get(namespace, name)
	return 0, c.apply(ctx, compute(s, c.cfg.Service, c.cfg.Servers))
}
