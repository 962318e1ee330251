package resource

import (
	"context"
	"slices"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Definitions are checked by the library that Kubernetes itself uses. It only
// knows its internal type, which is made for the check and thrown away.
func crdKind() *Kind {
	k := &Kind{
		GroupVersionKind: apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"),
		Resource:         "customresourcedefinitions",
		Singular:         "customresourcedefinition",
		ShortNames:       []string{"crd", "crds"},
		Categories:       []string{"api-extensions"},
		Conditional:      true,
		New:              func() Object { return &apiextensionsv1.CustomResourceDefinition{} },
		NewList:          func() runtime.Object { return &apiextensionsv1.CustomResourceDefinitionList{} },
		// The library checks the name against the names within.
		ValidateName: func(string, bool) []string { return nil },

		Default: func(o Object) {
			apiextensionsv1.SetObjectDefaults_CustomResourceDefinition(o.(*apiextensionsv1.CustomResourceDefinition))
		},
		PrepareCreate: func(o Object) {
			c := o.(*apiextensionsv1.CustomResourceDefinition)
			c.Generation = 1
			c.Status = apiextensionsv1.CustomResourceDefinitionStatus{}
			storeVersion(c)
		},
		PrepareUpdate: func(o, old Object) {
			c, was := o.(*apiextensionsv1.CustomResourceDefinition), old.(*apiextensionsv1.CustomResourceDefinition)
			was.Status.DeepCopyInto(&c.Status)
			countSpec(c, !equality.Semantic.DeepEqual(c.Spec, was.Spec))
			storeVersion(c)
		},
		ValidateCreate: func(o Object) field.ErrorList {
			in, err := internalCRD(o)
			if err != nil {
				return field.ErrorList{field.InternalError(nil, err)}
			}
			return withoutMeta(crdvalidation.ValidateCustomResourceDefinition(context.Background(), in))
		},
		ValidateUpdate: func(o, old Object) field.ErrorList {
			return validateCRDs(o, old, crdvalidation.ValidateCustomResourceDefinitionUpdate)
		},
		Resets: statusReset,
		Status: &Subresource{
			PrepareUpdate: func(o, old Object) {
				c, was := o.(*apiextensionsv1.CustomResourceDefinition), old.(*apiextensionsv1.CustomResourceDefinition)
				c.Spec, c.Labels, c.Annotations = was.Spec, was.Labels, was.Annotations
				c.OwnerReferences = was.OwnerReferences
			},
			ValidateUpdate: func(o, old Object) field.ErrorList {
				return validateCRDs(o, old, crdvalidation.ValidateUpdateCustomResourceDefinitionStatus)
			},
			Resets: specAndLabelsReset,
		},
		Columns: columns(nameColumn, createdColumn),
		Row:     func(o Object, _ time.Time) []any { return []any{o.GetName(), created(o)} },
	}
	return k
}

// storeVersion remembers every version in which objects may have been stored.
func storeVersion(c *apiextensionsv1.CustomResourceDefinition) {
	for _, v := range c.Spec.Versions {
		if v.Storage && !slices.Contains(c.Status.StoredVersions, v.Name) {
			c.Status.StoredVersions = append(c.Status.StoredVersions, v.Name)
		}
	}
}

func internalCRD(o Object) (*apiextensions.CustomResourceDefinition, error) {
	out := &apiextensions.CustomResourceDefinition{}
	// The conversion shares memory with its input.
	in := o.(*apiextensionsv1.CustomResourceDefinition).DeepCopy()
	err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(in, out, nil)
	return out, err
}

type crdCheck func(ctx context.Context, obj, old *apiextensions.CustomResourceDefinition) field.ErrorList

func validateCRDs(o, old Object, check crdCheck) field.ErrorList {
	in, err := internalCRD(o)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	was, err := internalCRD(old)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	return withoutMeta(check(context.Background(), in, was))
}

// withoutMeta drops what CheckCreate and CheckUpdate find themselves, but for
// the name's agreement with the spec.
func withoutMeta(errs field.ErrorList) field.ErrorList {
	return slices.DeleteFunc(errs, func(e *field.Error) bool {
		return len(e.Field) > 9 && e.Field[:9] == "metadata." && e.Field != "metadata.name"
	})
}
