package rootca

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

func (c *Controller) apply(ctx context.Context, p Plan) error {
	if p.Create != nil {
		_, err := c.maps.Create(ctx, p.Create)
		if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return fmt.Errorf("create config map %s: %w", client.Key(p.Create), err)
		}
	}
	if p.Update != nil {
		if _, err := c.maps.Update(ctx, p.Update); err != nil {
			return fmt.Errorf("update config map %s: %w", client.Key(p.Update), err)
		}
	}
	return nil
}
