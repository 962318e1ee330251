package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	utiljson "sigs.k8s.io/json"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// mutating runs the mutating plugins, each on what the one before it left, and
// says whether any changed the object.
func (c *Chain) mutating(ctx context.Context, a *Attributes) (changed bool, err error) {
	var req *admissionv1.AdmissionRequest
	for _, p := range c.cfg.Mutating {
		if !p.Handles(a.Operation, a.Kind.GroupVersionResource(), a.Subresource) {
			continue
		}
		if req == nil {
			if req, err = request(a); err != nil {
				return changed, err
			}
		}
		resp, err := c.call(ctx, a, p, req)
		if err != nil {
			return changed, err
		}
		if resp == nil || len(resp.Patch) == 0 {
			continue
		}
		// The patch library panics on some nonsense.
		if err := c.guard(p.Name(), func() error { return applyPatch(a, p.Name(), req, resp) }); err != nil {
			return changed, err
		}
		changed = true
	}
	return changed, nil
}

func (c *Chain) validating(ctx context.Context, a *Attributes) error {
	var req *admissionv1.AdmissionRequest
	for _, p := range c.cfg.Validating {
		if !p.Handles(a.Operation, a.Kind.GroupVersionResource(), a.Subresource) {
			continue
		}
		if req == nil {
			var err error
			if req, err = request(a); err != nil {
				return err
			}
		}
		if _, err := c.call(ctx, a, p, req); err != nil {
			return err
		}
	}
	return nil
}

// call asks one plugin; a refusal comes back as an error that names it.
func (c *Chain) call(ctx context.Context, a *Attributes, p Plugin, req *admissionv1.AdmissionRequest) (resp *admissionv1.AdmissionResponse, err error) {
	err = c.guard(p.Name(), func() error {
		resp = p.Admit(ctx, req)
		return nil
	})
	if err != nil || resp == nil {
		return nil, err
	}
	for _, w := range resp.Warnings {
		a.Warn(w)
	}
	if !resp.Allowed {
		return nil, denied(p.Name(), a, resp.Result)
	}
	return resp, nil
}

// denied is the error for a plugin's refusal, with the code, reason and details
// that the plugin gave.
func denied(plugin string, a *Attributes, result *metav1.Status) error {
	status := metav1.Status{}
	if result != nil {
		status = *result
	}
	status.Status = metav1.StatusFailure
	if status.Code < http.StatusBadRequest {
		status.Code = http.StatusForbidden
	}
	if status.Reason == "" && status.Code == http.StatusForbidden {
		status.Reason = metav1.StatusReasonForbidden
	}
	if status.Message == "" {
		status.Message = "no reason was given"
	}
	if status.Details == nil {
		status.Details = &metav1.StatusDetails{Group: a.Kind.Group, Kind: a.Kind.Resource, Name: a.Name}
	}
	status.Message = fmt.Sprintf("admission plugin %q denied the request: %s", plugin, status.Message)
	return &apierrors.StatusError{ErrStatus: status}
}

// request is a as a webhook would see it.
func request(a *Attributes) (*admissionv1.AdmissionRequest, error) {
	gvk, gvr := metav1.GroupVersionKind(a.Kind.GroupVersionKind), metav1.GroupVersionResource(a.Kind.GroupVersionResource())
	r := &admissionv1.AdmissionRequest{
		UID:  uuid.NewUUID(),
		Kind: gvk, RequestKind: &gvk,
		Resource: gvr, RequestResource: &gvr,
		SubResource: a.Subresource, RequestSubResource: a.Subresource,
		Namespace: a.Namespace, Name: a.Name,
		Operation: a.Operation,
		DryRun:    &a.DryRun,
	}
	if a.User != nil {
		r.UserInfo = authenticationv1.UserInfo{Username: a.User.GetName(), UID: a.User.GetUID(), Groups: a.User.GetGroups()}
		for k, v := range a.User.GetExtra() {
			if r.UserInfo.Extra == nil {
				r.UserInfo.Extra = map[string]authenticationv1.ExtraValue{}
			}
			r.UserInfo.Extra[k] = v
		}
	}
	var err error
	if r.Object.Raw, err = encode(a, a.Object); err != nil {
		return nil, err
	}
	if r.OldObject.Raw, err = encode(a, a.OldObject); err != nil {
		return nil, err
	}
	r.Options.Raw, err = encode(a, a.Options)
	return r, err
}

// encode is obj as JSON, with the kind in it. Typed objects in this process carry none.
func encode(a *Attributes, obj runtime.Object) ([]byte, error) {
	if obj == nil {
		return nil, nil
	}
	raw, err := json.Marshal(obj)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("encode %s %q for admission: %w", a.Kind.Resource, a.Name, err))
	}
	if !obj.GetObjectKind().GroupVersionKind().Empty() {
		return raw, nil
	}
	if _, ok := obj.(resource.Object); !ok || a.Subresource != "" && a.Kind.Part(a.Subresource) == nil {
		return raw, nil
	}
	head := fmt.Sprintf(`{"apiVersion":%q,"kind":%q`, a.Kind.GroupVersion().String(), a.Kind.Kind)
	if len(raw) > 2 {
		head += ","
	}
	return append([]byte(head), raw[1:]...), nil
}

// applyPatch makes the plugin's change to a.Object, and leaves its new encoding
// in req for the next plugin.
func applyPatch(a *Attributes, plugin string, req *admissionv1.AdmissionRequest, resp *admissionv1.AdmissionResponse) error {
	fail := func(what string, err error) error {
		return apierrors.NewInternalError(fmt.Errorf("admission plugin %q: %s %s %q: %w", plugin, what, a.Kind.Resource, a.Name, err))
	}
	if resp.PatchType != nil && *resp.PatchType != admissionv1.PatchTypeJSONPatch {
		return fail("patch", fmt.Errorf("patch type %q is not %q", *resp.PatchType, admissionv1.PatchTypeJSONPatch))
	}
	if a.Object == nil {
		return fail("patch", fmt.Errorf("there is no object in a %s", a.Operation))
	}
	patch, err := jsonpatch.DecodePatch(resp.Patch)
	if err != nil {
		return fail("decode patch for", err)
	}
	raw, err := patch.ApplyIndent(req.Object.Raw, "")
	if err != nil {
		return fail("apply patch to", err)
	}
	obj := a.Kind.New()
	if u, ok := obj.(interface{ UnmarshalJSON([]byte) error }); ok {
		err = u.UnmarshalJSON(raw)
	} else {
		err = utiljson.UnmarshalCaseSensitivePreserveInts(raw, obj)
	}
	if err != nil {
		return fail("decode the patched", err)
	}
	a.Kind.SetDefaults(obj)
	a.Object, req.Object.Raw = obj, raw
	return nil
}
