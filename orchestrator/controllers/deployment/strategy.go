package deployment

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
)

func ref(s *set) pods.Ref { return pods.RefOf(s.ReplicaSet) }

func (r *rollout) replicas() int32 { return deref(r.d.Spec.Replicas, 1) }

// limits are how many pods above and below replicas the rollout may have. Both zero
// could never make progress, so then one pod may be unavailable.
func (r *rollout) limits() (surge, unavailable int32) {
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || r.replicas() == 0 {
		return 0, 0
	}
	quarter := intstr.FromString("25%")
	rolling := appsv1.RollingUpdateDeployment{}
	if r.d.Spec.Strategy.RollingUpdate != nil {
		rolling = *r.d.Spec.Strategy.RollingUpdate
	}
	scaled := func(v *intstr.IntOrString, up bool) int32 {
		n, err := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(v, quarter), int(r.replicas()), up)
		if err != nil { // validation admits none
			return 0
		}
		return int32(n)
	}
	surge, unavailable = scaled(rolling.MaxSurge, true), scaled(rolling.MaxUnavailable, false)
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, min(unavailable, r.replicas())
}

func total(sets []*set) int32 {
	n := int32(0)
	for _, s := range sets {
		n += s.replicas
	}
	return n
}

// newReplicas is how many pods the new set may have now.
func (r *rollout) newReplicas() int32 {
	want, have := r.replicas(), r.new.replicas
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || have >= want {
		return want
	}
	surge, _ := r.limits()
	room := want + surge - total(r.all())
	return have + max(min(room, want-have), 0)
}

// growNew scales the new set towards the deployment's replicas; it says whether
// anything changed.
func (r *rollout) growNew() bool {
	if r.plan.Create != nil {
		return true
	}
	return r.scale(r.new, r.newReplicas())
}

// shrinkOld scales old sets down as far as availability allows: first pods that are
// not available anyway, then available ones.
func (r *rollout) shrinkOld() {
	if total(r.old) == 0 {
		return
	}
	_, unavailable := r.limits()
	least := r.replicas() - unavailable
	// Pods of the new set that are not available yet must not be counted on.
	room := total(r.all()) - least - (r.new.replicas - r.new.available())
	for _, s := range r.old {
		if broken := s.replicas - s.available(); broken > 0 && room > 0 {
			n := min(broken, room)
			room -= n
			r.scale(s, s.replicas-n)
		}
	}
	spare := -least
	for _, s := range r.all() {
		spare += s.available()
	}
	spare = min(spare, room)
	for _, s := range r.old {
		if n := min(s.replicas, spare); n > 0 {
			spare -= n
			r.scale(s, s.replicas-n)
		}
	}
}

// scaleDownAll empties every old set; it says whether anything changed.
func (r *rollout) scaleDownAll() bool {
	changed := false
	for _, s := range r.old {
		changed = r.scale(s, 0) || changed
	}
	return changed
}

// oldPodsRemain says whether a pod of an old set may still run.
func (r *rollout) oldPodsRemain(list []*corev1.Pod) bool {
	for _, s := range r.old {
		if s.Status.Replicas > 0 {
			return true
		}
	}
	var current types.UID
	if r.new != nil {
		current = r.new.UID
	}
	for _, pod := range list {
		if owner := metav1.GetControllerOfNoCopy(pod); owner != nil && owner.UID == current {
			continue
		}
		if !pods.Finished(pod) {
			return true
		}
	}
	return false
}

// scale sets a set's size and notes for which size of the deployment.
func (r *rollout) scale(s *set, replicas int32) bool {
	if s.replicas == replicas {
		return false
	}
	s.replicas = replicas
	r.markScaled(s)
	return true
}

func (r *rollout) markScaled(s *set) {
	surge, _ := r.limits()
	s.annotate(desiredAnnotation, strconv.Itoa(int(r.replicas())))
	s.annotate(maxAnnotation, strconv.Itoa(int(r.replicas()+surge)))
}

// isScaling says whether the deployment's replicas have changed since its active
// sets were scaled.
func (r *rollout) isScaling() bool {
	for _, s := range r.all() {
		if desired, err := strconv.Atoi(s.annotations[desiredAnnotation]); s.replicas > 0 && err == nil && int32(desired) != r.replicas() {
			return true
		}
	}
	return false
}

// resize fits the sets to changed replicas without rolling anything: the only active
// set takes all, a finished rollout loses its old sets, and in the middle of one the
// active sets share the difference in proportion to their sizes.
func (r *rollout) resize() {
	active := slices.DeleteFunc(r.all(), func(s *set) bool { return s.replicas == 0 })
	switch {
	case len(r.all()) == 0:
	case len(active) <= 1:
		s := r.newestOf(active)
		r.scale(s, r.replicas())
		r.markScaled(s)
	case r.saturated():
		r.scaleDownAll()
		r.markScaled(r.new)
	case r.d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType:
		r.share(active)
	default:
		for _, s := range active {
			r.markScaled(s)
		}
	}
}

func (r *rollout) newestOf(active []*set) *set {
	switch {
	case len(active) == 1:
		return active[0]
	case r.new != nil:
		return r.new
	}
	return r.old[len(r.old)-1]
}

// saturated says whether the new set has all the pods that the deployment wants.
func (r *rollout) saturated() bool {
	return r.new != nil && r.new.annotations[desiredAnnotation] == strconv.Itoa(int(r.replicas())) &&
		r.new.replicas == r.replicas() && r.new.Status.AvailableReplicas == r.replicas()
}

// share distributes the difference between allowed and present pods.
func (r *rollout) share(active []*set) {
	allowed := int32(0)
	if r.replicas() > 0 {
		surge, _ := r.limits()
		allowed = r.replicas() + surge
	}
	diff := allowed - total(active)
	// The largest first; among equals the newest gains first and the oldest loses first.
	slices.SortStableFunc(active, func(a, b *set) int {
		age := b.CreationTimestamp.Compare(a.CreationTimestamp.Time)
		if diff < 0 {
			age = -age
		}
		return cmp.Or(cmp.Compare(b.replicas, a.replicas), age)
	})
	sizes, given := make([]int32, len(active)), int32(0)
	for i, s := range active {
		part := r.part(s, allowed)
		if diff > 0 {
			part = max(min(part, diff-given), 0)
		} else {
			part = min(max(part, diff-given), 0)
		}
		given += part
		sizes[i] = s.replicas + part
	}
	sizes[0] = max(sizes[0]+diff-given, 0) // what rounding has left over
	for i, s := range active {
		r.scale(s, sizes[i])
		r.markScaled(s)
	}
}

// part is how much a set would change if all kept their proportions.
func (r *rollout) part(s *set, allowed int32) int32 {
	if r.replicas() == 0 {
		return -s.replicas
	}
	before, err := strconv.Atoi(s.annotations[maxAnnotation])
	if err != nil || before <= 0 {
		before = int(r.d.Status.Replicas)
	}
	if before <= 0 {
		return 0
	}
	return int32(math.Round(float64(s.replicas)*float64(allowed)/float64(before))) - s.replicas
}
