package apiendpoints

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

func (c *Controller) apply(ctx context.Context, p Plan) error {
	if p.Service != nil {
		if err := write(ctx, c.services, p.Service); err != nil {
			return fmt.Errorf("write service %s: %w", client.Key(p.Service), err)
		}
	}
	if p.Slice != nil {
		if err := write(ctx, c.slices, p.Slice); err != nil {
			return fmt.Errorf("write endpoint slice %s: %w", client.Key(p.Slice), err)
		}
	}
	if p.Endpoints != nil {
		if err := write(ctx, c.endpoints, p.Endpoints); err != nil {
			return fmt.Errorf("write endpoints %s: %w", client.Key(p.Endpoints), err)
		}
	}
	return nil
}

// write creates an object that has no version yet, and updates one that has.
func write[T client.Object](ctx context.Context, c client.Typed[T], o T) error {
	var err error
	if o.GetResourceVersion() == "" {
		// Whoever was faster causes an event, and this runs again.
		if _, err = c.Create(ctx, o); apierrors.IsAlreadyExists(err) {
			return nil
		}
	} else {
		_, err = c.Update(ctx, o)
	}
	return err
}
