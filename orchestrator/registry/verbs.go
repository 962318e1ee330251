package registry

import (
	"context"
	"errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

var errTODO = errors.New("not written yet")

// TypeConverters gives the type converter of a kind, for server-side apply.
type TypeConverters func(*resource.Kind) (managedfields.TypeConverter, error)

// Registry carries out verbs. It may be used by many goroutines.
type Registry struct{ cfg Config }

// New checks cfg.
func New(cfg Config) (*Registry, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return &Registry{cfg: cfg}, nil
}

// Run fills the cache and follows the store until ctx ends.
func (r *Registry) Run(ctx context.Context) error { return errTODO }

// Ready is closed when the cache is filled; verbs wait for it.
func (r *Registry) Ready() <-chan struct{} { return nil }

// AddKind begins to serve a kind; one with the same resource is replaced.
func (r *Registry) AddKind(k *resource.Kind) error { return errTODO }

// RemoveKind ends serving a kind. Its stored objects stay.
func (r *Registry) RemoveKind(gvr schema.GroupVersionResource) {}

// Kind finds a served kind, or returns nil.
func (r *Registry) Kind(gvr schema.GroupVersionResource) *resource.Kind { return nil }

// Kinds are the kinds that are served now.
func (r *Registry) Kinds() []*resource.Kind { return nil }

// Get returns one object; opts.ResourceVersion "" is the newest, "0" any, else at
// least that one. For subresource "scale" the object's Kind is that of the scale.
func (r *Registry) Get(ctx context.Context, req Request, opts metav1.GetOptions) (*cache.Object, error) {
	return nil, errTODO
}

// List returns what opts select, honouring limit, continue, resourceVersion and
// resourceVersionMatch. req.Namespace "" is all namespaces.
func (r *Registry) List(ctx context.Context, req Request, opts metav1.ListOptions) (*cache.List, error) {
	return nil, errTODO
}

// Watch follows what opts select. An error that comes from the first moment (410
// Gone, bad selector) is returned at once; later ones by Watcher.Next.
func (r *Registry) Watch(ctx context.Context, req Request, opts metav1.ListOptions) (*cache.Watcher, error) {
	return nil, errTODO
}

// Create stores obj, which the Registry takes over; obj may be the face that
// req.Kind is. Subresources of Kind.Actions ("binding") take their own bodies.
// The result is what the response carries; for an action it may be nil, which
// stands for metav1.Status Success.
func (r *Registry) Create(ctx context.Context, req Request, obj runtime.Object) (*cache.Object, error) {
	return nil, errTODO
}

// Update replaces an object or a part of it; the Registry takes obj over.
// created is true where Kind.CreateOnUpdate made a new one.
func (r *Registry) Update(ctx context.Context, req Request, obj runtime.Object) (o *cache.Object, created bool, err error) {
	return nil, false, errTODO
}

// Patch changes an object or a part of it; an apply patch makes what is missing.
func (r *Registry) Patch(ctx context.Context, req Request, p Patch) (o *cache.Object, created bool, err error) {
	return nil, false, errTODO
}

// Delete begins or ends the deletion of an object. It returns the object, gone
// if it is gone and as it was marked otherwise.
func (r *Registry) Delete(ctx context.Context, req Request, opts metav1.DeleteOptions) (o *cache.Object, gone bool, err error) {
	return nil, false, errTODO
}

// DeleteCollection deletes what list selects and returns it.
func (r *Registry) DeleteCollection(ctx context.Context, req Request, opts metav1.DeleteOptions, list metav1.ListOptions) (*cache.List, error) {
	return nil, errTODO
}
