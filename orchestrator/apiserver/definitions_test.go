package apiserver_test

import (
	"context"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/xebec-mesh/xebec/orchestrator/apiserver/apitest"
	"github.com/xebec-mesh/xebec/orchestrator/client"
)

func widgets(defaults string) *apiextensionsv1.CustomResourceDefinition {
	size := apiextensionsv1.JSONSchemaProps{Type: "string"}
	if defaults != "" {
		size.Default = &apiextensionsv1.JSON{Raw: []byte(`"` + defaults + `"`)}
	}
	root := &apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
		"spec": {Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"size": size, "name": {Type: "string"}}},
	}}
	version := func(name string, storage bool) apiextensionsv1.CustomResourceDefinitionVersion {
		return apiextensionsv1.CustomResourceDefinitionVersion{Name: name, Served: true, Storage: storage, Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: root}}
	}
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "widgets.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "example.com", Scope: apiextensionsv1.NamespaceScoped,
			Names:    apiextensionsv1.CustomResourceDefinitionNames{Plural: "widgets", Kind: "Widget"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{version("v1", true), version("v2", false)},
		},
	}
}

func widget(version, name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/" + version, "kind": "Widget",
		"metadata": map[string]any{"name": name}, "spec": map[string]any{"name": name},
	}}
}

// eventually waits for something that follows from a change by itself.
func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !check() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A definition changes under its objects: they stay readable in all versions, get
// new defaults, and move to another storage version when they are written.
func TestDefinitionChanges(t *testing.T) {
	s := apitest.Start(t, nil)
	ctx, definitions := context.Background(), client.For(s.Client, client.CustomResourceDefinitions)
	if _, err := definitions.Create(ctx, widgets("")); err != nil {
		t.Fatal(err)
	}
	c := dynamic.NewForConfigOrDie(s.Config(t, "admin", "system:masters"))
	in := func(version string) dynamic.ResourceInterface {
		return c.Resource(schema.GroupVersionResource{Group: "example.com", Version: version, Resource: "widgets"}).Namespace("default")
	}
	size := func(u *unstructured.Unstructured) string {
		v, _, _ := unstructured.NestedString(u.Object, "spec", "size")
		return v
	}
	eventually(t, "served", func() bool {
		_, err := in("v2").Create(ctx, widget("v2", "a"), metav1.CreateOptions{})
		return err == nil
	})
	for _, v := range []string{"v1", "v2"} {
		if u, err := in(v).Get(ctx, "a", metav1.GetOptions{}); err != nil || u.GetAPIVersion() != "example.com/"+v || size(u) != "" {
			t.Errorf("as %s: %v, %v", v, u, err)
		}
	}
	d, err := definitions.Get(ctx, "", "widgets.example.com")
	if err != nil {
		t.Fatal(err)
	}
	d = d.DeepCopy()
	d.Spec = widgets("large").Spec
	d.Spec.Versions[0].Storage, d.Spec.Versions[1].Storage = false, true
	if _, err := definitions.Update(ctx, d); err != nil {
		t.Fatal(err)
	}
	eventually(t, "new defaults for stored objects", func() bool {
		u, err := in("v1").Get(ctx, "a", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return size(u) == "large"
	})
	for _, v := range []string{"v1", "v2"} {
		if l, err := in(v).List(ctx, metav1.ListOptions{}); err != nil || len(l.Items) != 1 || l.Items[0].GetAPIVersion() != "example.com/"+v || size(&l.Items[0]) != "large" {
			t.Errorf("list as %s: %v, %v", v, l, err)
		}
	}
	if _, err := in("v1").Patch(ctx, "a", "application/merge-patch+json", []byte(`{"spec":{"name":"b"}}`), metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
	if d, err = definitions.Get(ctx, "", "widgets.example.com"); err != nil || len(d.Status.StoredVersions) != 2 {
		t.Errorf("stored versions %v, %v", d.Status.StoredVersions, err)
	}
}

// A deleted definition takes its objects with it, those with finalizers last.
func TestDefinitionDeleted(t *testing.T) {
	s := apitest.Start(t, nil)
	ctx, definitions := context.Background(), client.For(s.Client, client.CustomResourceDefinitions)
	if _, err := definitions.Create(ctx, widgets("")); err != nil {
		t.Fatal(err)
	}
	c := dynamic.NewForConfigOrDie(s.Config(t, "admin", "system:masters")).Resource(schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}).Namespace("default")
	held := widget("v1", "held")
	held.SetFinalizers([]string{"example.com/hold"})
	eventually(t, "served", func() bool {
		_, err := c.Create(ctx, held, metav1.CreateOptions{})
		return err == nil
	})
	if err := definitions.Delete(ctx, "", "widgets.example.com", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the object is being deleted", func() bool {
		u, err := c.Get(ctx, "held", metav1.GetOptions{})
		return err == nil && u.GetDeletionTimestamp() != nil
	})
	if _, err := c.Patch(ctx, "held", "application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the definition is gone", func() bool {
		_, err := definitions.Get(ctx, "", "widgets.example.com")
		return apierrors.IsNotFound(err)
	})
	if _, err := c.List(ctx, metav1.ListOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("list: %v", err)
	}
	// The same name again is a new beginning.
	if _, err := definitions.Create(ctx, widgets("")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "served again, and empty", func() bool {
		l, err := c.List(ctx, metav1.ListOptions{})
		return err == nil && len(l.Items) == 0
	})
}
