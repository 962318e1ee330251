package replicaset

import (
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
)

// burst bounds how many pods one pass creates or deletes, so that one set's growth
// does not keep every other set waiting.
const burst = 500

// Snapshot is all that a plan depends on.
type Snapshot struct {
	Set *appsv1.ReplicaSet

	// Pods are those whose controller is Set, and those of its namespace that have none.
	Pods []*corev1.Pod

	// Crowd counts, by node, the active pods of all sets with the same controller
	// as Set. Only the ranking of deletions reads it.
	Crowd map[string]int

	// Failure is why pods could not be created or deleted the last time, or nil.
	Failure *Failure
}

// Failure becomes the condition ReplicaFailure.
type Failure struct {
	Reason, Message string
}

// Plan says what would make the pods match the set. The zero Plan means converged.
type Plan struct {
	Adopt, Release, Delete []pods.Ref
	Create                 int
	Status                 *appsv1.ReplicaSetStatus // nil: as it is
	RetryAfter             time.Duration            // 0: the next event is enough
}

// compute makes the plan. The order of Pods does not matter.
func compute(s Snapshot, now time.Time) Plan {
	rs := s.Set
	selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
	if err != nil || selector.Empty() { // validation admits neither; never claim every pod
		return Plan{}
	}
	var p Plan
	mine := p.claim(s, selector)
	active := slices.DeleteFunc(slices.Clone(mine), func(pod *corev1.Pod) bool { return !pods.Active(pod) })
	if rs.DeletionTimestamp == nil {
		p.scale(rs, active, s.Crowd, now)
	}
	status := p.status(s, mine, now)
	if !equality.Semantic.DeepEqual(status, rs.Status) {
		p.Status = &status
	}
	return p
}

// claim sorts the pods into kept, adopted and released, and returns those that are
// the set's, or will be. A set that is being deleted adopts and releases nothing:
// what becomes of its pods is for the garbage collector.
func (p *Plan) claim(s Snapshot, selector labels.Selector) []*corev1.Pod {
	deleting := s.Set.DeletionTimestamp != nil
	var mine []*corev1.Pod
	for _, pod := range s.Pods {
		ref := metav1.GetControllerOfNoCopy(pod)
		matches := selector.Matches(labels.Set(pod.Labels))
		switch {
		case ref == nil && matches && !deleting && pods.Active(pod):
			p.Adopt = append(p.Adopt, pods.RefOf(pod))
			mine = append(mine, pod)
		case ref == nil || ref.UID != s.Set.UID:
		case matches || deleting:
			mine = append(mine, pod)
		default:
			p.Release = append(p.Release, pods.RefOf(pod))
		}
	}
	sortRefs(p.Adopt)
	sortRefs(p.Release)
	return mine
}

// scale decides how many pods to create or which to delete. It reorders active.
func (p *Plan) scale(rs *appsv1.ReplicaSet, active []*corev1.Pod, crowd map[string]int, now time.Time) {
	diff := len(active) - int(replicas(rs))
	switch {
	case diff < 0:
		p.Create = min(-diff, burst)
	case diff > 0:
		pods.RankForDeletion(active, crowd, now)
		for _, pod := range active[:min(diff, burst)] {
			p.Delete = append(p.Delete, pods.RefOf(pod))
		}
	}
}

// status is what the set's status should say, and sets RetryAfter to when a ready
// pod will have become available.
func (p *Plan) status(s Snapshot, mine []*corev1.Pod, now time.Time) appsv1.ReplicaSetStatus {
	rs := s.Set
	template := labels.SelectorFromSet(rs.Spec.Template.Labels)
	status := appsv1.ReplicaSetStatus{ObservedGeneration: rs.Generation, Conditions: conditions(s, now)}
	terminating := int32(0)
	for _, pod := range mine {
		if pods.Terminating(pod) {
			terminating++
		}
		if !pods.Active(pod) {
			continue
		}
		status.Replicas++
		if template.Matches(labels.Set(pod.Labels)) {
			status.FullyLabeledReplicas++
		}
		switch left := pods.AvailableIn(pod, rs.Spec.MinReadySeconds, now); {
		case left == 0:
			status.ReadyReplicas++
			status.AvailableReplicas++
		case left > 0:
			status.ReadyReplicas++
			if p.RetryAfter == 0 || left < p.RetryAfter {
				p.RetryAfter = left
			}
		}
	}
	status.TerminatingReplicas = &terminating
	return status
}

// conditions returns the set's conditions with ReplicaFailure as the last attempt left it.
func conditions(s Snapshot, now time.Time) []appsv1.ReplicaSetCondition {
	var out []appsv1.ReplicaSetCondition
	var was *appsv1.ReplicaSetCondition
	for i := range s.Set.Status.Conditions {
		if c := &s.Set.Status.Conditions[i]; c.Type == appsv1.ReplicaSetReplicaFailure {
			was = c
		} else {
			out = append(out, *c)
		}
	}
	if s.Failure == nil {
		return out
	}
	c := appsv1.ReplicaSetCondition{
		Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue,
		LastTransitionTime: metav1.NewTime(now), Reason: s.Failure.Reason, Message: s.Failure.Message,
	}
	if was != nil && was.Status == c.Status && was.Reason == c.Reason {
		c.LastTransitionTime, c.Message = was.LastTransitionTime, was.Message
	}
	return append(out, c)
}

func replicas(rs *appsv1.ReplicaSet) int32 {
	if rs.Spec.Replicas == nil {
		return 1
	}
	return *rs.Spec.Replicas
}

func sortRefs(refs []pods.Ref) {
	slices.SortFunc(refs, func(a, b pods.Ref) int { return strings.Compare(a.Name, b.Name) })
}

// String prints one line an action.
func (p Plan) String() string {
	var b strings.Builder
	for _, list := range []struct {
		verb string
		refs []pods.Ref
	}{{"adopt", p.Adopt}, {"release", p.Release}, {"delete", p.Delete}} {
		for _, ref := range list.refs {
			fmt.Fprintf(&b, "%s pod %s\n", list.verb, ref.NamespacedName)
		}
	}
	if p.Create > 0 {
		fmt.Fprintf(&b, "create %d pods\n", p.Create)
	}
	if s := p.Status; s != nil {
		fmt.Fprintf(&b, "status replicas=%d ready=%d available=%d labeled=%d generation=%d",
			s.Replicas, s.ReadyReplicas, s.AvailableReplicas, s.FullyLabeledReplicas, s.ObservedGeneration)
		for _, c := range s.Conditions {
			fmt.Fprintf(&b, " %s=%s(%s)", c.Type, c.Status, c.Reason)
		}
		b.WriteByte('\n')
	}
	if p.RetryAfter > 0 {
		fmt.Fprintf(&b, "retry after %s\n", p.RetryAfter)
	}
	return b.String()
}
