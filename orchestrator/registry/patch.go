package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// maxPatchOps bounds a JSON patch: each operation may copy the whole object.
const maxPatchOps = 10000

// Patch changes an object or a part of it; an apply patch makes what is missing.
func (r *Registry) Patch(ctx context.Context, req Request, p Patch) (o *cache.Object, created bool, err error) {
	v, ctx, cancel, err := r.begin(ctx, req)
	if err != nil {
		return nil, false, err
	}
	defer cancel()
	if !v.readable() {
		return nil, false, v.notFound()
	}
	if req.Subresource == "scale" {
		o, err := v.patchScale(ctx, p)
		return o, false, err
	}
	if p.Type == types.ApplyPatchType {
		o, created, err = v.apply(ctx, p)
	} else {
		o, err = v.modify(ctx, nil, func(base *cache.Object) (resource.Object, bool, error) { return v.patched(base, p) })
	}
	o, err = v.show(o, err)
	return o, created, err
}

// patched is the object after a patch. A resourceVersion in the patch makes it exact.
func (v *verb) patched(base *cache.Object, p Patch) (next resource.Object, exact bool, err error) {
	face, err := base.As(v.req.Kind)
	if err != nil {
		return nil, false, err
	}
	data, err := v.applyPatch(face.JSON(), p, v.req.Kind)
	if err != nil {
		return nil, false, err
	}
	obj := v.req.Kind.New()
	if err := v.decodePatched(data, obj, p.Data); err != nil {
		return nil, false, err
	}
	if view := v.req.Kind.View; view != nil {
		if obj, err = view.To(obj); err != nil {
			return nil, false, apierrors.NewBadRequest(err.Error())
		}
	}
	v.stripKind(obj)
	exact = mentionsVersion(p)
	if rv := obj.GetResourceVersion(); rv != "" && rv != base.Obj.GetResourceVersion() {
		return nil, true, v.conflict(base.Obj.GetName())
	}
	if uid := obj.GetUID(); uid != "" && uid != base.Obj.GetUID() {
		return nil, true, v.uidConflict(uid, base.Obj.GetUID())
	}
	return obj, exact, nil
}

// mentionsVersion is a quick guess that errs towards exactness.
func mentionsVersion(p Patch) bool {
	return strings.Contains(string(p.Data), "resourceVersion")
}

// notPanic turns a panic of a patch library, which clients can provoke with values
// of unexpected types, into the error that it should have been.
func notPanic(what string, err *error) {
	if p := recover(); p != nil {
		*err = apierrors.NewBadRequest(fmt.Sprintf("%s: %v", what, p))
	}
}

// applyPatch patches a JSON document of a kind.
func (v *verb) applyPatch(doc []byte, p Patch, kind *resource.Kind) (out []byte, err error) {
	defer notPanic("patch", &err)
	switch p.Type {
	case types.JSONPatchType:
		return v.jsonPatch(doc, p.Data)
	case types.MergePatchType:
		var m map[string]any
		if err := json.Unmarshal(p.Data, &m); err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("merge patch: %v", err))
		}
		out, err := jsonpatch.MergePatch(doc, p.Data)
		if err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("merge patch: %v", err))
		}
		return out, nil
	case types.StrategicMergePatchType:
		return v.strategicPatch(doc, p.Data, kind)
	}
	return nil, status(http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType, "%s cannot be patched by %s", v.gr(), p.Type)
}

func (v *verb) jsonPatch(doc, data []byte) ([]byte, error) {
	patch, err := jsonpatch.DecodePatch(data)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("JSON patch: %v", err))
	}
	if len(patch) > maxPatchOps {
		return nil, apierrors.NewRequestEntityTooLargeError(
			fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", maxPatchOps, len(patch)))
	}
	out, err := patch.Apply(doc)
	if err != nil {
		return nil, status(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "the JSON patch does not apply to %s %q: %v", v.gr(), v.req.Name, err)
	}
	return out, nil
}

func (v *verb) strategicPatch(doc, data []byte, kind *resource.Kind) ([]byte, error) {
	if kind.Custom {
		return nil, status(http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType,
			"the body of the request was in an unknown format - accepted media types include: %s, %s, %s",
			types.JSONPatchType, types.MergePatchType, types.ApplyPatchType)
	}
	out, err := strategicpatch.StrategicMergePatch(doc, data, kind.New())
	switch {
	case err == nil:
		return out, nil
	case mergepatch.IsPreconditionFailed(err), errors.Is(err, mergepatch.ErrNoListOfLists):
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return nil, apierrors.NewBadRequest(fmt.Sprintf("strategic merge patch: %v", err))
}

// decodePatched reads a patched document as strictly as the request wants.
func (v *verb) decodePatched(data []byte, obj resource.Object, patch []byte) error {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		if err := u.UnmarshalJSON(data); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
		return v.prune(u, patch)
	}
	strict, err := kjson.UnmarshalStrict(data, obj)
	if err != nil {
		return v.invalidPatch(patch, err.Error())
	}
	return v.complain(strict, patch)
}

// prune drops unknown fields of a custom object.
func (v *verb) prune(u resource.Object, patch []byte) error {
	if v.req.Kind.Prune == nil {
		return nil
	}
	var unknown []error
	for _, path := range v.req.Kind.Prune(u) {
		unknown = append(unknown, fmt.Errorf("unknown field %q", path))
	}
	return v.complain(unknown, patch)
}

// complain refuses, or warns of, what strict decoding has found.
func (v *verb) complain(found []error, patch []byte) error {
	if len(found) == 0 {
		return nil
	}
	switch v.req.FieldValidation {
	case metav1.FieldValidationStrict:
		return v.invalidPatch(patch, runtime.NewStrictDecodingError(found).Error())
	case metav1.FieldValidationIgnore:
	default:
		for _, e := range found {
			v.req.Warn(e.Error())
		}
	}
	return nil
}

func (v *verb) invalidPatch(patch []byte, text string) error {
	const most = 256
	shown := string(patch)
	if len(shown) > most {
		shown = shown[:most] + "…"
	}
	return v.invalid(v.req.Name, field.ErrorList{field.Invalid(field.NewPath("patch"), shown, text)})
}

func (v *verb) patchScale(ctx context.Context, p Patch) (*cache.Object, error) {
	if p.Type == types.ApplyPatchType {
		config, err := v.parseConfig(p)
		if err != nil {
			return nil, err
		}
		if p.Data, err = json.Marshal(config.Object); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		p.Type = types.MergePatchType
	}
	return v.changeScale(ctx, func(base *cache.Object) (*autoscalingv1.Scale, bool, error) {
		scale, err := v.scaleOf(base)
		if err != nil {
			return nil, false, err
		}
		data, err := v.applyPatch(scale.JSON(), p, scaleKind)
		if err != nil {
			return nil, false, err
		}
		s := &autoscalingv1.Scale{}
		if err := v.decodePatched(data, s, p.Data); err != nil {
			return nil, false, err
		}
		return s, mentionsVersion(p), nil
	})
}
