package nodeipam

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

func (c *Controller) apply(ctx context.Context, node *corev1.Node, p Plan) error {
	if p.Full != nil {
		c.cfg.Recorder.Event(node, corev1.EventTypeWarning, "CIDRNotAvailable", "AllocateCIDR", "No /%d is left in the pod network %s", p.Full.Bits, p.Full.Cluster)
		return fmt.Errorf("allocate pod network for node %s: no /%d left in %s", node.Name, p.Full.Bits, p.Full.Cluster)
	}
	if len(p.PodCIDRs) == 0 {
		return nil
	}
	data, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": node.UID},
		"spec":     map[string]any{"podCIDR": p.PodCIDRs[0], "podCIDRs": p.PodCIDRs},
	})
	if err != nil {
		return err
	}
	written, err := c.nodes.Patch(ctx, "", node.Name, types.StrategicMergePatchType, data, "")
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("set pod networks of node %s: %w", node.Name, err)
	}
	c.writes.Wrote(all, written)
	c.cfg.Log.Info("node has pod networks", "node", node.Name, "networks", p.PodCIDRs)
	return nil
}

// all is the owner of every write: each allocation must see all others.
var all = client.Key(&corev1.Node{})
