package registry

import (
	"context"
	"errors"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/xebec-mesh/xebec/orchestrator/admission"
	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
	"github.com/xebec-mesh/xebec/orchestrator/store"
)

const (
	maxGenerated  = 63 // characters of a generated name
	randomPart    = 5
	generateTries = 8
)

// Create stores obj, which the Registry takes over; obj may be the face that
// req.Kind is. Subresources of Kind.Actions ("binding") take their own bodies.
// The result is what the response carries; for an action it is nil, which
// stands for metav1.Status Success.
func (r *Registry) Create(ctx context.Context, req Request, obj runtime.Object) (*cache.Object, error) {
	v, ctx, cancel, err := r.begin(ctx, req)
	if err != nil {
		return nil, err
	}
	defer cancel()
	if req.Subresource != "" {
		return nil, v.act(ctx, obj)
	}
	if err := v.checkFace(obj); err != nil {
		return nil, err
	}
	in, err := v.take(obj)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		o, err := v.create(ctx, in, try < generateTries, nil)
		if err == nil || in.GetGenerateName() == "" || in.GetName() != "" || !apierrors.IsAlreadyExists(err) || try == generateTries {
			return v.show(o, err)
		}
	}
}

// checkFace makes the checks that only the face of a new object can tell.
func (v *verb) checkFace(obj runtime.Object) error {
	view := v.req.Kind.View
	face, ok := obj.(resource.Object)
	if view == nil || view.Validate == nil || !ok {
		return nil
	}
	if errs := view.Validate(face); len(errs) > 0 {
		return v.invalid(nameOf(face), errs)
	}
	return nil
}

// take makes a client's object one of the stored kind that is ours to change.
func (v *verb) take(obj runtime.Object) (resource.Object, error) {
	in, ok := obj.(resource.Object)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%T is not an object of kind %s", obj, v.req.Kind.Kind))
	}
	if view := v.req.Kind.View; view != nil {
		var err error
		if in, err = view.To(in); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		in = in.DeepCopyObject().(resource.Object)
	}
	v.stripKind(in)
	if err := v.checkNamespace(in); err != nil {
		return nil, err
	}
	if v.req.Name != "" && in.GetName() != v.req.Name {
		if in.GetName() != "" {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", in.GetName(), v.req.Name))
		}
		in.SetName(v.req.Name)
	}
	return in, nil
}

// stripKind clears what the Go type says already.
func (v *verb) stripKind(obj resource.Object) {
	if !v.kind.Custom {
		obj.GetObjectKind().SetGroupVersionKind(noKind)
	}
}

func (v *verb) checkNamespace(obj metav1.Object) error {
	switch ns := obj.GetNamespace(); {
	case !v.req.Kind.Namespaced:
		obj.SetNamespace("")
	case ns == "":
		obj.SetNamespace(v.req.Namespace)
	case ns != v.req.Namespace:
		return apierrors.NewBadRequest(fmt.Sprintf(
			"the namespace of the provided object does not match the namespace sent on the request (object: %s, request: %s)", ns, v.req.Namespace))
	}
	return nil
}

// create stores a new object. It changes in only if keep is false. applied is set
// where in has been made by server-side apply and carries its managedFields.
func (v *verb) create(ctx context.Context, in resource.Object, keep bool, applied *applied) (*cache.Object, error) {
	if in.GetResourceVersion() != "" {
		return nil, apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	obj := in
	if keep && in.GetName() == "" {
		obj = in.DeepCopyObject().(resource.Object)
	}
	v.kind.SetDefaults(obj)
	v.kind.BeforeCreate(obj)
	if err := v.fillMeta(obj); err != nil {
		return nil, err
	}
	v.dedupOwners(obj)
	if applied == nil {
		obj = v.r.fields.update(v, nil, obj)
	}
	a := v.attributes(admissionv1.Create, obj, nil)
	obj, err := v.admitCreate(ctx, a, obj)
	if err == nil {
		var o *cache.Object
		if o, err = v.insert(ctx, obj); err == nil {
			a.Finish(nil)
			return o, nil
		}
	}
	a.Finish(err)
	return nil, err
}

func (v *verb) admitCreate(ctx context.Context, a *admission.Attributes, obj resource.Object) (resource.Object, error) {
	obj, err := v.mutate(ctx, a, obj)
	if err != nil {
		return nil, err
	}
	if errs := v.kind.CheckCreate(obj); len(errs) > 0 {
		return nil, v.invalid(nameOf(obj), errs)
	}
	if v.kind.Warnings != nil {
		v.warn(v.kind.Warnings(obj, nil))
	}
	return obj, v.validate(ctx, a)
}

// fillMeta sets what the server says about a new object.
func (v *verb) fillMeta(obj resource.Object) error {
	obj.SetCreationTimestamp(v.now())
	obj.SetUID(uuid.NewUUID())
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	obj.SetSelfLink("")
	if v.kind.Custom || obj.GetGeneration() < 0 {
		obj.SetGeneration(1)
	}
	if obj.GetName() != "" {
		return nil
	}
	base := obj.GetGenerateName()
	if base == "" {
		return nil // validation says that a name is required
	}
	obj.SetName(base[:min(len(base), maxGenerated-randomPart)] + rand.String(randomPart))
	return nil
}

// insert stores a finished object.
func (v *verb) insert(ctx context.Context, obj resource.Object) (*cache.Object, error) {
	key := cache.KeyOf(obj.GetNamespace(), obj.GetName())
	obj.SetResourceVersion("")
	value, err := v.encode(obj)
	if err != nil {
		return nil, err
	}
	if v.req.DryRun {
		if v.res.Latest(key) != nil {
			return nil, apierrors.NewAlreadyExists(v.gr(), obj.GetName())
		}
		return cache.NewObject(v.kind, obj, 0), nil
	}
	name := obj.GetName()
	p := v.res.Expect(key, value, obj)
	rev, err := v.r.cfg.Store.Create(ctx, v.res.StoreKey(key), value)
	if err != nil {
		p.Failed()
		if errors.Is(err, store.ErrExists) {
			return nil, v.exists(name, obj)
		}
		return nil, v.storeError(err)
	}
	return p.Stored(rev), nil
}

// exists says that a name is taken.
func (v *verb) exists(name string, obj metav1.Object) error {
	err := apierrors.NewAlreadyExists(v.gr(), name)
	if obj.GetGenerateName() != "" {
		err.ErrStatus.Details.RetryAfterSeconds = 1
	}
	return err
}

// encode makes the stored bytes and refuses what is too large.
func (v *verb) encode(obj resource.Object) ([]byte, error) {
	value, err := cache.Encode(v.kind, obj)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("encode %s %s: %w", v.gr(), obj.GetName(), err))
	}
	if len(value) > maxObject && len(obj.GetManagedFields()) > 0 {
		// The record of who owns what may be given up; the object may not.
		obj.SetManagedFields(nil)
		return v.encode(obj)
	}
	if len(value) > maxObject {
		return nil, v.tooLarge(obj.GetName(), len(value))
	}
	return value, nil
}

func nameOf(obj metav1.Object) string {
	if n := obj.GetName(); n != "" {
		return n
	}
	return obj.GetGenerateName()
}

// dedupOwners drops owner references that are there twice, and says so.
func (v *verb) dedupOwners(obj metav1.Object) {
	refs := obj.GetOwnerReferences()
	if len(refs) < 2 {
		return
	}
	seen := make(map[metav1.OwnerReference]bool, len(refs))
	var kept []metav1.OwnerReference
	for _, ref := range refs {
		id := metav1.OwnerReference{APIVersion: ref.APIVersion, Kind: ref.Kind, Name: ref.Name, UID: ref.UID}
		if seen[id] {
			v.req.Warn(fmt.Sprintf(".metadata.ownerReferences contains duplicate entries; %s %q is kept once", ref.Kind, ref.Name))
			continue
		}
		seen[id] = true
		kept = append(kept, ref)
	}
	if len(kept) < len(refs) {
		obj.SetOwnerReferences(kept)
	}
}
