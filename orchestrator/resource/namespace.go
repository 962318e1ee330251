package resource

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// A namespace that is deleted stays, Terminating, until the namespace controller
// has emptied it and takes its finalizer away by the finalize subresource.
func namespaceKind() *Kind {
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Namespace"),
		Resource:         "namespaces",
		Singular:         "namespace",
		ShortNames:       []string{"ns"},
		New:              func() Object { return &corev1.Namespace{} },
		NewList:          func() runtime.Object { return &corev1.NamespaceList{} },
		ValidateName:     apivalidation.ValidateNamespaceName,

		Default: func(o Object) { defaultNamespace(o.(*corev1.Namespace)) },
		PrepareCreate: func(o Object) {
			n := o.(*corev1.Namespace)
			n.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
			for _, f := range n.Spec.Finalizers {
				if f == corev1.FinalizerKubernetes {
					return
				}
			}
			n.Spec.Finalizers = append(n.Spec.Finalizers, corev1.FinalizerKubernetes)
		},
		PrepareUpdate: func(o, old Object) {
			n, was := o.(*corev1.Namespace), old.(*corev1.Namespace)
			n.Spec.Finalizers, n.Status = was.Spec.Finalizers, was.Status
		},
		ValidateCreate: validateNamespace,
		ValidateUpdate: func(o, _ Object) field.ErrorList { return validateNamespace(o) },
		Resets:         statusReset,

		FieldNames: []string{"status.phase"},
		Fields: func(o Object) fields.Set {
			return fields.Set{"metadata.name": o.GetName(), "status.phase": string(o.(*corev1.Namespace).Status.Phase)}
		},
		PrepareDelete: func(o Object) { o.(*corev1.Namespace).Status.Phase = corev1.NamespaceTerminating },
		Held:          func(o Object) bool { return len(o.(*corev1.Namespace).Spec.Finalizers) > 0 },

		Status: &Subresource{
			PrepareUpdate: func(o, old Object) { o.(*corev1.Namespace).Spec = old.(*corev1.Namespace).Spec },
			ValidateUpdate: func(o, _ Object) field.ErrorList {
				n := o.(*corev1.Namespace)
				want := corev1.NamespaceActive
				if n.DeletionTimestamp != nil {
					want = corev1.NamespaceTerminating
				}
				return oneOf(field.NewPath("status", "Phase"), n.Status.Phase, want)
			},
			Resets: onlySpecReset,
		},
		Parts: map[string]*Subresource{"finalize": {
			PrepareUpdate:  func(o, old Object) { o.(*corev1.Namespace).Status = old.(*corev1.Namespace).Status },
			ValidateUpdate: func(o, _ Object) field.ErrorList { return validateNamespace(o) },
			Resets:         statusReset,
		}},

		Columns: columns(nameColumn, col("Status", "string", "The status of the namespace"), ageColumn),
		Row: func(o Object, now time.Time) []any {
			n := o.(*corev1.Namespace)
			return []any{n.Name, string(n.Status.Phase), age(n.CreationTimestamp, now)}
		},
	}
}

func defaultNamespace(n *corev1.Namespace) {
	if n.Status.Phase == "" {
		n.Status.Phase = corev1.NamespaceActive
	}
	// The label cannot be forged or lost: policies select by it.
	if n.Name == "" || n.Labels[corev1.LabelMetadataName] == n.Name {
		return
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[corev1.LabelMetadataName] = n.Name
}

func validateNamespace(o Object) field.ErrorList {
	var errs field.ErrorList
	for _, f := range o.(*corev1.Namespace).Spec.Finalizers {
		path := field.NewPath("spec", "finalizers")
		errs = append(errs, invalid(path, string(f), validation.IsQualifiedName(string(f)))...)
		if f != corev1.FinalizerKubernetes && len(apivalidation.ValidateFinalizerName(string(f), path)) == 0 && !domainQualified(string(f)) {
			errs = append(errs, field.Invalid(path, string(f), "name is neither a standard finalizer name nor is it fully qualified"))
		}
	}
	return errs
}

func domainQualified(name string) bool {
	for i := range name {
		if name[i] == '/' {
			return true
		}
	}
	return false
}
