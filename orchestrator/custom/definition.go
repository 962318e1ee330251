package custom

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// Finalizer keeps a deleted definition until its instances are gone.
const Finalizer = apiextensionsv1.CustomResourceCleanupFinalizer

// Source gives definitions that come with the program.
type Source func() ([]*apiextensionsv1.CustomResourceDefinition, error)

// Definition is the kind CustomResourceDefinition itself, for the registry's
// table. Definitions whose spec is the same as in one of the trusted sources are
// not validated again: they have been, by the program's tests, and to compile
// their many CEL rules takes seconds. A source is asked when the first definition
// is created.
func Definition(trusted ...Source) *resource.Kind {
	known := sync.OnceValue(func() map[string]bool { return specsOf(trusted) })
	return &resource.Kind{
		GroupVersionKind: apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"),
		Resource:         "customresourcedefinitions", Singular: "customresourcedefinition",
		ShortNames: []string{"crd", "crds"}, Categories: []string{"api-extensions"},
		New:     func() resource.Object { return &apiextensionsv1.CustomResourceDefinition{} },
		NewList: func() runtime.Object { return &apiextensionsv1.CustomResourceDefinitionList{} },
		Default: func(o resource.Object) {
			apiextensionsv1.SetObjectDefaults_CustomResourceDefinition(asDefinition(o))
		},
		PrepareCreate: func(o resource.Object) { prepareCreate(asDefinition(o)) },
		PrepareUpdate: func(o, old resource.Object) { prepareUpdate(asDefinition(o), asDefinition(old)) },
		ValidateCreate: func(o resource.Object) field.ErrorList {
			d := asDefinition(o)
			if len(trusted) > 0 && known()[d.Name+string(specBytes(d))] {
				return nil
			}
			return withInternal(d, func(in *apiextensions.CustomResourceDefinition) field.ErrorList {
				return validation.ValidateCustomResourceDefinition(context.Background(), in)
			})
		},
		ValidateUpdate: func(o, old resource.Object) field.ErrorList {
			return validateUpdate(asDefinition(o), asDefinition(old), validation.ValidateCustomResourceDefinitionUpdate)
		},
		Resets: fieldpath.NewSet(fieldpath.MakePathOrDie("status")),
		Status: &resource.Subresource{
			PrepareUpdate: func(o, old resource.Object) { prepareStatus(asDefinition(o), asDefinition(old)) },
			ValidateUpdate: func(o, old resource.Object) field.ErrorList {
				return validateUpdate(withoutSpec(o), withoutSpec(old), validation.ValidateUpdateCustomResourceDefinitionStatus)
			},
			Resets: fieldpath.NewSet(fieldpath.MakePathOrDie("metadata"), fieldpath.MakePathOrDie("spec")),
		},
		Columns: []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
			{Name: "Created At", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]},
		},
		Row: func(o resource.Object, _ time.Time) []any {
			return []any{o.GetName(), o.GetCreationTimestamp().UTC().Format(time.RFC3339)}
		},
	}
}

// specsOf are the trusted definitions' names and specs.
func specsOf(trusted []Source) map[string]bool {
	out := map[string]bool{}
	for _, source := range trusted {
		list, err := source()
		if err != nil {
			continue // what is not known to be right is validated
		}
		for _, t := range list {
			t = t.DeepCopy()
			apiextensionsv1.SetObjectDefaults_CustomResourceDefinition(t)
			out[t.Name+string(specBytes(t))] = true
		}
	}
	return out
}

// specBytes is a short form of a definition's spec: equal for equal specs only.
func specBytes(d *apiextensionsv1.CustomResourceDefinition) []byte {
	raw, err := d.Spec.Marshal()
	if err != nil {
		return nil // no spec is without a form
	}
	sum := sha256.Sum256(raw)
	return sum[:]
}

func asDefinition(o resource.Object) *apiextensionsv1.CustomResourceDefinition {
	return o.(*apiextensionsv1.CustomResourceDefinition)
}

func prepareCreate(d *apiextensionsv1.CustomResourceDefinition) {
	d.Status = apiextensionsv1.CustomResourceDefinitionStatus{}
	d.Generation = 1
	for _, v := range d.Spec.Versions {
		if v.Storage {
			d.Status.StoredVersions = []string{v.Name}
		}
	}
	if !slices.Contains(d.Finalizers, Finalizer) {
		d.Finalizers = append(d.Finalizers, Finalizer)
	}
}

// prepareUpdate keeps the status but for the storage version, which may have been
// written from now on.
func prepareUpdate(d, old *apiextensionsv1.CustomResourceDefinition) {
	d.Status = *old.Status.DeepCopy()
	for _, v := range d.Spec.Versions {
		if v.Storage && !slices.Contains(d.Status.StoredVersions, v.Name) {
			d.Status.StoredVersions = append(d.Status.StoredVersions, v.Name)
		}
	}
	if !bytes.Equal(specBytes(d), specBytes(old)) {
		d.Generation = old.Generation + 1
	}
}

func prepareStatus(d, old *apiextensionsv1.CustomResourceDefinition) {
	fields := d.ManagedFields
	status := d.Status
	version := d.ResourceVersion
	old.DeepCopyInto(d)
	d.Status, d.ManagedFields, d.ResourceVersion = status, fields, version
}

// withoutSpec is the definition for a check that does not look at its large part.
func withoutSpec(o resource.Object) *apiextensionsv1.CustomResourceDefinition {
	d := *asDefinition(o)
	d.Spec = apiextensionsv1.CustomResourceDefinitionSpec{}
	return &d
}

type updateCheck func(ctx context.Context, obj, old *apiextensions.CustomResourceDefinition) field.ErrorList

func validateUpdate(d, old *apiextensionsv1.CustomResourceDefinition, check updateCheck) field.ErrorList {
	return withInternal(d, func(in *apiextensions.CustomResourceDefinition) field.ErrorList {
		return withInternal(old, func(was *apiextensions.CustomResourceDefinition) field.ErrorList {
			return check(context.Background(), in, was)
		})
	})
}

// withInternal gives f the definition in the form that upstream's validation
// works on.
func withInternal(d *apiextensionsv1.CustomResourceDefinition, f func(*apiextensions.CustomResourceDefinition) field.ErrorList) field.ErrorList {
	in := &apiextensions.CustomResourceDefinition{}
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(d.DeepCopy(), in, nil); err != nil {
		return field.ErrorList{field.InternalError(field.NewPath("spec"), fmt.Errorf("convert definition: %w", err))}
	}
	return f(in)
}
