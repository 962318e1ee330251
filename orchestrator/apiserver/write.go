package apiserver

import (
	"fmt"
	"mime"
	"net/http"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/registry"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// bodyTarget is what the call's body is read into.
func (c *call) bodyTarget() target {
	if c.req.Subresource == "scale" {
		return target{gvk: autoscalingv1.SchemeGroupVersion.WithKind("Scale"), object: &autoscalingv1.Scale{}}
	}
	if a, ok := actionOf(c.kind, c.req.Subresource); ok {
		return target{gvk: a.GVK, object: a.New(), others: olderNames(a.GVK)}
	}
	return target{gvk: c.kind.GroupVersionKind, object: c.kind.New(), prune: c.kind.Prune}
}

// actionOf finds a subresource that is posted to. Eviction belongs to the
// registry: it is a deletion on terms.
func actionOf(k *resource.Kind, subresource string) (*resource.Action, bool) {
	if a := k.Actions[subresource]; a != nil {
		return a, true
	}
	if subresource == "eviction" && k.Group == "" && k.Resource == "pods" {
		return eviction, true
	}
	return nil, false
}

var eviction = &resource.Action{
	GVK: policyv1.SchemeGroupVersion.WithKind("Eviction"),
	New: func() runtime.Object { return &policyv1.Eviction{} },
}

// olderNames are the versions under which older clients post the same: an
// eviction comes as policy/v1 or as it did before.
func olderNames(gvk schema.GroupVersionKind) []schema.GroupVersionKind {
	return []schema.GroupVersionKind{{Group: gvk.Group, Version: "v1beta1", Kind: gvk.Kind}}
}

// read decodes the call's body.
func (c *call) read(validation string) (runtime.Object, error) {
	b, err := readBody(c.w, c.r)
	if err != nil {
		return nil, err
	}
	t := c.bodyTarget()
	strict, err := b.decode(t)
	if err != nil {
		return nil, err
	}
	return t.object, applyFieldValidation(validation, t.gvk, strict, c.warn)
}

func (c *call) create() {
	if !c.accepts(asOne) {
		return
	}
	opts, err := createOptions(c.query)
	if err != nil {
		c.fail(err)
		return
	}
	obj, err := c.read(opts.FieldValidation)
	if err != nil {
		c.fail(err)
		return
	}
	req := c.writing(opts.DryRun, opts.FieldManager, opts.FieldValidation)
	if err := c.placed(obj); err != nil {
		c.fail(err)
		return
	}
	o, err := c.s.registry.Create(c.r.Context(), req, obj)
	switch {
	case err != nil:
		c.fail(err)
	case o == nil:
		c.s.writeStatus(c.w, c.r, &metav1.Status{Status: metav1.StatusSuccess, Code: http.StatusCreated})
	default:
		c.writeObject(http.StatusCreated, o)
	}
}

func (c *call) update() {
	if !c.accepts(asOne) {
		return
	}
	opts, err := updateOptions(c.query)
	if err != nil {
		c.fail(err)
		return
	}
	obj, err := c.read(opts.FieldValidation)
	if err != nil {
		c.fail(err)
		return
	}
	if err := c.placed(obj); err != nil {
		c.fail(err)
		return
	}
	o, created, err := c.s.registry.Update(c.r.Context(), c.writing(opts.DryRun, opts.FieldManager, opts.FieldValidation), obj)
	if err != nil {
		c.fail(err)
		return
	}
	c.writeObject(code(created), o)
}

// placed makes sure that what is posted to a subresource is meant for the object
// of the URL. Whole objects are the registry's to check.
func (c *call) placed(obj runtime.Object) error {
	m, ok := obj.(metav1.Object)
	if !ok || c.req.Subresource == "" {
		return nil
	}
	if ns := m.GetNamespace(); ns != "" && ns != c.req.Namespace && c.kind.Namespaced {
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	if name := m.GetName(); name != "" && name != c.req.Name {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", name, c.req.Name))
	}
	m.SetName(c.req.Name)
	if c.kind.Namespaced {
		m.SetNamespace(c.req.Namespace)
	}
	return nil
}

func code(created bool) int {
	if created {
		return http.StatusCreated
	}
	return http.StatusOK
}

const patchTypes = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"

func (c *call) patch() {
	if !c.accepts(asOne) {
		return
	}
	mediaType, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	pt := types.PatchType(mediaType)
	if err != nil || !patchable(c.kind, pt) {
		accepted := patchTypes
		if !c.kind.Custom {
			accepted += ", application/strategic-merge-patch+json"
		}
		c.fail(errMediaType(accepted))
		return
	}
	opts, err := patchOptions(c.query, pt)
	if err != nil {
		c.fail(err)
		return
	}
	b, err := readBody(c.w, c.r)
	if err != nil {
		c.fail(err)
		return
	}
	p := registry.Patch{Type: pt, Data: b.data, Force: opts.Force != nil && *opts.Force}
	o, created, err := c.s.registry.Patch(c.r.Context(), c.writing(opts.DryRun, opts.FieldManager, opts.FieldValidation), p)
	if err != nil {
		c.fail(err)
		return
	}
	c.writeObject(code(created), o)
}

func patchable(k *resource.Kind, pt types.PatchType) bool {
	switch pt {
	case types.JSONPatchType, types.MergePatchType, types.ApplyPatchType:
		return true
	case types.StrategicMergePatchType:
		return !k.Custom
	}
	return false
}

func (c *call) delete() {
	if !c.accepts(asOne) {
		return
	}
	opts, err := c.deleteOptions()
	if err != nil {
		c.fail(err)
		return
	}
	o, gone, err := c.s.registry.Delete(c.r.Context(), c.writing(opts.DryRun, "", ""), opts)
	switch {
	case err != nil:
		c.fail(err)
	case gone && (o == nil || c.kind.GracePeriod == nil):
		c.s.writeStatus(c.w, c.r, deleted(c, o))
	default:
		c.writeObject(deletionCode(opts, gone), o)
	}
}

// deletionCode is 202 where the client asked to wait for dependents, and so the
// object is still there. https://issues.k8s.io/33196 says why not always.
func deletionCode(o metav1.DeleteOptions, gone bool) int {
	//nolint:staticcheck // clients still send OrphanDependents
	if !gone && (o.OrphanDependents != nil && !*o.OrphanDependents || o.PropagationPolicy != nil && *o.PropagationPolicy == metav1.DeletePropagationForeground) {
		return http.StatusAccepted
	}
	return http.StatusOK
}

func deleted(c *call, o *cache.Object) *metav1.Status {
	details := &metav1.StatusDetails{Name: c.req.Name, Group: c.kind.Group, Kind: c.kind.Resource}
	if o != nil {
		details.UID = o.Obj.GetUID()
	}
	return &metav1.Status{Status: metav1.StatusSuccess, Code: http.StatusOK, Details: details}
}

func (c *call) deleteCollection() {
	if !c.accepts(asList) {
		return
	}
	opts, err := c.deleteOptions()
	if err != nil {
		c.fail(err)
		return
	}
	list, err := listOptions(c.query, false)
	if err != nil {
		c.fail(err)
		return
	}
	req := c.writing(opts.DryRun, "", "")
	req.Name = ""
	l, err := c.s.registry.DeleteCollection(c.r.Context(), req, opts, list)
	if err != nil {
		c.fail(err)
		return
	}
	c.writeList(l)
}

func (c *call) deleteOptions() (metav1.DeleteOptions, error) {
	b, err := readBody(c.w, c.r)
	if err != nil {
		return metav1.DeleteOptions{}, err
	}
	return deleteOptions(c.query, b)
}
