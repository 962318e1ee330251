// Package registry is what a verb means: the API's semantics over the strategy
// of a kind, the admission plugins, the watch cache and the store.
//
//	in:   verbs on objects, by who is authenticated and authorized to do so
//	out:  cache.Objects as they are stored; errors of k8s.io/apimachinery/pkg/api/errors
//
// The HTTP server and the in-process client are both thin layers over it, so a
// controller inside the process meets exactly the rules that kubectl meets.
//
// Invariants: every write goes through admission and validation and carries
// managedFields; a write that changes nothing is not stored and keeps the
// resourceVersion; an update whose resourceVersion is not the newest is refused,
// and one without is retried on the newest. Writers of one object take turns
// within the process; between processes the store's revisions decide.
package registry

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/clock"

	"github.com/xebec-mesh/xebec/orchestrator/admission"
	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
	"github.com/xebec-mesh/xebec/orchestrator/store"
)

// Config says what a Registry works on.
type Config struct {
	Store     store.Store        // required
	Kinds     []*resource.Kind   // served from the start; more come by AddKind
	Admission *admission.Chain   // nil admits everything
	Types     TypeConverters     // schemas for server-side apply; default: client-go's for built-in kinds
	Clock     clock.PassiveClock // default: the machine's
	Cache     cache.Config       // budgets of the watch cache; Store and Log are filled in
	Log       *slog.Logger       // required
}

// TypeConverters gives the schema of a kind in the form that server-side apply
// needs; nil where there is none, and then lists are atomic.
type TypeConverters func(*resource.Kind) (managedfields.TypeConverter, error)

// Request says on what a verb works and who asks.
type Request struct {
	Kind        *resource.Kind
	Namespace   string
	Name        string
	Subresource string // "", "status", "scale", and the names of Kind.Parts and Kind.Actions
	User        user.Info

	DryRun       bool
	FieldManager string // writes: who is recorded in managedFields
	// FieldValidation is Ignore, Warn or Strict; it concerns patches here, since
	// whole objects have been decoded by the caller.
	FieldValidation string
	// Warn takes what the client should be told although the verb succeeds; may be nil.
	Warn func(text string)
}

// Patch is a change to an object.
type Patch struct {
	Type types.PatchType
	Data []byte // JSON; for apply also YAML
	// Force takes over fields that other managers own; apply only.
	Force bool
}

// Registry carries out verbs. It may be used by many goroutines.
type Registry struct {
	cfg    Config
	hub    *cache.Hub
	locks  keyLocks
	fields fieldManagers

	mu        sync.RWMutex
	kinds     map[schema.GroupVersionResource]*resource.Kind
	resources map[schema.GroupResource]*cache.Resource // by stored kind
}

// New checks cfg.
func New(cfg Config) (*Registry, error) {
	if cfg.Store == nil {
		return nil, fmt.Errorf("make registry: no store given")
	}
	if cfg.Log == nil {
		return nil, fmt.Errorf("make registry: no log given")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.Types == nil {
		cfg.Types = BuiltInTypes
	}
	cfg.Cache.Store, cfg.Cache.Log = cfg.Store, cfg.Log
	hub, err := cache.NewHub(cfg.Cache)
	if err != nil {
		return nil, err
	}
	r := &Registry{
		cfg:       cfg,
		hub:       hub,
		kinds:     map[schema.GroupVersionResource]*resource.Kind{},
		resources: map[schema.GroupResource]*cache.Resource{},
	}
	r.fields.types = cfg.Types
	for _, k := range cfg.Kinds {
		if err := r.AddKind(k); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Run fills the cache and follows the store until ctx ends.
func (r *Registry) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.hub.Run(ctx) })
	g.Go(func() error { return r.expireLoop(ctx) })
	return g.Wait()
}

// Ready is closed when the cache is filled; verbs wait for it.
func (r *Registry) Ready() <-chan struct{} { return r.hub.Ready() }

// Revision is how new the cache is.
func (r *Registry) Revision() uint64 { return r.hub.Progress() }

// addTimeout bounds the filling of the cache of one kind.
const addTimeout = 30 * time.Second

// AddKind begins to serve a kind; one with the same resource is replaced. What a
// kind is a view of is added with it.
func (r *Registry) AddKind(k *resource.Kind) error {
	ctx, cancel := context.WithTimeout(context.Background(), addTimeout)
	defer cancel()
	stored := k.Stored()
	res, err := r.hub.Add(ctx, stored)
	if err != nil {
		return fmt.Errorf("add kind %s: %w", k.GroupVersionKind, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resources[stored.GroupResource()] = res
	r.kinds[k.GroupVersionResource()] = k
	r.fields.forget(k)
	return nil
}

// RemoveKind ends serving a kind and all watches of it. Its stored objects stay.
func (r *Registry) RemoveKind(gvr schema.GroupVersionResource) {
	r.mu.Lock()
	k := r.kinds[gvr]
	if k == nil {
		r.mu.Unlock()
		return
	}
	delete(r.kinds, gvr)
	r.fields.forget(k)
	gr := k.Stored().GroupResource()
	for _, other := range r.kinds {
		if other.Stored().GroupResource() == gr {
			r.mu.Unlock()
			return
		}
	}
	delete(r.resources, gr)
	r.mu.Unlock()
	r.hub.Remove(gr)
}

// Kind finds a served kind, or returns nil.
func (r *Registry) Kind(gvr schema.GroupVersionResource) *resource.Kind {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.kinds[gvr]
}

// Kinds are the kinds that are served now, in no order.
func (r *Registry) Kinds() []*resource.Kind {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make([]*resource.Kind, 0, len(r.kinds))
	for _, k := range r.kinds {
		all = append(all, k)
	}
	return all
}

func (r *Registry) resource(k *resource.Kind) *cache.Resource {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.resources[k.Stored().GroupResource()]
}
