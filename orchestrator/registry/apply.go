package registry

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// applyTries is how often an object may appear and vanish while it is applied.
const applyTries = 5

// apply is server-side apply: it merges a configuration by who owns which field,
// and makes the object if it does not exist.
func (v *verb) apply(ctx context.Context, p Patch) (o *cache.Object, created bool, err error) {
	if v.req.FieldManager == "" {
		return nil, false, apierrors.NewBadRequest("PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch")
	}
	config, err := v.parseConfig(p)
	if err != nil {
		return nil, false, err
	}
	if err := v.checkConfig(config); err != nil {
		return nil, false, err
	}
	for range applyTries {
		o, err = v.modify(ctx, &applied{}, func(base *cache.Object) (resource.Object, bool, error) {
			return v.merged(base, config, p.Force)
		})
		if !apierrors.IsNotFound(err) || v.req.Subresource != "" {
			return o, false, err
		}
		o, err = v.applyNew(ctx, config, p.Force)
		if !apierrors.IsAlreadyExists(err) {
			return o, err == nil, err
		}
	}
	return nil, false, err
}

// parseConfig reads the document that is applied.
func (v *verb) parseConfig(p Patch) (*unstructured.Unstructured, error) {
	config := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(p.Data, &config.Object); err != nil || config.Object == nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding YAML: %v", err))
	}
	var strict map[string]any
	if err := yaml.UnmarshalStrict(p.Data, &strict); err != nil {
		if err := v.complain([]error{err}, p.Data); err != nil {
			return nil, err
		}
	}
	return config, nil
}

// checkConfig checks that the document is about the object that was named.
func (v *verb) checkConfig(config *unstructured.Unstructured) error {
	if gvk := config.GroupVersionKind(); gvk != v.req.Kind.GroupVersionKind {
		return apierrors.NewBadRequest(fmt.Sprintf("the document is a %s, but was applied as %s", gvk, v.req.Kind.GroupVersionKind))
	}
	if err := v.checkNamespace(config); err != nil {
		return err
	}
	switch config.GetName() {
	case v.req.Name:
	case "":
		config.SetName(v.req.Name)
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", config.GetName(), v.req.Name))
	}
	if v.kind.Custom {
		return v.prune(config, nil)
	}
	return nil
}

// storedConfig is the document in terms of the stored kind, ours to change.
func (v *verb) storedConfig(config *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	config = config.DeepCopy()
	unstructured.RemoveNestedField(config.Object, "metadata", "resourceVersion")
	unstructured.RemoveNestedField(config.Object, "metadata", "uid")
	view := v.req.Kind.View
	if view == nil {
		return config, nil
	}
	if !v.kind.Custom {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("%s cannot be applied; apply it as %s", v.req.Kind.GroupVersionKind, v.kind.GroupVersionKind))
	}
	obj, err := view.To(config)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return obj.(*unstructured.Unstructured), nil
}

// merged is the newest version with the configuration merged in.
func (v *verb) merged(base *cache.Object, config *unstructured.Unstructured, force bool) (resource.Object, bool, error) {
	exact := config.GetResourceVersion() != ""
	if exact && config.GetResourceVersion() != base.Obj.GetResourceVersion() {
		return nil, exact, v.conflict(base.Obj.GetName())
	}
	if uid := config.GetUID(); uid != "" && uid != base.Obj.GetUID() {
		return nil, exact, v.uidConflict(uid, base.Obj.GetUID())
	}
	stored, err := v.storedConfig(config)
	if err != nil {
		return nil, exact, err
	}
	next, err := v.r.fields.apply(v, base.Obj, stored, force)
	return next, exact, v.applyError(err)
}

func (v *verb) applyNew(ctx context.Context, config *unstructured.Unstructured, force bool) (*cache.Object, error) {
	if config.GetUID() != "" || config.GetResourceVersion() != "" {
		return nil, apierrors.NewConflict(v.gr(), v.req.Name, errors.New("the object does not exist, but a uid or resourceVersion was given"))
	}
	stored, err := v.storedConfig(config)
	if err != nil {
		return nil, err
	}
	next, err := v.r.fields.apply(v, v.kind.New(), stored, force)
	if err != nil {
		return nil, v.applyError(err)
	}
	return v.create(ctx, next, false, &applied{})
}

// applyError: what the merge does not know how to merge is the client's mistake.
func (v *verb) applyError(err error) error {
	if err == nil || apierrors.ReasonForError(err) != metav1.StatusReasonUnknown {
		return err
	}
	return apierrors.NewBadRequest(fmt.Sprintf("apply %s %q: %v", v.gr(), v.req.Name, err))
}
