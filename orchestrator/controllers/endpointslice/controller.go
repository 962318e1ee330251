// Package endpointslice says in EndpointSlices where the pods of each Service are.
//
//	in:   Services with a selector, Pods, Nodes for their zones, EndpointSlices
//	out:  EndpointSlices, created, updated and deleted
//
// It is the only writer of the slices that are labelled with its name. Invariant: an
// endpoint is in exactly one slice for each address family, a slice holds at most
// 100, and one pod's change rewrites one slice a family.
package endpointslice

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/backends"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

// ByService is the name of an index of slices by the namespace/name of their Service.
const ByService = "service"

// Config says what the controller works on.
type Config struct {
	Client   client.Interface
	Backends *backends.Index // may be shared; default a new one
	Workers  int             // Services reconciled at the same time; default 4
	Log      *slog.Logger
}

// Controller reconciles Services.
type Controller struct {
	backends  *backends.Index
	queue     *reconcile.Queue
	slices    client.Typed[*discoveryv1.EndpointSlice]
	sliceView client.View[*discoveryv1.EndpointSlice]
	nodes     client.View[*corev1.Node]
	writes    *reconcile.Writes
}

// New checks the configuration.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil {
		return nil, fmt.Errorf("endpoint slice controller: no client")
	}
	if cfg.Backends == nil {
		cfg.Backends = backends.New(cfg.Client)
	}
	if cfg.Workers <= 0 {
		cfg.Workers = 4
	}
	c := &Controller{backends: cfg.Backends, slices: client.For(cfg.Client, client.EndpointSlices), writes: reconcile.NewWrites()}
	c.sliceView = c.slices.Informer(client.ListOptions{})
	c.nodes = client.For(cfg.Client, client.Nodes).Informer(client.ListOptions{})
	AddIndex(c.sliceView.Informer)
	var err error
	c.queue, err = reconcile.New(reconcile.Config{
		Name: "endpointslice", Workers: cfg.Workers, Reconcile: c.reconcile, Log: cfg.Log,
		Watch: []reconcile.Watch{
			{Informer: c.backends.Services.Informer, Keys: reconcile.Self},
			{Informer: c.backends.Pods.Informer, Keys: c.backends.Keys},
			{Informer: c.sliceView.Informer, Keys: c.writes.Keys(func(ev client.Event) []types.NamespacedName {
				return ServiceOf(ev, managedBy)
			})},
			{Informer: c.nodes.Informer, Keys: c.keysOfNode},
		},
	})
	return c, err
}

// AddIndex makes slices findable by their Service.
func AddIndex(i client.Informer) {
	i.AddIndex(ByService, func(o client.Object) []string {
		if svc := o.GetLabels()[discoveryv1.LabelServiceName]; svc != "" {
			return []string{o.GetNamespace() + "/" + svc}
		}
		return nil
	})
}

// ServiceOf maps the event of a slice with the given manager to its Service.
func ServiceOf(ev client.Event, manager string) []types.NamespacedName {
	o := ev.Object
	if ev.Old != nil && ev.Old.GetLabels()[discoveryv1.LabelManagedBy] == manager {
		o = ev.Old // someone may have taken the labels away
	}
	l := o.GetLabels()
	if l[discoveryv1.LabelManagedBy] != manager {
		return nil
	}
	return []types.NamespacedName{{Namespace: o.GetNamespace(), Name: l[discoveryv1.LabelServiceName]}}
}

// keysOfNode maps a node that has moved to another zone, or has just become known,
// to the Services with pods on it.
func (c *Controller) keysOfNode(ev client.Event) []types.NamespacedName {
	was := ""
	if ev.Old != nil {
		was = zoneOf(ev.Old)
	}
	if ev.Type == client.Deleted || zoneOf(ev.Object) == was {
		return nil
	}
	var keys []types.NamespacedName
	for _, s := range c.sliceView.List("") {
		for i := range s.Endpoints {
			if n := s.Endpoints[i].NodeName; n != nil && *n == ev.Object.GetName() {
				keys = append(keys, ServiceOf(client.Event{Object: s}, managedBy)...)
				break
			}
		}
	}
	return keys
}

func zoneOf(node client.Object) string { return node.GetLabels()[corev1.LabelTopologyZone] }

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.queue.Run(ctx) }

// Stats returns the queue's counters.
func (c *Controller) Stats() reconcile.Stats { return c.queue.Stats() }

func (c *Controller) reconcile(ctx context.Context, key types.NamespacedName) (time.Duration, error) {
	svc, ok := c.backends.Services.Get(key.Namespace, key.Name)
	if !ok || len(svc.Spec.Selector) == 0 || svc.Spec.Type == corev1.ServiceTypeExternalName || svc.DeletionTimestamp != nil {
		// The slices of a Service that is gone go with it, by their owner reference.
		c.backends.Forget(key)
		c.writes.Forget(key)
		return 0, nil
	}
	plan := compute(Snapshot{
		Service: svc, Pods: c.backends.Of(svc),
		Slices: Managed(reconcile.Over(c.writes, key, c.sliceView.ByIndex(ByService, key.String())), managedBy),
		Zone:   c.zone,
	})
	if err := Apply(ctx, c.slices, c.writes, key, plan); err != nil {
		return 0, err
	}
	return c.writes.Settle(key), nil
}

func (c *Controller) zone(node string) string {
	n, ok := c.nodes.Get("", node)
	if !ok {
		return ""
	}
	return zoneOf(n)
}

// Managed returns the slices that the given manager owns.
func Managed(all []*discoveryv1.EndpointSlice, manager string) []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	for _, s := range all {
		if s.Labels[discoveryv1.LabelManagedBy] == manager && s.DeletionTimestamp == nil {
			out = append(out, s)
		}
	}
	return out
}
