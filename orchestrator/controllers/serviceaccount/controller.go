// Package serviceaccount keeps an account named "default" in every namespace.
//
//	in:   Namespaces, ServiceAccounts
//	out:  ServiceAccount create
//
// Invariant: an active namespace gets its account back when someone deletes it; a
// namespace that is being deleted gets nothing. Tokens are not kept as Secrets:
// pods ask for theirs by TokenRequest.
package serviceaccount

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

// Config says what the controller works on.
type Config struct {
	Client client.Interface
	Log    *slog.Logger
}

// Controller reconciles namespaces.
type Controller struct {
	queue       *reconcile.Queue
	accounts    client.Typed[*corev1.ServiceAccount]
	view        client.View[*corev1.Namespace]
	accountView client.View[*corev1.ServiceAccount]
}

// New checks the configuration.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil {
		return nil, fmt.Errorf("service account controller: no client")
	}
	c := &Controller{accounts: client.For(cfg.Client, client.ServiceAccounts)}
	c.view = client.For(cfg.Client, client.Namespaces).Informer(client.ListOptions{})
	c.accountView = c.accounts.Informer(client.ListOptions{})
	var err error
	c.queue, err = reconcile.New(reconcile.Config{
		Name: "serviceaccount", Reconcile: c.reconcile, Log: cfg.Log,
		Watch: []reconcile.Watch{
			{Informer: c.view.Informer, Keys: reconcile.Self},
			{Informer: c.accountView.Informer, Keys: func(ev client.Event) []types.NamespacedName {
				if ev.Type != client.Deleted || ev.Object.GetName() != name {
					return nil
				}
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
	account, _ := c.accountView.Get(ns.Name, name)
	return 0, c.apply(ctx, ns.Name, compute(ns, account))
}
