package namespace

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// apply carries out a plan; it stops at the first error.
func (c *Controller) apply(ctx context.Context, ns *corev1.Namespace, p Plan) error {
	background := metav1.DeletePropagationBackground
	for _, i := range p.Delete {
		err := c.cfg.Client.Delete(ctx, i.Resource, i.NamespacedName, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &i.UID}, PropagationPolicy: &background,
		})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("delete %s %s in a namespace that is being deleted: %w", i.Resource.Resource, i.NamespacedName, err)
		}
	}
	if p.Status != nil {
		next := *ns // its maps and slices are not changed
		next.Status = *p.Status
		if _, err := c.namespaces.UpdateStatus(ctx, &next); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("update status of namespace %s: %w", ns.Name, err)
		}
	}
	if !p.Finalize {
		return nil
	}
	next := *ns
	next.Spec.Finalizers = slices.DeleteFunc(slices.Clone(ns.Spec.Finalizers), func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
	_, err := c.cfg.Client.Update(ctx, c.resource, &next, "finalize", metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("finalize namespace %s: %w", ns.Name, err)
	}
	return nil
}
