package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// bind gives a pod its node.
func (s *Scheduler) bind(ctx context.Context, pod *corev1.Pod, node string) error {
	ctx, cancel := context.WithTimeout(ctx, client.DefaultTimeout)
	defer cancel()
	_, err := s.cfg.Client.CreateSub(ctx, client.Pods.Resource, client.Key(pod), "binding", &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	})
	if err == nil {
		s.cfg.Events.Event(pod, corev1.EventTypeNormal, "Scheduled", "Binding", "Successfully assigned %s/%s to %s", pod.Namespace, pod.Name, node)
		return nil
	}
	if !apierrors.IsNotFound(err) && ctx.Err() == nil {
		s.cfg.Log.Warn("pod not bound", "pod", pod.Namespace+"/"+pod.Name, "node", node, "err", err)
	}
	return fmt.Errorf("bind pod %s/%s to %s: %w", pod.Namespace, pod.Name, node, err)
}

// report says on the pod why it fits nowhere.
func (s *Scheduler) report(ctx context.Context, pod *corev1.Pod, message string) {
	s.cfg.Events.Event(pod, corev1.EventTypeWarning, "FailedScheduling", "Scheduling", "%s", message)
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Message == message {
			return
		}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID},
		"status": map[string]any{"conditions": []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: message,
			LastTransitionTime: metav1.NewTime(time.Now().Truncate(time.Second)),
		}}},
	})
	if err == nil {
		_, err = client.For(s.cfg.Client, client.Pods).Patch(ctx, pod.Namespace, pod.Name, types.StrategicMergePatchType, patch, "status")
	}
	if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		s.cfg.Log.Warn("condition not written", "pod", pod.Namespace+"/"+pod.Name, "err", err)
	}
}
