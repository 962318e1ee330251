// Package garbagecollector deletes objects whose owners are gone.
//
//	in:   every resource that the API serves, custom ones included
//	out:  deletion of dependents in the background, in the foreground, or their
//	      release as orphans; removal of the two finalizers that stand for this
//
// An event costs what it touches: the object's dependents and owners. Invariant:
// before an owner counts as gone, the server itself has said so; an informer that
// is late, or does not exist yet, deletes nothing.
package garbagecollector

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

// Discovery lists what there is in a cluster.
type Discovery interface {
	// Resources returns every served resource, in one version, that can be listed,
	// watched and deleted.
	Resources(ctx context.Context) ([]client.Resource, error)
}

// Config says what the controller works on.
type Config struct {
	Client    client.Interface
	Discovery Discovery
	Refresh   time.Duration // between looks for new resources, beside changes of definitions; default 30 s
	Workers   int           // objects looked at at the same time; default 8
	Log       *slog.Logger
}

// Controller collects.
type Controller struct {
	cfg   Config
	queue *reconcile.Queue
	graph *graph
	crds  client.Informer

	mu        sync.RWMutex
	resources map[schema.GroupResource]*followed
	byKind    map[schema.GroupKind]*followed
}

// followed is one resource whose objects are in the graph.
type followed struct {
	client.Resource
	view   client.Informer
	cancel func()
}

// New checks the configuration.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Discovery == nil {
		return nil, fmt.Errorf("garbage collector: client and discovery are required")
	}
	if cfg.Refresh <= 0 {
		cfg.Refresh = 30 * time.Second
	}
	if cfg.Workers <= 0 {
		cfg.Workers = 8
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Controller{cfg: cfg, crds: cfg.Client.Informer(client.CustomResourceDefinitions.Resource, client.ListOptions{})}
	c.reset()
	var err error
	c.queue, err = reconcile.New(reconcile.Config{Name: "garbagecollector", Workers: cfg.Workers, Reconcile: c.reconcile, Log: cfg.Log})
	return c, err
}

func (c *Controller) reset() {
	c.graph = newGraph()
	c.resources, c.byKind = map[schema.GroupResource]*followed{}, map[schema.GroupKind]*followed{}
}

// Run collects until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	c.reset()
	changed := make(chan struct{}, 1)
	defer c.crds.Subscribe(func(client.Event) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})()
	defer c.unfollow(nil)
	if err := c.refresh(ctx); err != nil {
		c.cfg.Log.Warn("list resources", "err", err)
	}
	if err := c.synced(ctx); err != nil {
		return err
	}
	var refreshing sync.WaitGroup
	refreshing.Go(func() { c.keepFresh(ctx, changed) })
	defer refreshing.Wait()
	return c.queue.Run(ctx)
}

// Stats returns the queue's counters.
func (c *Controller) Stats() reconcile.Stats { return c.queue.Stats() }

// keepFresh follows resources that come, and lets go of those that are no longer served.
func (c *Controller) keepFresh(ctx context.Context, changed <-chan struct{}) {
	tick := time.NewTicker(c.cfg.Refresh)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
		if err := c.refresh(ctx); err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn("list resources", "err", err)
		}
	}
}

func (c *Controller) refresh(ctx context.Context) error {
	resources, err := c.cfg.Discovery.Resources(ctx)
	if err != nil {
		return err
	}
	served := map[schema.GroupResource]bool{}
	for _, r := range resources {
		if r.Resource == "events" { // they own nothing, and expire by themselves
			continue
		}
		served[r.GroupResource()] = true
		c.follow(r)
	}
	c.unfollow(served)
	return nil
}

func (c *Controller) follow(r client.Resource) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if have := c.resources[r.GroupResource()]; have != nil {
		return
	}
	f := &followed{Resource: r, view: c.cfg.Client.Informer(r, client.ListOptions{})}
	c.resources[r.GroupResource()] = f
	c.byKind[r.GroupVersionKind().GroupKind()] = f
	f.cancel = f.view.Subscribe(func(ev client.Event) { c.observe(r, ev) })
}

// unfollow ends what is not in keep; nil ends all.
func (c *Controller) unfollow(keep map[schema.GroupResource]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for gr, f := range c.resources {
		if !keep[gr] {
			f.cancel()
			delete(c.resources, gr)
			delete(c.byKind, f.GroupVersionKind().GroupKind())
		}
	}
}

func (c *Controller) synced(ctx context.Context) error {
	c.mu.RLock()
	var views []interface{ Synced() <-chan struct{} }
	for _, f := range c.resources {
		views = append(views, f.view)
	}
	c.mu.RUnlock()
	return client.WaitSynced(ctx, views...)
}

// observe brings the graph up to date and queues what an event concerns.
func (c *Controller) observe(r client.Resource, ev client.Event) {
	if ev.Type == client.Synced {
		return
	}
	o := ev.Object
	item := Item{r, client.Key(o)}
	if ev.Type == client.Deleted {
		owners := c.graph.remove(o.GetUID())
		for _, d := range c.graph.of(o.GetUID()) {
			c.queue.Add(c.key(d.Item))
		}
		c.visitOwners(o.GetNamespace(), owners)
		return
	}
	if ev.Type == client.Added || !slices.EqualFunc(ev.Old.GetOwnerReferences(), o.GetOwnerReferences(), sameReference) {
		c.graph.set(item, o)
		if ev.Old != nil {
			c.visitOwners(o.GetNamespace(), ev.Old.GetOwnerReferences()) // one that waits for its dependents may have one less
		}
		if len(o.GetOwnerReferences()) > 0 {
			c.queue.Add(c.key(item))
		}
	}
	if o.GetDeletionTimestamp() != nil {
		c.queue.Add(c.key(item))
	}
}

func sameReference(a, b metav1.OwnerReference) bool {
	blocks := func(r metav1.OwnerReference) bool { return r.BlockOwnerDeletion != nil && *r.BlockOwnerDeletion }
	return a.UID == b.UID && blocks(a) == blocks(b)
}

// visitOwners queues the owners that are known.
func (c *Controller) visitOwners(namespace string, refs []metav1.OwnerReference) {
	for _, ref := range refs {
		if i, ok := c.ownerItem(namespace, ref); ok {
			c.queue.Add(c.key(i))
		}
	}
}

// ownerItem finds the resource that a reference names.
func (c *Controller) ownerItem(namespace string, ref metav1.OwnerReference) (Item, bool) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return Item{}, false
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	f := c.byKind[gv.WithKind(ref.Kind).GroupKind()]
	if f == nil {
		return Item{}, false
	}
	i := Item{f.Resource, types.NamespacedName{Name: ref.Name}}
	if f.Namespaced {
		i.Key.Namespace = namespace
	}
	return i, true
}

// key packs an item into a queue's key: group and resource, then namespace and name.
func (c *Controller) key(i Item) types.NamespacedName {
	return types.NamespacedName{Namespace: i.Resource.GroupResource().String(), Name: i.Key.String()}
}

func (c *Controller) item(key types.NamespacedName) (*followed, types.NamespacedName) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	ns, name, _ := strings.Cut(key.Name, "/")
	return c.resources[schema.ParseGroupResource(key.Namespace)], types.NamespacedName{Namespace: ns, Name: name}
}

func (c *Controller) reconcile(ctx context.Context, key types.NamespacedName) (time.Duration, error) {
	f, name := c.item(key)
	if f == nil {
		return 0, nil
	}
	o := f.view.Get(name)
	if o == nil {
		return 0, nil
	}
	s := Snapshot{Item: Item{f.Resource, name}, Object: o, Dependents: c.graph.of(o.GetUID())}
	var again time.Duration
	if o.GetDeletionTimestamp() == nil {
		for _, ref := range o.GetOwnerReferences() {
			state, err := c.stateOf(ctx, o, ref)
			if err != nil {
				return 0, err
			}
			if state == unknown { // never take a kind that is not served, or not yet, for absence
				state, again = Solid, c.cfg.Refresh
			}
			s.Owners = append(s.Owners, Owner{ref, state})
		}
	}
	return again, c.apply(ctx, o, compute(s))
}

// unknown is what stateOf says of a kind that nobody serves.
const unknown OwnerState = -1

// stateOf finds out what became of an owner. What the informer does not show is asked
// of the server.
func (c *Controller) stateOf(ctx context.Context, o client.Object, ref metav1.OwnerReference) (OwnerState, error) {
	i, ok := c.ownerItem(o.GetNamespace(), ref)
	if !ok {
		return unknown, nil
	}
	if i.Resource.Namespaced && o.GetNamespace() == "" {
		return Solid, nil // a cluster-wide object cannot have an owner in a namespace
	}
	c.mu.RLock()
	f := c.resources[i.Resource.GroupResource()]
	c.mu.RUnlock()
	var owner client.Object
	if f != nil {
		owner = f.view.Get(i.Key)
	}
	if owner == nil || owner.GetUID() != ref.UID {
		var err error
		owner, err = c.cfg.Client.Get(ctx, i.Resource, i.Key)
		if err != nil && !apierrors.IsNotFound(err) {
			return Solid, fmt.Errorf("get owner %s of %s: %w", i, client.Key(o), err)
		}
		if err != nil || owner.GetUID() != ref.UID {
			return Gone, nil
		}
	}
	if owner.GetDeletionTimestamp() != nil && slices.Contains(owner.GetFinalizers(), metav1.FinalizerDeleteDependents) {
		return Waiting, nil
	}
	return Solid, nil
}
