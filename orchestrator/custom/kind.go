package custom

import (
	"maps"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// served is one version of a definition as it is served.
type served struct {
	kind   *resource.Kind
	schema *compiled
}

// kindsOf makes the kinds of a definition: the stored one first, the others as
// views of it. It uses the names that were accepted.
func kindsOf(d *apiextensionsv1.CustomResourceDefinition) []served {
	var out []served
	for i := range d.Spec.Versions {
		v := &d.Spec.Versions[i]
		if !v.Served {
			continue
		}
		s := newKind(d, v)
		if v.Storage && len(out) > 0 {
			out = append([]served{s}, out...)
		} else {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return nil
	}
	for _, s := range out[1:] {
		s.kind.View = viewOf(out[0].kind, s.kind.GroupVersionKind)
	}
	return out
}

// viewOf shows objects of a stored kind under another version.
func viewOf(stored *resource.Kind, face schema.GroupVersionKind) *resource.View {
	as := func(gvk schema.GroupVersionKind) func(resource.Object) (resource.Object, error) {
		return func(o resource.Object) (resource.Object, error) {
			u := &unstructured.Unstructured{Object: maps.Clone(asUnstructured(o).Object)}
			u.SetAPIVersion(gvk.GroupVersion().String())
			return u, nil
		}
	}
	return &resource.View{Of: stored, To: as(stored.GroupVersionKind), From: as(face)}
}

func newKind(d *apiextensionsv1.CustomResourceDefinition, v *apiextensionsv1.CustomResourceDefinitionVersion) served {
	var source *apiextensionsv1.JSONSchemaProps
	if v.Schema != nil {
		source = v.Schema.OpenAPIV3Schema
	}
	c := compile(source, d.Spec.PreserveUnknownFields)
	names := acceptedNames(d)
	gvk := schema.GroupVersionKind{Group: d.Spec.Group, Version: v.Name, Kind: names.Kind}
	k := &resource.Kind{
		GroupVersionKind: gvk,
		Resource:         names.Plural, Singular: names.Singular, ShortNames: names.ShortNames, Categories: names.Categories,
		Namespaced:     d.Spec.Scope == apiextensionsv1.NamespaceScoped,
		Custom:         true,
		CreateOnUpdate: false,
		Conditional:    true,
		New: func() resource.Object {
			u := &unstructured.Unstructured{}
			u.SetGroupVersionKind(gvk)
			return u
		},
		NewList: func() runtime.Object {
			l := &unstructured.UnstructuredList{}
			l.SetGroupVersionKind(gvk.GroupVersion().WithKind(names.ListKind))
			return l
		},
		Default:        func(o resource.Object) { c.setDefaults(asUnstructured(o)) },
		Prune:          func(o resource.Object) []string { return c.prune(asUnstructured(o)) },
		ValidateCreate: func(o resource.Object) field.ErrorList { return c.validate(asUnstructured(o), nil) },
		ValidateUpdate: func(o, old resource.Object) field.ErrorList {
			return c.validate(asUnstructured(o), asUnstructured(old))
		},
	}
	addStatus(k, c, v.Subresources)
	addScale(k, v.Subresources)
	addFields(k, v.SelectableFields)
	addColumns(k, v.AdditionalPrinterColumns)
	return served{k, c}
}

func asUnstructured(o resource.Object) *unstructured.Unstructured {
	return o.(*unstructured.Unstructured)
}

func acceptedNames(d *apiextensionsv1.CustomResourceDefinition) apiextensionsv1.CustomResourceDefinitionNames {
	if d.Status.AcceptedNames.Plural != "" && d.Status.AcceptedNames.Kind != "" {
		return d.Status.AcceptedNames
	}
	return d.Spec.Names
}

// addStatus sets who may write what: with a status subresource, the object's own
// verbs leave the status alone, and the subresource leaves alone all else.
func addStatus(k *resource.Kind, c *compiled, sub *apiextensionsv1.CustomResourceSubresources) {
	has := sub != nil && sub.Status != nil
	k.PrepareCreate = func(o resource.Object) {
		u := asUnstructured(o)
		if has {
			delete(u.Object, "status")
		}
		u.SetGeneration(1)
	}
	k.PrepareUpdate = func(o, old resource.Object) {
		u, was := asUnstructured(o), asUnstructured(old)
		if has {
			keep(u, was, "status")
		}
		if !equality.Semantic.DeepEqual(content(u), content(was)) {
			u.SetGeneration(was.GetGeneration() + 1)
		}
	}
	if !has {
		return
	}
	k.Resets = fieldpath.NewSet(fieldpath.MakePathOrDie("status"))
	k.Status = &resource.Subresource{
		PrepareUpdate: func(o, old resource.Object) { onlyStatus(asUnstructured(o), asUnstructured(old)) },
		ValidateUpdate: func(o, old resource.Object) field.ErrorList {
			return c.validateStatus(asUnstructured(o), asUnstructured(old))
		},
		Resets: fieldpath.NewSet(fieldpath.MakePathOrDie("metadata"), fieldpath.MakePathOrDie("spec")),
	}
}

func keep(u, from *unstructured.Unstructured, key string) {
	if v, ok := from.Object[key]; ok {
		u.Object[key] = v
	} else {
		delete(u.Object, key)
	}
}

// onlyStatus makes u the old object with u's status.
func onlyStatus(u, old *unstructured.Unstructured) {
	status, ok := u.Object["status"]
	managed, version := u.GetManagedFields(), u.GetResourceVersion()
	u.Object = old.DeepCopy().Object
	u.SetManagedFields(managed)
	u.SetResourceVersion(version)
	if ok {
		u.Object["status"] = status
	} else {
		delete(u.Object, "status")
	}
}

// content is all but the metadata.
func content(u *unstructured.Unstructured) map[string]any {
	m := maps.Clone(u.Object)
	delete(m, "metadata")
	return m
}

// addFields makes fields selectable. Their paths are simple by validation.
func addFields(k *resource.Kind, selectable []apiextensionsv1.SelectableField) {
	if len(selectable) == 0 {
		return
	}
	paths := map[string]cellPath{}
	for _, f := range selectable {
		name := strings.TrimPrefix(f.JSONPath, ".")
		k.FieldNames = append(k.FieldNames, name)
		paths[name] = parsePath(f.JSONPath)
	}
	k.Fields = func(o resource.Object) fields.Set {
		set := fields.Set{"metadata.name": o.GetName()}
		if k.Namespaced {
			set["metadata.namespace"] = o.GetNamespace()
		}
		for name, path := range paths {
			set[name] = path.text(asUnstructured(o).Object)
		}
		return set
	}
}
