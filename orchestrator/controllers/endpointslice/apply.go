package endpointslice

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

// Apply carries out a plan for the Service of the given key. Every write is
// remembered until the informer shows it. It stops at the first error.
func Apply(ctx context.Context, c client.Typed[*discoveryv1.EndpointSlice], w *reconcile.Writes, service types.NamespacedName, p Plan) error {
	for _, s := range p.Create {
		written, err := c.Create(ctx, s)
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("create endpoint slice of service %s: %w", service, err)
		}
		w.Wrote(service, written)
	}
	for _, s := range p.Update {
		written, err := c.Update(ctx, s)
		if err != nil {
			return fmt.Errorf("update endpoint slice %s: %w", client.Key(s), err)
		}
		w.Wrote(service, written)
	}
	for _, ref := range p.Delete {
		err := c.Delete(ctx, ref.Namespace, ref.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &ref.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete endpoint slice %s: %w", ref.NamespacedName, err)
		}
		w.Deleted(service, ref.UID)
	}
	return nil
}
