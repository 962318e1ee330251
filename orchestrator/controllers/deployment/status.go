package deployment

import (
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons of the condition Progressing that rules depend on.
const (
	reasonAvailable = "NewReplicaSetAvailable"
	reasonTimedOut  = "ProgressDeadlineExceeded"
	reasonPaused    = "DeploymentPaused"
	reasonResumed   = "DeploymentResumed"
	reasonUpdated   = "ReplicaSetUpdated"
)

// status computes the deployment's status from its sets'.
func (r *rollout) status(progress bool) {
	s := r.counts()
	r.available(s)
	if progress {
		r.progress(s)
	}
	if r.d.DeletionTimestamp == nil {
		r.replicaFailure()
	}
	s.Conditions = r.conditions
	if !equality.Semantic.DeepEqual(s, r.d.Status) {
		r.plan.Status = &s
	}
	if progress {
		r.plan.RetryAfter = r.untilDeadline()
	}
}

// counts sums up the sets' statuses. A set that is to be created counts nothing yet.
func (r *rollout) counts() appsv1.DeploymentStatus {
	s := appsv1.DeploymentStatus{ObservedGeneration: r.d.Generation, CollisionCount: r.d.Status.CollisionCount}
	terminating := int32(0)
	for _, rs := range r.all() {
		s.Replicas += rs.Status.Replicas
		s.ReadyReplicas += rs.Status.ReadyReplicas
		s.AvailableReplicas += rs.Status.AvailableReplicas
		terminating += deref(rs.Status.TerminatingReplicas, 0)
	}
	s.TerminatingReplicas = &terminating
	if r.new != nil {
		s.UpdatedReplicas = r.new.Status.Replicas
	}
	s.UnavailableReplicas = max(total(r.all())-s.AvailableReplicas, 0)
	return s
}

func (r *rollout) available(s appsv1.DeploymentStatus) {
	_, unavailable := r.limits()
	if s.AvailableReplicas >= r.replicas()-unavailable {
		r.set(appsv1.DeploymentAvailable, corev1.ConditionTrue, "MinimumReplicasAvailable", "Deployment has minimum availability.")
	} else {
		r.set(appsv1.DeploymentAvailable, corev1.ConditionFalse, "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
	}
}

// complete says whether a rollout has ended well.
func (r *rollout) complete(s appsv1.DeploymentStatus) bool {
	want := r.replicas()
	return s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want
}

// moved says whether more pods are updated, ready or available, or fewer old ones
// are left, than the status says.
func (r *rollout) moved(s appsv1.DeploymentStatus) bool {
	was := r.d.Status
	return s.UpdatedReplicas > was.UpdatedReplicas || s.ReadyReplicas > was.ReadyReplicas || s.AvailableReplicas > was.AvailableReplicas ||
		s.Replicas-s.UpdatedReplicas < was.Replicas-was.UpdatedReplicas
}

// progress keeps the condition Progressing, which kubectl rollout status waits for.
func (r *rollout) progress(s appsv1.DeploymentStatus) {
	if !r.hasDeadline() {
		r.drop(appsv1.DeploymentProgressing)
		return
	}
	c := r.condition(appsv1.DeploymentProgressing)
	if s.Replicas == s.UpdatedReplicas && c != nil && c.Reason == reasonAvailable {
		return
	}
	subject := fmt.Sprintf("Deployment %q", r.d.Name)
	if r.new != nil {
		subject = fmt.Sprintf("ReplicaSet %q", r.new.Name)
	}
	switch {
	case r.complete(s):
		r.progressing(corev1.ConditionTrue, reasonAvailable, subject+" has successfully progressed.")
	case r.moved(s):
		next := r.newCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonUpdated, subject+" is progressing.")
		if c != nil && c.Status == next.Status {
			next.LastTransitionTime = c.LastTransitionTime
		}
		r.drop(appsv1.DeploymentProgressing) // so that lastUpdateTime moves, from which the deadline counts
		r.conditions = append(r.conditions, next)
	case c != nil && (c.Reason == reasonTimedOut || c.Reason != reasonAvailable && r.now.After(c.LastUpdateTime.Add(r.deadline()))):
		r.progressing(corev1.ConditionFalse, reasonTimedOut, subject+" has timed out progressing.")
	}
}

// untilDeadline is when to look again whether the rollout has stalled.
func (r *rollout) untilDeadline() time.Duration {
	c := r.condition(appsv1.DeploymentProgressing)
	if !r.hasDeadline() || c == nil || c.Reason == reasonAvailable || c.Reason == reasonTimedOut {
		return 0
	}
	// One second more: API times have no fractions.
	return max(c.LastUpdateTime.Add(r.deadline()).Sub(r.now), 0) + time.Second
}

// pausedCondition tells pausing and resuming apart from making no progress.
func (r *rollout) pausedCondition() {
	c := r.condition(appsv1.DeploymentProgressing)
	if !r.hasDeadline() || c != nil && c.Reason == reasonTimedOut {
		return
	}
	paused := c != nil && c.Reason == reasonPaused
	switch {
	case r.d.Spec.Paused && !paused:
		r.progressing(corev1.ConditionUnknown, reasonPaused, "Deployment is paused")
	case !r.d.Spec.Paused && paused:
		r.progressing(corev1.ConditionUnknown, reasonResumed, "Deployment is resumed")
	}
}

// replicaFailure hands on why a set cannot create or delete pods, the new one first.
func (r *rollout) replicaFailure() {
	sets := r.old
	if r.new != nil {
		sets = append([]*set{r.new}, sets...)
	}
	for _, s := range sets {
		for _, c := range s.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				r.set(appsv1.DeploymentReplicaFailure, c.Status, c.Reason, c.Message)
				return
			}
		}
	}
	r.drop(appsv1.DeploymentReplicaFailure)
}

// hasDeadline: the largest number means none, as in the API reference.
func (r *rollout) hasDeadline() bool {
	return r.d.Spec.ProgressDeadlineSeconds != nil && *r.d.Spec.ProgressDeadlineSeconds != 1<<31-1
}

func (r *rollout) deadline() time.Duration {
	return time.Duration(deref(r.d.Spec.ProgressDeadlineSeconds, 600)) * time.Second
}

func (r *rollout) condition(t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range r.conditions {
		if r.conditions[i].Type == t {
			return &r.conditions[i]
		}
	}
	return nil
}

func (r *rollout) newCondition(t appsv1.DeploymentConditionType, s corev1.ConditionStatus, reason, message string) appsv1.DeploymentCondition {
	now := metav1.NewTime(r.now.Truncate(time.Second))
	return appsv1.DeploymentCondition{Type: t, Status: s, Reason: reason, Message: message, LastUpdateTime: now, LastTransitionTime: now}
}

func (r *rollout) progressing(s corev1.ConditionStatus, reason, message string) {
	r.set(appsv1.DeploymentProgressing, s, reason, message)
}

// set changes a condition unless its status and reason stay the same.
func (r *rollout) set(t appsv1.DeploymentConditionType, s corev1.ConditionStatus, reason, message string) {
	c := r.condition(t)
	if c != nil && c.Status == s && c.Reason == reason {
		return
	}
	next := r.newCondition(t, s, reason, message)
	if c != nil && c.Status == s {
		next.LastTransitionTime = c.LastTransitionTime
	}
	r.drop(t)
	r.conditions = append(r.conditions, next)
}

func (r *rollout) drop(t appsv1.DeploymentConditionType) {
	r.conditions = slices.DeleteFunc(r.conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == t })
}
