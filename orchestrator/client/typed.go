package client

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Kind is a Resource whose objects have the Go type T.
type Kind[T Object] struct{ Resource }

// Typed is Interface for one kind, with its Go type.
//
//	pods := client.For(c, client.Pods)
//	pod, err := pods.Get(ctx, "default", "web-0")
type Typed[T Object] struct {
	c Interface
	r Resource
}

// For narrows c to one kind.
func For[T Object](c Interface, k Kind[T]) Typed[T] { return Typed[T]{c: c, r: k.Resource} }

// Get returns the newest version of one object, or a NotFound error.
func (t Typed[T]) Get(ctx context.Context, namespace, name string) (T, error) {
	return as[T](t.c.Get(ctx, t.r, types.NamespacedName{Namespace: namespace, Name: name}))
}

// List returns the newest version of all that opts select.
func (t Typed[T]) List(ctx context.Context, opts ListOptions) ([]T, error) {
	items, _, err := t.c.List(ctx, t.r, opts)
	if err != nil {
		return nil, err
	}
	return typed[T](items), nil
}

// Create stores a new object.
func (t Typed[T]) Create(ctx context.Context, obj T) (T, error) {
	return as[T](t.c.Create(ctx, t.r, obj, metav1.CreateOptions{}))
}

// Update replaces an object; its resourceVersion, where set, is a precondition.
func (t Typed[T]) Update(ctx context.Context, obj T) (T, error) {
	return as[T](t.c.Update(ctx, t.r, obj, "", metav1.UpdateOptions{}))
}

// UpdateStatus replaces an object's status.
func (t Typed[T]) UpdateStatus(ctx context.Context, obj T) (T, error) {
	return as[T](t.c.Update(ctx, t.r, obj, "status", metav1.UpdateOptions{}))
}

// Patch applies a patch; subresource may be "".
func (t Typed[T]) Patch(ctx context.Context, namespace, name string, pt types.PatchType, data []byte, subresource string) (T, error) {
	return as[T](t.c.Patch(ctx, t.r, types.NamespacedName{Namespace: namespace, Name: name}, pt, data, subresource, metav1.PatchOptions{}))
}

// Delete begins the deletion of an object.
func (t Typed[T]) Delete(ctx context.Context, namespace, name string, opts metav1.DeleteOptions) error {
	return t.c.Delete(ctx, t.r, types.NamespacedName{Namespace: namespace, Name: name}, opts)
}

// Informer follows what opts select.
func (t Typed[T]) Informer(opts ListOptions) View[T] {
	return View[T]{t.c.Informer(t.r, opts)}
}

// View is an Informer with the Go type of its objects.
type View[T Object] struct{ Informer }

// Get returns an object and whether it exists.
func (v View[T]) Get(namespace, name string) (T, bool) {
	o, ok := v.Informer.Get(types.NamespacedName{Namespace: namespace, Name: name}).(T)
	return o, ok
}

// List returns the objects of a namespace, of all with "".
func (v View[T]) List(namespace string) []T { return typed[T](v.Informer.List(namespace)) }

// ByIndex returns the objects for which the index gives value.
func (v View[T]) ByIndex(name, value string) []T { return typed[T](v.Informer.ByIndex(name, value)) }

func as[T Object](o Object, err error) (T, error) {
	var none T
	if err != nil {
		return none, err
	}
	t, ok := o.(T)
	if !ok {
		return none, fmt.Errorf("%T is not the %T that was asked for", o, none)
	}
	return t, nil
}

func typed[T Object](items []Object) []T {
	out := make([]T, 0, len(items))
	for _, o := range items {
		if t, ok := o.(T); ok {
			out = append(out, t)
		}
	}
	return out
}
