package deployment

import (
	"context"
	"encoding/json"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
)

// apply carries out a plan, and stops at the first error. createErr is why the new
// set could not be created, for the deployment's conditions.
func (c *Controller) apply(ctx context.Context, d *appsv1.Deployment, p Plan) (createErr, err error) {
	if err := c.claim(ctx, d, p); err != nil {
		return nil, err
	}
	if p.Create != nil {
		if err := c.create(ctx, d, p.Create); err != nil {
			return err, err
		}
	}
	for _, change := range p.Update {
		if err := c.update(ctx, d, change); err != nil {
			return nil, err
		}
	}
	for _, ref := range p.Delete {
		if err := c.delete(ctx, d, ref); err != nil {
			return nil, err
		}
	}
	if p.Revision != "" {
		if d, err = c.setRevision(ctx, d, p.Revision); err != nil {
			return nil, err
		}
	}
	if p.Status != nil {
		return nil, c.updateStatus(ctx, d, *p.Status)
	}
	return nil, nil
}

// claim adopts and releases sets. Before it adopts it asks the server itself whether
// the deployment still exists, as an informer may be late.
func (c *Controller) claim(ctx context.Context, d *appsv1.Deployment, p Plan) error {
	if len(p.Adopt) > 0 {
		fresh, err := c.deployments.Get(ctx, d.Namespace, d.Name)
		if err != nil {
			return fmt.Errorf("adopt replica sets for deployment %s: %w", client.Key(d), err)
		}
		if fresh.UID != d.UID || fresh.DeletionTimestamp != nil {
			return fmt.Errorf("adopt replica sets for deployment %s: it is being deleted or was replaced", client.Key(d))
		}
	}
	for _, ref := range p.Adopt {
		owner := metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))
		if err := c.patchOwner(ctx, d, ref, owner); err != nil {
			return fmt.Errorf("adopt replica set %s: %w", ref.NamespacedName, err)
		}
	}
	for _, ref := range p.Release {
		err := c.patchOwner(ctx, d, ref, map[string]any{"$patch": "delete", "uid": d.UID})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsInvalid(err) {
			return fmt.Errorf("release replica set %s: %w", ref.NamespacedName, err)
		}
	}
	return nil
}

func (c *Controller) patchOwner(ctx context.Context, d *appsv1.Deployment, ref pods.Ref, owner any) error {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": ref.UID, "ownerReferences": []any{owner}}})
	if err != nil {
		return err
	}
	rs, err := c.sets.Patch(ctx, ref.Namespace, ref.Name, types.StrategicMergePatchType, data, "")
	if err == nil {
		c.setWrites.Wrote(client.Key(d), rs)
	}
	return err
}

// create makes the new set. If its name is taken by a set with another template, two
// templates have the same hash: the collision count makes the next try differ.
func (c *Controller) create(ctx context.Context, d *appsv1.Deployment, rs *appsv1.ReplicaSet) error {
	created, err := c.sets.Create(ctx, rs)
	switch {
	case err == nil:
		c.setWrites.Wrote(client.Key(d), created)
		if n := *rs.Spec.Replicas; n > 0 {
			c.cfg.Recorder.Event(d, corev1.EventTypeNormal, "ScalingReplicaSet", "ScaleReplicaSet", "Scaled up replica set %s from 0 to %d", rs.Name, n)
		}
		return nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil
	case !apierrors.IsAlreadyExists(err):
		c.cfg.Recorder.Event(d, corev1.EventTypeWarning, "ReplicaSetCreateError", "CreateReplicaSet", "Failed to create new replica set %q: %v", rs.Name, err)
		return fmt.Errorf("create replica set %s: %w", client.Key(rs), err)
	}
	there, getErr := c.sets.Get(ctx, rs.Namespace, rs.Name)
	if getErr != nil {
		return fmt.Errorf("create replica set %s: %w", client.Key(rs), getErr)
	}
	if owner := metav1.GetControllerOfNoCopy(there); owner != nil && owner.UID == d.UID && sameTemplate(&there.Spec.Template, &d.Spec.Template) {
		c.setWrites.Wrote(client.Key(d), there)
		return nil
	}
	status := *d.Status.DeepCopy()
	count := deref(status.CollisionCount, 0) + 1
	status.CollisionCount = &count
	if err := c.updateStatus(ctx, d, status); err != nil {
		return err
	}
	return fmt.Errorf("create replica set %s: %w", client.Key(rs), err)
}

func (c *Controller) update(ctx context.Context, d *appsv1.Deployment, change Change) error {
	rs := *change.Set // its maps and slices are not changed
	rs.Annotations = change.Annotations
	rs.Spec.Replicas, rs.Spec.MinReadySeconds = &change.Replicas, change.MinReady
	written, err := c.sets.Update(ctx, &rs)
	if err != nil {
		return fmt.Errorf("update replica set %s: %w", client.Key(&rs), err)
	}
	c.setWrites.Wrote(client.Key(d), written)
	direction, was := "up", deref(change.Set.Spec.Replicas, 1)
	if change.Replicas < was {
		direction = "down"
	}
	if change.Replicas != was {
		c.cfg.Recorder.Event(d, corev1.EventTypeNormal, "ScalingReplicaSet", "ScaleReplicaSet", "Scaled %s replica set %s from %d to %d", direction, rs.Name, was, change.Replicas)
	}
	return nil
}

func (c *Controller) delete(ctx context.Context, d *appsv1.Deployment, ref pods.Ref) error {
	err := c.sets.Delete(ctx, ref.Namespace, ref.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &ref.UID}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete replica set %s: %w", ref.NamespacedName, err)
	}
	c.setWrites.Deleted(client.Key(d), ref.UID)
	return nil
}

// setRevision patches one annotation, so that it never conflicts with a user's edit.
func (c *Controller) setRevision(ctx context.Context, d *appsv1.Deployment, revision string) (*appsv1.Deployment, error) {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": d.UID, "annotations": map[string]string{revisionAnnotation: revision}}})
	if err != nil {
		return nil, err
	}
	written, err := c.deployments.Patch(ctx, d.Namespace, d.Name, types.MergePatchType, data, "")
	if err != nil {
		return nil, fmt.Errorf("set revision of deployment %s: %w", client.Key(d), err)
	}
	c.writes.Wrote(client.Key(d), written)
	if written.Generation != d.Generation {
		return nil, apierrors.NewConflict(client.Deployments.GroupResource(), d.Name, fmt.Errorf("its spec has changed"))
	}
	return written, nil
}

func (c *Controller) updateStatus(ctx context.Context, d *appsv1.Deployment, status appsv1.DeploymentStatus) error {
	next := *d // its maps and slices are not changed
	next.Status = status
	written, err := c.deployments.UpdateStatus(ctx, &next)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("update status of deployment %s: %w", client.Key(d), err)
	}
	c.writes.Wrote(client.Key(d), written)
	return nil
}
