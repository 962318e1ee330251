package garbagecollector

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// apply carries out a plan, and stops at the first error. Every write names the UID
// and version that the plan was made for: a newer object is looked at anew.
func (c *Controller) apply(ctx context.Context, o client.Object, p Plan) error {
	if p.Delete != "" {
		uid, version := o.GetUID(), o.GetResourceVersion()
		err := c.cfg.Client.Delete(ctx, p.Item.Resource, p.Item.Key, metav1.DeleteOptions{
			Preconditions:     &metav1.Preconditions{UID: &uid, ResourceVersion: &version},
			PropagationPolicy: &p.Delete,
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete %s, whose owners are gone: %w", p.Item, err)
		}
	}
	if len(p.DropOwners) > 0 {
		if err := c.dropOwners(ctx, p.Item, o, p.DropOwners); err != nil {
			return err
		}
	}
	for _, i := range p.Orphan {
		if err := c.orphan(ctx, i, o.GetUID()); err != nil {
			return err
		}
	}
	for _, i := range p.Visit {
		c.queue.Add(c.key(i))
	}
	if p.Unfinalize == "" {
		return nil
	}
	left := slices.DeleteFunc(slices.Clone(o.GetFinalizers()), func(f string) bool { return f == p.Unfinalize })
	return c.patch(ctx, p.Item, o, "finalizers", left)
}

func (c *Controller) orphan(ctx context.Context, i Item, owner types.UID) error {
	o, err := c.cfg.Client.Get(ctx, i.Resource, i.Key)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("orphan %s: %w", i, err)
	}
	return c.dropOwners(ctx, i, o, []types.UID{owner})
}

func (c *Controller) dropOwners(ctx context.Context, i Item, o client.Object, owners []types.UID) error {
	left := slices.DeleteFunc(slices.Clone(o.GetOwnerReferences()), func(r metav1.OwnerReference) bool { return slices.Contains(owners, r.UID) })
	if len(left) == len(o.GetOwnerReferences()) {
		return nil
	}
	return c.patch(ctx, i, o, "ownerReferences", left)
}

// patch replaces one list of an object's metadata.
func (c *Controller) patch(ctx context.Context, i Item, o client.Object, field string, list any) error {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": o.GetUID(), "resourceVersion": o.GetResourceVersion(), field: list,
	}})
	if err != nil {
		return err
	}
	_, err = c.cfg.Client.Patch(ctx, i.Resource, i.Key, types.MergePatchType, data, "", metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("set %s of %s: %w", field, i, err)
	}
	return nil
}
