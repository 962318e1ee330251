package admission

import (
	"context"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

var (
	namespaces      = corev1.SchemeGroupVersion.WithResource("namespaces")
	namespaceKind   = corev1.SchemeGroupVersion.WithKind("Namespace")
	serviceAccounts = corev1.SchemeGroupVersion.WithResource("serviceaccounts")
	podKind         = corev1.SchemeGroupVersion.WithKind("Pod")
)

// NamespaceLifecycle lets objects be created only in namespaces that exist and
// are not on their way out, and keeps the system's namespaces. It changes
// nothing; it is a Mutator in order to be asked first.
type NamespaceLifecycle struct{}

// Name is the plugin's name in errors.
func (NamespaceLifecycle) Name() string { return "NamespaceLifecycle" }

// Mutate refuses what has no place to be.
func (NamespaceLifecycle) Mutate(ctx context.Context, a *Attributes) error {
	if a.Is(namespaceKind, admissionv1.Delete) {
		return keepSystem(a)
	}
	if a.Operation != admissionv1.Create || !a.Kind.Namespaced || a.Subresource != "" || a.Reader == nil {
		return nil
	}
	key := types.NamespacedName{Name: a.Namespace}
	o, err := a.Reader.Get(ctx, namespaces, key, false)
	if apierrors.IsNotFound(err) {
		o, err = a.Reader.Get(ctx, namespaces, key, true)
	}
	if err != nil {
		return err
	}
	if ns, ok := o.(*corev1.Namespace); ok && (ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating) {
		return terminating(a)
	}
	return nil
}

func keepSystem(a *Attributes) error {
	switch a.Name {
	case metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic:
		return Forbidden(a, fmt.Errorf("this namespace may not be deleted"))
	}
	return nil
}

func terminating(a *Attributes) error {
	err := Forbidden(a, fmt.Errorf("unable to create new content in namespace %s because it is being terminated", a.Namespace))
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type:    corev1.NamespaceTerminatingCause,
		Message: fmt.Sprintf("namespace %s is being terminated", a.Namespace),
		Field:   "metadata.namespace",
	})
	return err
}

// Forbidden is the error for a write that a plugin refuses.
func Forbidden(a *Attributes, why error) *apierrors.StatusError {
	name := a.Name
	if o, ok := a.Object.(metav1.Object); ok && name == "" {
		if name = o.GetName(); name == "" {
			name = o.GetGenerateName()
		}
	}
	gr := schema.GroupResource{Group: a.Kind.Group, Resource: a.Kind.Resource}
	return apierrors.NewForbidden(gr, name, why)
}
