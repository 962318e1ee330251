// Package client is how every part of Xebec reads and writes API objects.
//
//	in:   verbs on objects, by resource
//	out:  objects that nobody may modify, and errors of k8s.io/apimachinery/pkg/api/errors
//
// There are three implementations, which pass one suite (clienttest):
// client/local over the server's own watch cache, client/remote over HTTPS, and
// client/memory, which keeps everything in this process and needs no server.
//
// Every object that a Client or an Informer hands out is shared and immutable:
// DeepCopy it before changing it.
package client

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// Object is an API object of any kind.
type Object interface {
	metav1.Object
	runtime.Object
}

// Resource names one served resource.
type Resource struct {
	schema.GroupVersionResource
	Kind       string
	Namespaced bool
}

// GroupVersionKind is the kind of the resource's objects.
func (r Resource) GroupVersionKind() schema.GroupVersionKind {
	return r.GroupVersion().WithKind(r.Kind)
}

// ListOptions narrow a List or an Informer. The zero value selects everything.
type ListOptions struct {
	Namespace     string // "" is every namespace
	LabelSelector string // as in metav1.ListOptions
	FieldSelector string // as in metav1.ListOptions
}

// Interface is the verbs. An Object returned has its Go type from Scheme, or is
// *unstructured.Unstructured where Scheme does not know its kind.
type Interface interface {
	// Get returns the newest version of one object, or a NotFound error.
	Get(ctx context.Context, r Resource, key types.NamespacedName) (Object, error)

	// List returns the newest version of all that opts select, with the
	// resource version at which that was so.
	List(ctx context.Context, r Resource, opts ListOptions) (items []Object, resourceVersion string, err error)

	// Watch sends every change after resourceVersion. It ends with ctx, or with
	// an Error event (410 Gone) when resourceVersion is too old.
	Watch(ctx context.Context, r Resource, opts ListOptions, resourceVersion string) (watch.Interface, error)

	// Create stores a new object; AlreadyExists if the name is taken.
	Create(ctx context.Context, r Resource, obj Object, opts metav1.CreateOptions) (Object, error)

	// Update replaces an object or, with subresource "status", "scale",
	// "binding" and the like, that part of it. A resourceVersion in obj is a
	// precondition: Conflict if it is not the newest.
	Update(ctx context.Context, r Resource, obj Object, subresource string, opts metav1.UpdateOptions) (Object, error)

	// Patch applies data of the given type (JSON, merge, strategic merge, apply).
	Patch(ctx context.Context, r Resource, key types.NamespacedName, pt types.PatchType, data []byte, subresource string, opts metav1.PatchOptions) (Object, error)

	// Delete begins the deletion of an object; finalizers and grace periods may
	// keep it visible with a deletionTimestamp.
	Delete(ctx context.Context, r Resource, key types.NamespacedName, opts metav1.DeleteOptions) error

	// CreateSub posts to a subresource that makes something rather than updating
	// it: "binding" and "eviction" of pods, "token" of service accounts. It returns
	// what the server answers.
	CreateSub(ctx context.Context, r Resource, key types.NamespacedName, subresource string, body runtime.Object) (runtime.Object, error)

	// Informer returns a read-only view that follows what opts select. Calls with
	// equal arguments share one view; it starts at once and ends with the client.
	Informer(r Resource, opts ListOptions) Informer
}

// Informer is an indexed view of one resource that follows the server.
type Informer interface {
	// Synced is closed when the first list is complete. Absence means nothing before.
	Synced() <-chan struct{}

	// Get returns an object, or nil.
	Get(key types.NamespacedName) Object

	// List returns the objects of a namespace, of all with "". The order is not defined.
	List(namespace string) []Object

	// AddIndex makes objects findable by computed values. Adding a name that
	// exists is a no-op: the name stands for the function.
	AddIndex(name string, values func(Object) []string)

	// ByIndex returns the objects for which the index gives value.
	ByIndex(name, value string) []Object

	// Subscribe calls handle for every object there is (Added), then once with
	// Synced, then for every change, in order, from one goroutine; at the time of
	// the call, Get and List are at least as new as the event. A handler that is
	// slow delays only itself. Subscribe returns a function that ends it.
	Subscribe(handle func(Event)) (cancel func())
}

// EventType says what happened to an object.
type EventType uint8

const (
	Added EventType = iota + 1
	Modified
	Deleted
	Synced // the first list has been delivered; carries no object
)

// Event is one change that an Informer saw. For Deleted, Object is the last state known.
type Event struct {
	Type   EventType
	Old    Object // Modified only
	Object Object
}

// Key is an object's namespace and name.
func Key(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// WaitSynced waits until every informer has its first list, or ctx ends.
func WaitSynced(ctx context.Context, informers ...interface{ Synced() <-chan struct{} }) error {
	for _, i := range informers {
		select {
		case <-i.Synced():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// DefaultTimeout bounds one unary call for callers that have no deadline of their own.
const DefaultTimeout = 30 * time.Second
