package endpoints

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

func (c *Controller) apply(ctx context.Context, p Plan) error {
	if e := p.Create; e != nil {
		written, err := c.endpoints.Create(ctx, e)
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("create endpoints %s: %w", client.Key(e), err)
		}
		c.writes.Wrote(client.Key(e), written)
	}
	if e := p.Update; e != nil {
		written, err := c.endpoints.Update(ctx, e)
		if err != nil {
			return fmt.Errorf("update endpoints %s: %w", client.Key(e), err)
		}
		c.writes.Wrote(client.Key(e), written)
	}
	if ref := p.Delete; ref != nil {
		err := c.endpoints.Delete(ctx, ref.Namespace, ref.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &ref.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete endpoints %s: %w", ref.NamespacedName, err)
		}
	}
	return nil
}
