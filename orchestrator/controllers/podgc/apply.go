package podgc

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
)

// apply removes pods at once: there is no agent to wait for.
func (c *Controller) apply(ctx context.Context, p Plan) error {
	zero := int64(0)
	for _, v := range p.Delete {
		if v.Fail {
			if err := c.fail(ctx, v); err != nil {
				return err
			}
		}
		err := c.pods.Delete(ctx, v.Pod.Namespace, v.Pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &v.Pod.UID},
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete pod %s: %w", client.Key(v.Pod), err)
		}
		c.cfg.Log.Info("pod removed", "pod", client.Key(v.Pod), "reason", v.Reason)
	}
	return nil
}

func (c *Controller) fail(ctx context.Context, v Victim) error {
	next := *v.Pod // its maps and slices are not changed
	next.Status = pods.Disrupted(v.Pod, "DeletionByPodGC", v.Reason, time.Now())
	next.Status.Phase = corev1.PodFailed
	if _, err := c.pods.UpdateStatus(ctx, &next); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("fail pod %s: %w", client.Key(v.Pod), err)
	}
	return nil
}
