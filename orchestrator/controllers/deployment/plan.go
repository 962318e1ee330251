package deployment

import (
	"cmp"
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

// Snapshot is all that a plan depends on.
type Snapshot struct {
	Deployment *appsv1.Deployment

	// Sets are the replica sets whose controller is Deployment, and those of its
	// namespace that have none.
	Sets []*appsv1.ReplicaSet

	// Pods are those of Sets. Only the strategy Recreate reads them.
	Pods []*corev1.Pod

	// Failure is why the new replica set could not be created the last time, or "".
	Failure string
}

// Plan says what would bring the deployment one step further. The zero Plan means
// that nothing is to be done until something changes.
type Plan struct {
	Adopt, Release, Delete []pods.Ref
	Create                 *appsv1.ReplicaSet
	Update                 []Change
	Revision               string                   // the deployment's revision annotation; "": as it is
	Status                 *appsv1.DeploymentStatus // nil: as it is
	RetryAfter             time.Duration            // 0: the next event is enough
}

// Change is what one replica set should become.
type Change struct {
	Set         *appsv1.ReplicaSet // as it is
	Replicas    int32
	Annotations map[string]string
	MinReady    int32 // seconds
}

// compute makes the plan. The order of Sets and Pods does not matter.
func compute(s Snapshot, now time.Time) Plan {
	selector, err := metav1.LabelSelectorAsSelector(s.Deployment.Spec.Selector)
	if err != nil || selector.Empty() { // validation admits neither; never claim every set
		return Plan{}
	}
	r := &rollout{d: s.Deployment, now: now, conditions: slices.Clone(s.Deployment.Status.Conditions)}
	r.split(r.claim(s.Sets, selector))
	switch {
	case r.d.DeletionTimestamp != nil:
		r.status(false)
		return r.plan
	case r.d.Spec.Paused || r.isScaling():
		r.pausedCondition()
		r.syncNew()
		r.resize()
		if r.d.Spec.Paused {
			r.cleanUp()
		}
	default:
		r.pausedCondition()
		r.roll(s)
	}
	r.status(!r.d.Spec.Paused)
	r.changes()
	return r.plan
}

// roll takes one step of the strategy.
func (r *rollout) roll(s Snapshot) {
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		r.syncNew()
		if r.scaleDownAll() || r.oldPodsRemain(s.Pods) {
			return
		}
		r.ensureNew(s.Failure)
		r.growNew()
	} else {
		r.syncNew()
		r.ensureNew(s.Failure)
		if !r.growNew() {
			r.shrinkOld()
		}
	}
	if r.complete(r.counts()) {
		r.cleanUp()
	}
}

// rollout is one computation: the deployment's sets as they will be.
type rollout struct {
	d          *appsv1.Deployment
	now        time.Time
	new        *set   // nil: not created yet
	old        []*set // oldest first
	conditions []appsv1.DeploymentCondition
	plan       Plan
}

// set is a replica set with what the plan makes of it.
type set struct {
	*appsv1.ReplicaSet
	replicas    int32 // wanted by the plan
	annotations map[string]string
	minReady    int32
}

// available counts the set's available pods, of those that it is to keep: a status
// that has not caught up with a scale-down must not pass for spare pods.
func (s *set) available() int32 { return min(s.replicas, s.Status.AvailableReplicas) }

func (s *set) annotate(key, value string) {
	if s.annotations[key] == value {
		return
	}
	next := map[string]string{}
	for k, v := range s.annotations {
		next[k] = v
	}
	next[key] = value
	s.annotations = next
}

// claim sorts the sets into kept, adopted and released, oldest first.
func (r *rollout) claim(all []*appsv1.ReplicaSet, selector labels.Selector) []*set {
	deleting := r.d.DeletionTimestamp != nil
	var mine []*set
	for _, rs := range all {
		ref := metav1.GetControllerOfNoCopy(rs)
		matches := selector.Matches(labels.Set(rs.Labels))
		switch {
		case ref == nil && matches && !deleting && rs.DeletionTimestamp == nil:
			r.plan.Adopt = append(r.plan.Adopt, pods.RefOf(rs))
		case ref == nil || ref.UID != r.d.UID:
			continue
		case !matches && !deleting:
			r.plan.Release = append(r.plan.Release, pods.RefOf(rs))
			continue
		}
		mine = append(mine, &set{ReplicaSet: rs, replicas: deref(rs.Spec.Replicas, 1), annotations: rs.Annotations, minReady: rs.Spec.MinReadySeconds})
	}
	slices.SortFunc(mine, func(a, b *set) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
	byName := func(a, b pods.Ref) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(r.plan.Adopt, byName)
	slices.SortFunc(r.plan.Release, byName)
	return mine
}

// split finds the set that has the deployment's template, the oldest if there are
// several.
func (r *rollout) split(sets []*set) {
	for _, s := range sets {
		if r.new == nil && s.DeletionTimestamp == nil && sameTemplate(&s.Spec.Template, &r.d.Spec.Template) {
			r.new = s
		} else {
			r.old = append(r.old, s)
		}
	}
}

// all returns every set, oldest first but the new one last, in a slice of its own.
func (r *rollout) all() []*set {
	out := slices.Clone(r.old)
	if r.new != nil {
		out = append(out, r.new)
	}
	return out
}

// changes lists the sets that the plan changes.
func (r *rollout) changes() {
	for _, s := range r.all() {
		if s.ReplicaSet.UID == "" { // it is being created
			continue
		}
		if s.replicas == deref(s.Spec.Replicas, 1) && s.minReady == s.Spec.MinReadySeconds && equality.Semantic.DeepEqual(s.annotations, s.Annotations) {
			continue
		}
		r.plan.Update = append(r.plan.Update, Change{s.ReplicaSet, s.replicas, s.annotations, s.minReady})
	}
}

func deref[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// String prints one line an action.
func (p Plan) String() string {
	var b strings.Builder
	for _, list := range []struct {
		verb string
		refs []pods.Ref
	}{{"adopt", p.Adopt}, {"release", p.Release}, {"delete", p.Delete}} {
		for _, ref := range list.refs {
			fmt.Fprintf(&b, "%s set %s\n", list.verb, ref.NamespacedName)
		}
	}
	if p.Create != nil {
		fmt.Fprintf(&b, "create set %s/%s replicas=%d\n", p.Create.Namespace, p.Create.Name, *p.Create.Spec.Replicas)
	}
	for _, c := range p.Update {
		fmt.Fprintf(&b, "update set %s/%s replicas=%d→%d revision=%s\n", c.Set.Namespace, c.Set.Name, deref(c.Set.Spec.Replicas, 1), c.Replicas, c.Annotations[revisionAnnotation])
	}
	if p.Revision != "" {
		fmt.Fprintf(&b, "revision %s\n", p.Revision)
	}
	if s := p.Status; s != nil {
		fmt.Fprintf(&b, "status replicas=%d updated=%d ready=%d available=%d generation=%d", s.Replicas, s.UpdatedReplicas, s.ReadyReplicas, s.AvailableReplicas, s.ObservedGeneration)
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
