// Package rootca publishes the cluster's CA bundle in every namespace, as the
// ConfigMap kube-root-ca.crt that pods mount beside their token.
//
//	in:   Namespaces, ConfigMaps of that name, the bundle
//	out:  ConfigMap create, update
//
// Invariant: every active namespace holds exactly this bundle.
package rootca

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

// Config says what the controller publishes.
type Config struct {
	Client client.Interface
	CA     []byte // PEM
	Log    *slog.Logger
}

// Controller reconciles namespaces.
type Controller struct {
	cfg     Config
	queue   *reconcile.Queue
	maps    client.Typed[*corev1.ConfigMap]
	view    client.View[*corev1.Namespace]
	mapView client.View[*corev1.ConfigMap]
}

// New checks the configuration.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || len(cfg.CA) == 0 {
		return nil, fmt.Errorf("root CA controller: client and CA are required")
	}
	c := &Controller{cfg: cfg, maps: client.For(cfg.Client, client.ConfigMaps)}
	c.view = client.For(cfg.Client, client.Namespaces).Informer(client.ListOptions{})
	c.mapView = c.maps.Informer(client.ListOptions{FieldSelector: "metadata.name=" + name})
	var err error
	c.queue, err = reconcile.New(reconcile.Config{
		Name: "rootca", Reconcile: c.reconcile, Log: cfg.Log,
		Watch: []reconcile.Watch{
			{Informer: c.view.Informer, Keys: reconcile.Self},
			{Informer: c.mapView.Informer, Keys: func(ev client.Event) []types.NamespacedName {
				return []types.NamespacedName{{Name: ev.Object.GetNamespace()}}
			}},
		},
	})
	return c, err
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.queue.Run(ctx) }

// Stats returns the queue's counters.
func (c *Controller) Stats() reconcile.Stats { return c.queue.Stats() }

func (c *Controller) reconcile(ctx context.Context, key types.NamespacedName) (time.Duration, error) {
	ns, ok := c.view.Get("", key.Name)
	if !ok {
		return 0, nil
	}
	have, _ := c.mapView.Get(ns.Name, name)
	return 0, c.apply(ctx, compute(ns, have, string(c.cfg.CA)))
}
