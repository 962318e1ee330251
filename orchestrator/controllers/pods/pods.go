// Package pods is what the workload controllers agree on about pods.
//
//	in:   Pods
//	out:  whether they count, are ready and available, and which to delete first
//
// All of it is pure: time is an argument.
package pods

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// Names of the indexes that AddIndexes makes on an informer.
const (
	ByController = "controller" // UID of the controller
	Orphans      = "orphans"    // namespace, for objects without controller
)

// AddIndexes makes objects findable by their controller, and orphans by namespace.
func AddIndexes(i client.Informer) {
	i.AddIndex(ByController, func(o client.Object) []string {
		if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
			return []string{string(ref.UID)}
		}
		return nil
	})
	i.AddIndex(Orphans, func(o client.Object) []string {
		if metav1.GetControllerOfNoCopy(o) == nil {
			return []string{o.GetNamespace()}
		}
		return nil
	})
}

// StillOrphan says whether an event is a change of an object without controller that
// makes it match no other controller than before.
func StillOrphan(ev client.Event) bool {
	return ev.Old != nil && metav1.GetControllerOfNoCopy(ev.Old) == nil && metav1.GetControllerOfNoCopy(ev.Object) == nil &&
		maps.Equal(ev.Old.GetLabels(), ev.Object.GetLabels())
}

// Ref names one object exactly: a name may be used again, a UID never is.
type Ref struct {
	types.NamespacedName
	UID types.UID
}

// RefOf returns the reference of an object.
func RefOf(o metav1.Object) Ref { return Ref{client.Key(o), o.GetUID()} }

// Finished says whether a pod will never run again.
func Finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// Active says whether a pod counts towards what its controller wants.
func Active(p *corev1.Pod) bool { return !Finished(p) && p.DeletionTimestamp == nil }

// Terminating says whether a pod is being deleted and may still run.
func Terminating(p *corev1.Pod) bool { return !Finished(p) && p.DeletionTimestamp != nil }

// Condition returns a condition of a pod, or nil.
func Condition(p *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == t {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// Ready says whether a pod's Ready condition is true.
func Ready(p *corev1.Pod) bool {
	c := Condition(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// AvailableIn returns how long until a pod has been ready for minReadySeconds: 0 if
// it is available now, -1 if it is not ready.
func AvailableIn(p *corev1.Pod, minReadySeconds int32, now time.Time) time.Duration {
	c := Condition(p, corev1.PodReady)
	if c == nil || c.Status != corev1.ConditionTrue {
		return -1
	}
	if minReadySeconds == 0 {
		return 0
	}
	if c.LastTransitionTime.IsZero() {
		return -1
	}
	left := c.LastTransitionTime.Add(time.Duration(minReadySeconds) * time.Second).Sub(now)
	return max(left, 0)
}

// RankForDeletion sorts pods so that those to delete first come first, by the rules
// of the ReplicaSet controller: pods that are not scheduled, not running, not ready,
// cheap by annotation, crowded on their node, ready or created only lately, and
// restarted often. crowd is how many related pods a node runs.
// https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-a-replicaset
func RankForDeletion(list []*corev1.Pod, crowd map[string]int, now time.Time) {
	slices.SortFunc(list, func(a, b *corev1.Pod) int {
		return cmp.Or(
			boolFirst(a.Spec.NodeName == "", b.Spec.NodeName == ""),
			cmp.Compare(phaseRank(a), phaseRank(b)),
			boolFirst(!Ready(a), !Ready(b)),
			cmp.Compare(deletionCost(a), deletionCost(b)),
			cmp.Compare(crowd[b.Spec.NodeName], crowd[a.Spec.NodeName]),
			youngerFirst(readySince(a), readySince(b), now),
			cmp.Compare(restarts(b), restarts(a)),
			youngerFirst(a.CreationTimestamp.Time, b.CreationTimestamp.Time, now),
			cmp.Compare(a.UID, b.UID),
		)
	})
}

func boolFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func phaseRank(p *corev1.Pod) int {
	switch p.Status.Phase {
	case corev1.PodPending:
		return 0
	case corev1.PodUnknown:
		return 1
	}
	return 2
}

func deletionCost(p *corev1.Pod) int32 {
	cost, err := strconv.ParseInt(p.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return int32(cost)
}

func readySince(p *corev1.Pod) time.Time {
	if c := Condition(p, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return c.LastTransitionTime.Time
	}
	return time.Time{}
}

// youngerFirst compares ages by powers of two, so that among pods of about the same
// age it is chance, not a few seconds, that spreads deletions.
func youngerFirst(a, b, now time.Time) int {
	if a.IsZero() || b.IsZero() {
		return boolFirst(a.IsZero(), b.IsZero())
	}
	return cmp.Compare(ageRank(now.Sub(a)), ageRank(now.Sub(b)))
}

func ageRank(age time.Duration) int {
	if age < time.Second {
		return 0
	}
	return int(math.Log2(float64(age / time.Second)))
}

func restarts(p *corev1.Pod) int32 {
	most := int32(0)
	for _, s := range p.Status.ContainerStatuses {
		most = max(most, s.RestartCount)
	}
	return most
}

// ByNode is the name of the index of pods by the node they are bound to.
const ByNode = "node"

// AddNodeIndex makes pods findable by their node.
func AddNodeIndex(i client.Informer) {
	i.AddIndex(ByNode, func(o client.Object) []string {
		if pod, ok := o.(*corev1.Pod); ok && pod.Spec.NodeName != "" {
			return []string{pod.Spec.NodeName}
		}
		return nil
	})
}

// Disrupted returns a pod's status with the condition DisruptionTarget, which tells
// controllers that the pod ends for no fault of its own.
func Disrupted(p *corev1.Pod, reason, message string, now time.Time) corev1.PodStatus {
	status := p.Status.DeepCopy()
	status.Conditions = slices.DeleteFunc(status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.DisruptionTarget })
	status.Conditions = append(status.Conditions, corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, Message: message,
		LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
	})
	return *status
}
