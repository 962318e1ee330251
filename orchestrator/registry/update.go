package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	autoscalingv1 "k8s.io/api/autoscaling/v1"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
	"github.com/xebec-mesh/xebec/orchestrator/store"
)

// modifyTries is how often a write is tried on newer and newer versions. Only
// writers in other processes make more than one necessary.
const modifyTries = 30

// change makes the next version of an object from the newest one, which it must
// not touch. exact is true if the client named the version that it changes, so
// that it must not be tried on another one.
type change func(base *cache.Object) (next resource.Object, exact bool, err error)

// applied marks an object that server-side apply made: its managedFields are right.
type applied struct{}

// Update replaces an object or a part of it; the Registry takes obj over.
// created is true where Kind.CreateOnUpdate made a new one.
func (r *Registry) Update(ctx context.Context, req Request, obj runtime.Object) (o *cache.Object, created bool, err error) {
	v, ctx, cancel, err := r.begin(ctx, req)
	if err != nil {
		return nil, false, err
	}
	defer cancel()
	if req.Subresource == "scale" {
		o, err := v.updateScale(ctx, obj)
		return o, false, err
	}
	in, err := v.take(obj)
	if err != nil {
		return nil, false, err
	}
	o, err = v.modify(ctx, nil, func(base *cache.Object) (resource.Object, bool, error) {
		if err := v.checkVersion(in, base); err != nil {
			return nil, false, err
		}
		return in.DeepCopyObject().(resource.Object), in.GetResourceVersion() != "", nil
	})
	if apierrors.IsNotFound(err) && req.Subresource == "" && v.kind.CreateOnUpdate && in.GetResourceVersion() == "" && in.GetUID() == "" {
		o, err = v.create(ctx, in, false, nil)
		created = err == nil
	}
	o, err = v.show(o, err)
	return o, created, err
}

// checkVersion compares what an update is meant for with what is there.
func (v *verb) checkVersion(in resource.Object, base *cache.Object) error {
	if uid := in.GetUID(); uid != "" && uid != base.Obj.GetUID() {
		return v.uidConflict(uid, base.Obj.GetUID())
	}
	switch rv := in.GetResourceVersion(); {
	case rv == "" && v.kind.Conditional && v.req.Subresource == "":
		return v.invalid(in.GetName(), field.ErrorList{field.Invalid(field.NewPath("metadata", "resourceVersion"), rv, "must be specified for an update")})
	case rv != "" && rv != base.Obj.GetResourceVersion():
		return v.conflict(in.GetName())
	}
	return nil
}

// modify changes the object, on ever newer versions if others write between.
func (v *verb) modify(ctx context.Context, ap *applied, mk change) (*cache.Object, error) {
	part := v.part()
	if part == nil {
		return nil, v.notFound()
	}
	return v.rewrite(ctx, func(base *cache.Object) (*cache.Object, bool, error) {
		next, exact, err := mk(base)
		if err != nil {
			return nil, exact, err
		}
		o, err := v.replace(ctx, part, base, next, ap)
		return o, exact, err
	})
}

// part is the behaviour of what is updated; the scale is a view of the object.
func (v *verb) part() *resource.Subresource {
	if v.req.Subresource == "scale" {
		return v.kind.Part("")
	}
	return v.kind.Part(v.req.Subresource)
}

// rewrite calls write with the newest version until no other writer comes between.
func (v *verb) rewrite(ctx context.Context, write func(base *cache.Object) (o *cache.Object, exact bool, err error)) (*cache.Object, error) {
	unlock, err := v.r.locks.lock(ctx, v.res.StoreKey(v.key))
	if err != nil {
		return nil, err
	}
	defer unlock()
	for try := 0; try < modifyTries; try++ {
		if try > 2 { // servers that race must not stay in step
			time.Sleep(time.Duration(rand.IntN(1000*try)) * time.Microsecond)
		}
		base, err := v.current(ctx, try > 0)
		if err != nil {
			return nil, err
		}
		o, exact, err := write(base)
		var moved *store.ConflictError
		switch {
		case errors.As(err, &moved):
			if exact {
				return nil, v.conflict(base.Obj.GetName())
			}
		case apierrors.IsConflict(err) && try == 0:
			// Perhaps only the cache is behind: once more on what is surely the newest.
		default:
			return o, err
		}
	}
	return nil, v.conflict(v.req.Name)
}

// replace takes a changed object through strategy and admission to the store.
func (v *verb) replace(ctx context.Context, part *resource.Subresource, base *cache.Object, next resource.Object, ap *applied) (o *cache.Object, err error) {
	old := base.Obj
	v.keepMeta(next, old)
	v.kind.SetDefaults(next)
	part.BeforeUpdate(next, old)
	v.dedupOwners(next)
	if ap == nil {
		next = v.r.fields.update(v, old, next)
	} else {
		keepTimes(next, old)
	}
	a := v.attributes(admissionv1.Update, next, old)
	defer func() { a.Finish(err) }()
	if next, err = v.mutate(ctx, a, next); err != nil {
		return nil, err
	}
	if errs := part.CheckUpdate(next, old); len(errs) > 0 {
		return nil, v.invalid(old.GetName(), errs)
	}
	v.warn(part.Warn(next, old))
	if err := v.validate(ctx, a); err != nil {
		return nil, err
	}
	return v.put(ctx, base, next)
}

// keepMeta carries over what no update changes.
func (v *verb) keepMeta(next, old resource.Object) {
	next.SetUID(old.GetUID())
	next.SetCreationTimestamp(old.GetCreationTimestamp())
	next.SetDeletionTimestamp(old.GetDeletionTimestamp())
	next.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	next.SetGeneration(old.GetGeneration())
	next.SetResourceVersion(old.GetResourceVersion())
	next.SetSelfLink("")
}

// put stores the next version, or nothing if it is the same, or removes the
// object if that was all it waited for.
func (v *verb) put(ctx context.Context, base *cache.Object, next resource.Object) (*cache.Object, error) {
	next.SetResourceVersion(base.Obj.GetResourceVersion())
	if v.same(base, next) {
		return base, nil
	}
	if v.finished(next) {
		return v.remove(ctx, base, next)
	}
	next.SetResourceVersion("")
	value, err := v.encode(next)
	if err != nil {
		return nil, err
	}
	if v.req.DryRun {
		next.SetResourceVersion(base.Obj.GetResourceVersion())
		return cache.NewObject(v.kind, next, base.RV), nil
	}
	p := v.res.Expect(base.Key, value, next)
	rev, err := v.r.cfg.Store.Update(ctx, v.res.StoreKey(base.Key), value, int64(base.RV))
	if err != nil {
		p.Failed()
		return nil, v.writeError(err)
	}
	return p.Stored(rev), nil
}

// writeError leaves a store's conflict as it is, for rewrite to see.
func (v *verb) writeError(err error) error {
	var moved *store.ConflictError
	if errors.As(err, &moved) {
		return err
	}
	return v.storeError(err)
}

// same says whether next is what base is.
func (v *verb) same(base *cache.Object, next resource.Object) bool {
	if u, ok := next.(*unstructured.Unstructured); ok {
		return reflect.DeepEqual(u.Object, base.Obj.(*unstructured.Unstructured).Object)
	}
	return base.Encodes(next)
}

// finished says whether an object whose deletion has begun has nothing left to wait for.
func (v *verb) finished(obj resource.Object) bool {
	if obj.GetDeletionTimestamp() == nil || len(obj.GetFinalizers()) > 0 || v.held(obj) {
		return false
	}
	grace := obj.GetDeletionGracePeriodSeconds()
	return grace == nil || *grace == 0
}

func (v *verb) held(obj resource.Object) bool { return v.kind.Held != nil && v.kind.Held(obj) }

// remove takes the object out of the store; last is how it is shown.
func (v *verb) remove(ctx context.Context, base *cache.Object, last resource.Object) (*cache.Object, error) {
	rv := base.RV
	if !v.req.DryRun {
		rev, err := v.r.cfg.Store.Delete(ctx, v.res.StoreKey(base.Key), int64(base.RV))
		if err != nil {
			return nil, v.writeError(err)
		}
		rv = uint64(rev)
	}
	last = cache.Shallow(last)
	last.SetResourceVersion(fmt.Sprint(rv))
	return cache.NewObject(v.kind, last, rv), nil
}

// scaleKind is how scales are shown.
var scaleKind = &resource.Kind{
	GroupVersionKind: autoscalingv1.SchemeGroupVersion.WithKind("Scale"),
	Resource:         "scale",
	Namespaced:       true,
	New:              func() resource.Object { return &autoscalingv1.Scale{} },
}

// scaleOf is an object's scale.
func (v *verb) scaleOf(o *cache.Object) (*cache.Object, error) {
	s, err := v.kind.Scale.Get(o.Obj)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("scale of %s %s: %w", v.gr(), o.Key, err))
	}
	return cache.NewObject(scaleKind, s, o.RV), nil
}

func (v *verb) updateScale(ctx context.Context, obj runtime.Object) (*cache.Object, error) {
	s, ok := obj.(*autoscalingv1.Scale)
	if !ok || v.kind.Scale == nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%T is not the scale of %s", obj, v.gr()))
	}
	return v.changeScale(ctx, func(*cache.Object) (*autoscalingv1.Scale, bool, error) {
		return s, s.ResourceVersion != "", nil
	})
}

// changeScale writes the scale that mk makes of the newest object.
func (v *verb) changeScale(ctx context.Context, mk func(base *cache.Object) (*autoscalingv1.Scale, bool, error)) (*cache.Object, error) {
	o, err := v.modify(ctx, nil, func(base *cache.Object) (resource.Object, bool, error) {
		s, exact, err := mk(base)
		if err != nil {
			return nil, exact, err
		}
		if err := v.checkVersion(s, base); err != nil {
			return nil, exact, err
		}
		if s.Spec.Replicas < 0 {
			e := field.Invalid(field.NewPath("spec", "replicas"), s.Spec.Replicas, "must be greater than or equal to 0")
			return nil, exact, apierrors.NewInvalid(scaleKind.GroupVersionKind.GroupKind(), v.req.Name, field.ErrorList{e})
		}
		next := base.Obj.DeepCopyObject().(resource.Object)
		return next, exact, v.kind.Scale.Set(next, s)
	})
	if err != nil {
		return nil, err
	}
	return v.scaleOf(o)
}
