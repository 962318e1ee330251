package registry

import (
	"context"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/admission"
	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

var noKind schema.GroupVersionKind

// attributes describe the write to admission plugins. old may be nil.
func (v *verb) attributes(op admissionv1.Operation, obj runtime.Object, old resource.Object) *admission.Attributes {
	a := &admission.Attributes{
		Operation:   op,
		Kind:        v.kind,
		Subresource: v.req.Subresource,
		Namespace:   v.req.Namespace,
		Name:        v.req.Name,
		Object:      obj,
		User:        v.req.User,
		DryRun:      v.req.DryRun,
		Reader:      reader{v.r},
	}
	if old != nil {
		a.OldObject = old
	}
	if o, ok := obj.(resource.Object); ok && a.Name == "" {
		a.Name = o.GetName()
	}
	return a
}

// mutate lets plugins amend the object.
func (v *verb) mutate(ctx context.Context, a *admission.Attributes, obj resource.Object) (resource.Object, error) {
	chain := v.r.cfg.Admission
	if chain == nil {
		return obj, nil
	}
	if err := chain.Mutate(ctx, a); err != nil {
		return nil, v.admissionError(err)
	}
	out, ok := a.Object.(resource.Object)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("admission turned %s into %T", v.gr(), a.Object))
	}
	v.stripKind(out)
	v.kind.SetDefaults(out)
	v.dedupOwners(out)
	return out, nil
}

// validate asks plugins about the final object, and passes on their warnings.
func (v *verb) validate(ctx context.Context, a *admission.Attributes) error {
	chain := v.r.cfg.Admission
	if chain == nil {
		return nil
	}
	if err := chain.Validate(ctx, a); err != nil {
		return v.admissionError(err)
	}
	v.warn(a.Warnings())
	return nil
}

func (v *verb) admissionError(err error) error {
	if apierrors.ReasonForError(err) != "" {
		return err
	}
	return apierrors.NewInternalError(err)
}

func (v *verb) warn(texts []string) {
	for _, t := range texts {
		v.req.Warn(t)
	}
}

// read returns an object of a served kind as it is stored, for admission plugins.
// With fresh the cache catches up with the store first.
func (r *Registry) read(ctx context.Context, gvr schema.GroupVersionResource, key types.NamespacedName, fresh bool) (resource.Object, error) {
	k := r.Kind(gvr)
	if k == nil {
		return nil, apierrors.NewNotFound(gvr.GroupResource(), key.Name)
	}
	v, err := r.verb(ctx, Request{Kind: k, Namespace: key.Namespace, Name: key.Name})
	if err != nil {
		return nil, err
	}
	var o *cache.Object
	if o = v.res.Latest(v.key); fresh || o == nil {
		if o, err = v.current(ctx, fresh); err != nil {
			return nil, err
		}
	}
	if o, err = o.As(k); err != nil {
		return nil, err
	}
	return o.Obj, nil
}

// reader is the Registry as admission plugins see it.
type reader struct{ r *Registry }

func (r reader) Get(ctx context.Context, gvr schema.GroupVersionResource, key types.NamespacedName, fresh bool) (resource.Object, error) {
	return r.r.read(ctx, gvr, key, fresh)
}

// List reads the cache as it is; what plugins look for in lists changes seldom.
func (r reader) List(ctx context.Context, gvr schema.GroupVersionResource, namespace string) ([]resource.Object, error) {
	k := r.r.Kind(gvr)
	if k == nil {
		return nil, nil
	}
	v, err := r.r.verb(ctx, Request{Kind: k, Namespace: namespace})
	if err != nil {
		return nil, err
	}
	l, err := v.res.List(ctx, cache.Query{Kind: k, Namespace: namespace, Match: cache.Any})
	if err != nil {
		return nil, err
	}
	out := make([]resource.Object, len(l.Items))
	for i, o := range l.Items {
		out[i] = o.Obj
	}
	return out, nil
}
