// Package service tells this node's kernel and DNS of the cluster's Services.
//
//	in:   Services, EndpointSlices, Namespaces
//	out:  service.Service for the balancer, dns.Service for the cluster's DNS
//
// A change costs what it touches: the Service that it names is translated anew and
// handed on. The first thing that the tables hear is the whole state, once
// everything is known; so nothing disappears from them because it has not come yet.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/dataplane/dns"
	"github.com/xebec-mesh/xebec/dataplane/service"
	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// Balancer is the kernel's table of Services.
type Balancer interface {
	Apply(services []service.Service, generation uint64) error
	Update(services ...service.Service) error
	Delete(names ...string) error
}

// Resolver is the cluster's DNS.
type Resolver interface{ Send(u dns.Update) }

// Config is what is followed and who is told.
type Config struct {
	Client   client.Interface
	Node     string
	Balancer Balancer // may be nil
	Resolver Resolver // may be nil
	Log      *slog.Logger
}

// Follower follows Services.
type Follower struct {
	cfg        Config
	services   client.View[*corev1.Service]
	slices     client.View[*discoveryv1.EndpointSlice]
	namespaces client.View[*corev1.Namespace]

	mu    sync.Mutex
	dirty map[types.NamespacedName]bool
	full  bool // namespaces came or went
	wake  chan struct{}
}

const byService = "service"

// New checks the configuration.
func New(cfg Config) (*Follower, error) {
	if cfg.Client == nil || cfg.Node == "" {
		return nil, errors.New("configure services: Client and Node are needed")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	f := &Follower{
		cfg:        cfg,
		services:   client.For(cfg.Client, client.Services).Informer(client.ListOptions{}),
		slices:     client.For(cfg.Client, client.EndpointSlices).Informer(client.ListOptions{}),
		namespaces: client.For(cfg.Client, client.Namespaces).Informer(client.ListOptions{}),
		dirty:      map[types.NamespacedName]bool{},
		wake:       make(chan struct{}, 1),
	}
	f.slices.AddIndex(byService, func(o client.Object) []string {
		if name := o.GetLabels()[discoveryv1.LabelServiceName]; name != "" {
			return []string{o.GetNamespace() + "/" + name}
		}
		return nil
	})
	return f, nil
}

// Services are those that a pod's environment may announce.
func (f *Follower) Services(namespace string) []*corev1.Service {
	out := f.services.List(namespace)
	if namespace != "default" {
		if api, ok := f.services.Get("default", "kubernetes"); ok {
			out = append(out, api)
		}
	}
	slices.SortFunc(out, func(a, b *corev1.Service) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Synced waits until the Services are known.
func (f *Follower) Synced(ctx context.Context) error { return client.WaitSynced(ctx, f.services) }

// Run follows until ctx ends.
func (f *Follower) Run(ctx context.Context) error {
	if err := client.WaitSynced(ctx, f.services, f.slices, f.namespaces); err != nil {
		return nil
	}
	defer f.services.Subscribe(func(e client.Event) { f.touch(e, func(o client.Object) string { return o.GetName() }) })()
	defer f.slices.Subscribe(func(e client.Event) {
		f.touch(e, func(o client.Object) string { return o.GetLabels()[discoveryv1.LabelServiceName] })
	})()
	defer f.namespaces.Subscribe(func(e client.Event) {
		if e.Type == client.Added || e.Type == client.Deleted {
			f.mark(func() { f.full = true })
		}
	})()
	generation := uint64(time.Now().UnixNano()) // larger than any earlier agent's
	return f.tell(ctx, generation)
}

func (f *Follower) touch(e client.Event, name func(client.Object) string) {
	for _, o := range []client.Object{e.Old, e.Object} {
		if o == nil {
			continue
		}
		if n := name(o); n != "" {
			f.mark(func() { f.dirty[types.NamespacedName{Namespace: o.GetNamespace(), Name: n}] = true })
		}
	}
}

func (f *Follower) mark(change func()) {
	f.mu.Lock()
	change()
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *Follower) take() (map[types.NamespacedName]bool, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, full := f.dirty, f.full
	f.dirty, f.full = map[types.NamespacedName]bool{}, false
	return d, full
}

// tell hands on the whole state, then what changes. After an error it begins anew.
func (f *Follower) tell(ctx context.Context, generation uint64) error {
	whole := true
	for {
		dirty, full := f.take()
		var err error
		if whole {
			err = f.all(generation)
		} else if len(dirty) > 0 || full {
			err = f.some(generation, dirty, full)
		}
		generation++
		whole = err != nil
		var retry <-chan time.Time
		if err != nil {
			f.cfg.Log.Error("tell the tables of services", "err", err)
			retry = time.After(time.Second)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		case <-retry:
		}
	}
}

func (f *Follower) all(generation uint64) error {
	var svcs []service.Service
	u := dns.Update{Generation: generation, Full: true}
	for _, s := range f.services.List("") {
		b, d := f.translate(s)
		svcs = append(svcs, b)
		u.Services = append(u.Services, d)
	}
	u.Namespaces = f.namespaceNames()
	if f.cfg.Resolver != nil {
		f.cfg.Resolver.Send(u)
	}
	if f.cfg.Balancer == nil {
		return nil
	}
	if err := f.cfg.Balancer.Apply(svcs, generation); err != nil {
		return fmt.Errorf("apply all services: %w", err)
	}
	return nil
}

func (f *Follower) namespaceNames() []string {
	var out []string
	for _, ns := range f.namespaces.List("") {
		out = append(out, ns.Name)
	}
	slices.Sort(out)
	return out
}

func (f *Follower) some(generation uint64, dirty map[types.NamespacedName]bool, full bool) error {
	u := dns.Update{Generation: generation}
	var update []service.Service
	var gone []string
	for key := range dirty {
		s, ok := f.services.Get(key.Namespace, key.Name)
		if !ok {
			gone = append(gone, key.String())
			u.Removed = append(u.Removed, dns.Key{Namespace: key.Namespace, Name: key.Name})
			continue
		}
		b, d := f.translate(s)
		update = append(update, b)
		u.Services = append(u.Services, d)
	}
	if f.cfg.Resolver != nil {
		if full {
			u = dns.Update{Generation: generation, Full: true, Namespaces: f.namespaceNames()}
			for _, s := range f.services.List("") {
				_, d := f.translate(s)
				u.Services = append(u.Services, d)
			}
		}
		f.cfg.Resolver.Send(u)
	}
	if f.cfg.Balancer == nil {
		return nil
	}
	if len(update) > 0 {
		if err := f.cfg.Balancer.Update(update...); err != nil {
			return fmt.Errorf("update services: %w", err)
		}
	}
	if len(gone) > 0 {
		if err := f.cfg.Balancer.Delete(gone...); err != nil {
			return fmt.Errorf("delete services: %w", err)
		}
	}
	return nil
}

func (f *Follower) translate(s *corev1.Service) (service.Service, dns.Service) {
	list := f.slices.ByIndex(byService, s.Namespace+"/"+s.Name)
	return Balance(s, list, f.cfg.Node), Resolve(s, list)
}
