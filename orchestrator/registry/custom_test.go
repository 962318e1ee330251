package registry_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/registry"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// widgets is a custom kind with two versions, as a definition would bring it.
var widgets = &resource.Kind{
	GroupVersionKind: schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Widget"},
	Resource:         "widgets",
	Singular:         "widget",
	Namespaced:       true,
	Custom:           true,
	New: func() resource.Object {
		u := &unstructured.Unstructured{}
		u.SetAPIVersion("example.com/v1")
		u.SetKind("Widget")
		return u
	},
	Prune: func(o resource.Object) []string {
		spec, _ := o.(*unstructured.Unstructured).Object["spec"].(map[string]any)
		if _, ok := spec["unknown"]; ok {
			delete(spec, "unknown")
			return []string{"spec.unknown"}
		}
		return nil
	},
	Status: &resource.Subresource{PrepareUpdate: func(o, old resource.Object) {
		o.(*unstructured.Unstructured).Object["spec"] = old.(*unstructured.Unstructured).Object["spec"]
	}},
}

var widgetsOld = &resource.Kind{
	GroupVersionKind: schema.GroupVersionKind{Group: "example.com", Version: "v1alpha1", Kind: "Widget"},
	Resource:         "widgets",
	Namespaced:       true,
	Custom:           true,
	New:              func() resource.Object { return &unstructured.Unstructured{} },
	View:             &resource.View{Of: widgets, To: version("example.com/v1"), From: version("example.com/v1alpha1")},
}

func version(v string) func(resource.Object) (resource.Object, error) {
	return func(o resource.Object) (resource.Object, error) {
		c := cache.Shallow(o).(*unstructured.Unstructured)
		c.SetAPIVersion(v)
		return c, nil
	}
}

func TestCustom(t *testing.T) {
	w := newWorld(t)
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Widget",
		"metadata": map[string]any{"name": "w"}, "spec": map[string]any{"size": int64(1)}}}
	w.create(on("example.com", "widgets", ""), u)
	old := on("example.com", "widgets", "w")
	old.Kind = widgetsOld
	o := w.get(old)
	if o.Obj.(*unstructured.Unstructured).GetAPIVersion() != "example.com/v1alpha1" || !strings.Contains(string(o.JSON()), `"apiVersion":"example.com/v1alpha1"`) {
		t.Errorf("as v1alpha1: %s", o.JSON())
	}
	_, _, err := w.Patch(t.Context(), old, registry.Patch{Type: types.MergePatchType, Data: []byte(`{"spec":{"size":2}}`)})
	check(t, err)
	req := on("example.com", "widgets", "w")
	req.FieldValidation = "Strict"
	_, _, err = w.Patch(t.Context(), req, registry.Patch{Type: types.MergePatchType, Data: []byte(`{"spec":{"unknown":2}}`)})
	wantError(t, err, apierrors.IsInvalid, `unknown field "spec.unknown"`)
	_, _, err = w.Patch(t.Context(), req, registry.Patch{Type: types.StrategicMergePatchType, Data: []byte(`{}`)})
	wantError(t, err, func(err error) bool { return apierrors.ReasonForError(err) == metav1.StatusReasonUnsupportedMediaType }, "accepted media types")
	o, _, err = w.Patch(t.Context(), req, registry.Patch{Type: types.ApplyPatchType, Data: []byte("apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {color: red}")})
	check(t, err)
	var doc map[string]any
	check(t, json.Unmarshal(o.JSON(), &doc))
	if spec := doc["spec"].(map[string]any); spec["color"] != "red" || spec["size"] != float64(2) {
		t.Errorf("applied: %v", spec)
	}
	again := open(t, w.store) // a restart reads JSON back
	got, err := again.Get(t.Context(), req, metav1.GetOptions{})
	check(t, err)
	if string(got.JSON()) != string(o.JSON()) {
		t.Errorf("after a restart: %s, want %s", got.JSON(), o.JSON())
	}
	w.RemoveKind(widgets.GroupVersionResource())
	w.RemoveKind(widgetsOld.GroupVersionResource())
	_, err = w.Get(t.Context(), req, metav1.GetOptions{})
	wantError(t, err, apierrors.IsNotFound, "")
	check(t, w.AddKind(widgets))
	if got := w.get(req); string(got.JSON()) != string(o.JSON()) {
		t.Errorf("after the kind came back: %s", got.JSON())
	}
}

// TestStoredVersionChanges lets another version become the one that is stored.
func TestStoredVersionChanges(t *testing.T) {
	w := newWorld(t)
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Widget",
		"metadata": map[string]any{"name": "w"}, "spec": map[string]any{"size": int64(1)}}}
	w.create(on("example.com", "widgets", ""), u)
	next, old := *widgets, *widgets
	next.Version = "v2"
	next.New = func() resource.Object { return &unstructured.Unstructured{} }
	old.View = &resource.View{Of: &next, To: version("example.com/v2"), From: version("example.com/v1")}
	check(t, w.AddKind(&next))
	check(t, w.AddKind(&old))
	for _, k := range []*resource.Kind{&next, &old} {
		req := on("example.com", "widgets", "w")
		req.Kind = k
		for _, r := range []*registry.Registry{w.Registry, reopen(t, w.store, &next, &old)} {
			o, err := r.Get(t.Context(), req, metav1.GetOptions{})
			check(t, err)
			if got := o.Obj.(*unstructured.Unstructured).GetAPIVersion(); got != k.GroupVersion().String() {
				t.Errorf("as %s it is %s", k.GroupVersion(), got)
			}
		}
		o, _, err := w.Patch(t.Context(), req, registry.Patch{Type: types.MergePatchType, Data: []byte(fmt.Sprintf(`{"spec":{"by":%q}}`, k.Version))})
		check(t, err)
		if got := o.Obj.(*unstructured.Unstructured).GetAPIVersion(); got != k.GroupVersion().String() {
			t.Errorf("patched as %s it is %s", k.GroupVersion(), got)
		}
	}
}
