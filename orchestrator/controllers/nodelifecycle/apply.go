package nodelifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
)

// apply carries out a plan, and stops at the first error.
func (c *Controller) apply(ctx context.Context, node *corev1.Node, p Plan) error {
	if p.Conditions != nil {
		next := *node // its maps and slices are not changed
		next.Status.Conditions = p.Conditions
		written, err := c.nodes.UpdateStatus(ctx, &next)
		if err != nil {
			return fmt.Errorf("update status of node %s: %w", node.Name, err)
		}
		c.writes.Wrote(client.Key(node), written)
		node = written
		c.cfg.Recorder.Event(node, corev1.EventTypeNormal, "NodeNotReady", "NodeNotReady", "Node %s status is now: NodeNotReady", node.Name)
	}
	if p.Taint {
		if err := c.setTaints(ctx, node, p.Taints); err != nil {
			return err
		}
	}
	if p.Silent {
		return c.markPods(ctx, node.Name)
	}
	return nil
}

func (c *Controller) setTaints(ctx context.Context, node *corev1.Node, taints []corev1.Taint) error {
	data, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": node.UID, "resourceVersion": node.ResourceVersion},
		"spec":     map[string]any{"taints": taints},
	})
	if err != nil {
		return err
	}
	written, err := c.nodes.Patch(ctx, "", node.Name, types.MergePatchType, data, "")
	if err != nil {
		return fmt.Errorf("taint node %s: %w", node.Name, err)
	}
	c.writes.Wrote(client.Key(node), written)
	return nil
}

// markPods says of a silent node's pods that they are not ready, so that Services
// stop sending to them.
func (c *Controller) markPods(ctx context.Context, node string) error {
	for _, pod := range c.podView.ByIndex(pods.ByNode, node) {
		if !pods.Ready(pod) {
			continue
		}
		next := pod.DeepCopy()
		i := slices.IndexFunc(next.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady })
		ready := &next.Status.Conditions[i]
		ready.Status, ready.LastTransitionTime = corev1.ConditionFalse, metav1.NewTime(time.Now().Truncate(time.Second))
		ready.Reason, ready.Message = "NodeNotReady", "Nothing is heard of the pod's node"
		_, err := c.pods.UpdateStatus(ctx, next)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("mark pod %s not ready: %w", client.Key(pod), err)
		}
	}
	return nil
}
