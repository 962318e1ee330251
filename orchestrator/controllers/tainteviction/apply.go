package tainteviction

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

// apply says on the pod why it goes, and deletes it.
func (c *Controller) apply(ctx context.Context, pod *corev1.Pod, p Plan) error {
	if !p.Evict {
		return nil
	}
	next := *pod // its maps and slices are not changed
	next.Status = pods.Disrupted(pod, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", time.Now())
	if _, err := c.pods.UpdateStatus(ctx, &next); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("mark pod %s for eviction: %w", client.Key(pod), err)
	}
	c.cfg.Recorder.Event(pod, corev1.EventTypeNormal, "TaintManagerEviction", "Evict", "Marking for deletion Pod %s", client.Key(pod))
	err := c.pods.Delete(ctx, pod.Namespace, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("evict pod %s: %w", client.Key(pod), err)
	}
	return nil
}
