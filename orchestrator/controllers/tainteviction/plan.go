package tainteviction

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
)

// Plan says whether a pod has to leave its node. The zero Plan means that it may stay.
type Plan struct {
	Evict      bool
	RetryAfter time.Duration // until it has to leave; 0: never
}

// compute makes the plan: a pod leaves when a taint NoExecute is not tolerated, or
// has been tolerated for as long as the pod's toleration says. since is from when a
// taint counts that does not say when it was added.
func compute(pod *corev1.Pod, node *corev1.Node, since, now time.Time) Plan {
	if node == nil || pod.DeletionTimestamp != nil || pods.Finished(pod) {
		return Plan{}
	}
	var p Plan
	for i := range node.Spec.Taints {
		t := &node.Spec.Taints[i]
		if t.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		tolerated, seconds := toleration(pod, t)
		if !tolerated {
			return Plan{Evict: true}
		}
		if seconds < 0 {
			continue
		}
		added := since
		if t.TimeAdded != nil {
			added = t.TimeAdded.Time
		}
		left := added.Add(time.Duration(seconds) * time.Second).Sub(now)
		if left <= 0 {
			return Plan{Evict: true}
		}
		if p.RetryAfter == 0 || left < p.RetryAfter {
			p.RetryAfter = left
		}
	}
	return p
}

// toleration says whether a pod tolerates a taint, and for how many seconds at least;
// -1 is for ever.
func toleration(pod *corev1.Pod, t *corev1.Taint) (tolerated bool, seconds int64) {
	seconds = -1
	for i := range pod.Spec.Tolerations {
		tol := &pod.Spec.Tolerations[i]
		if !tol.ToleratesTaint(klog.Background(), t, false) {
			continue
		}
		tolerated = true
		if s := tol.TolerationSeconds; s != nil && (seconds < 0 || *s < seconds) {
			seconds = max(*s, 0)
		}
	}
	return tolerated, seconds
}

// String prints one line an action.
func (p Plan) String() string {
	switch {
	case p.Evict:
		return "evict\n"
	case p.RetryAfter > 0:
		return fmt.Sprintf("evict after %s\n", p.RetryAfter)
	}
	return ""
}
