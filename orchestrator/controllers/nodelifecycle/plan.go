package nodelifecycle

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Snapshot is all that a plan depends on.
type Snapshot struct {
	Node  *corev1.Node
	Heard time.Time     // when the agent last gave a sign of life, by our clock
	Grace time.Duration // for which its silence is borne
	Alone bool          // no node is heard of: rather we than they are cut off
}

// Plan says what a node should be changed to. The zero Plan means converged, but for
// RetryAfter.
type Plan struct {
	Conditions []corev1.NodeCondition // nil: as they are
	Taint      bool                   // set Taints, which may be none
	Taints     []corev1.Taint
	Silent     bool // its pods cannot be said to be ready
	RetryAfter time.Duration
}

// rules turn conditions into taints.
// https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#taint-nodes-by-condition
var rules = []struct {
	condition corev1.NodeConditionType
	status    corev1.ConditionStatus
	key       string
	evicts    bool // NoExecute beside NoSchedule
}{
	{corev1.NodeReady, corev1.ConditionFalse, corev1.TaintNodeNotReady, true},
	{corev1.NodeReady, corev1.ConditionUnknown, corev1.TaintNodeUnreachable, true},
	{corev1.NodeMemoryPressure, corev1.ConditionTrue, corev1.TaintNodeMemoryPressure, false},
	{corev1.NodeDiskPressure, corev1.ConditionTrue, corev1.TaintNodeDiskPressure, false},
	{corev1.NodePIDPressure, corev1.ConditionTrue, corev1.TaintNodePIDPressure, false},
	{corev1.NodeNetworkUnavailable, corev1.ConditionTrue, corev1.TaintNodeNetworkUnavailable, false},
}

// compute makes the plan.
func compute(s Snapshot, now time.Time) Plan {
	var p Plan
	conditions := s.Node.Status.Conditions
	left := s.Heard.Add(s.Grace).Sub(now)
	if left <= 0 {
		p.Silent = true
		if conditions = unknown(s.Node, now); !equality.Semantic.DeepEqual(conditions, s.Node.Status.Conditions) {
			p.Conditions = conditions
		}
	} else {
		p.RetryAfter = left
	}
	p.Taints = taints(s, conditions, now)
	if p.Taint = !equality.Semantic.DeepEqual(p.Taints, s.Node.Spec.Taints); !p.Taint {
		p.Taints = nil
	}
	return p
}

// unknown returns a node's conditions when nothing is heard of it.
func unknown(node *corev1.Node, now time.Time) []corev1.NodeCondition {
	out := slices.Clone(node.Status.Conditions)
	for _, t := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		c := corev1.NodeCondition{
			Type: t, Status: corev1.ConditionUnknown, LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
			Reason: "NodeStatusNeverUpdated", Message: "Kubelet never posted node status.", LastHeartbeatTime: node.CreationTimestamp,
		}
		i := slices.IndexFunc(out, func(c corev1.NodeCondition) bool { return c.Type == t })
		if i < 0 {
			out = append(out, c)
			continue
		}
		if out[i].Status != corev1.ConditionUnknown {
			c.Reason, c.Message, c.LastHeartbeatTime = "NodeStatusUnknown", "Kubelet stopped posting node status.", out[i].LastHeartbeatTime
			out[i] = c
		}
	}
	return out
}

// taints returns the node's taints with those that are ours as they should be. Those
// of others keep their places.
func taints(s Snapshot, conditions []corev1.NodeCondition, now time.Time) []corev1.Taint {
	want := wanted(s, conditions)
	var out []corev1.Taint
	for _, t := range s.Node.Spec.Taints {
		i := slices.IndexFunc(want, func(w corev1.Taint) bool { return w.Key == t.Key && w.Effect == t.Effect })
		switch {
		case i >= 0:
			out = append(out, t)
			want = slices.Delete(want, i, i+1)
		case !ours(t):
			out = append(out, t)
		}
	}
	for _, t := range want {
		if t.Effect == corev1.TaintEffectNoExecute {
			at := metav1.NewTime(now.Truncate(time.Second))
			t.TimeAdded = &at
		}
		out = append(out, t)
	}
	return out
}

func wanted(s Snapshot, conditions []corev1.NodeCondition) []corev1.Taint {
	var out []corev1.Taint
	for _, r := range rules {
		i := slices.IndexFunc(conditions, func(c corev1.NodeCondition) bool { return c.Type == r.condition && c.Status == r.status })
		if i < 0 {
			continue
		}
		out = append(out, corev1.Taint{Key: r.key, Effect: corev1.TaintEffectNoSchedule})
		if r.evicts && !s.Alone {
			out = append(out, corev1.Taint{Key: r.key, Effect: corev1.TaintEffectNoExecute})
		}
	}
	if s.Node.Spec.Unschedulable {
		out = append(out, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	return out
}

// ours says whether this controller manages a taint. A node that has not reported yet
// keeps the not-ready taint that it was registered with.
func ours(t corev1.Taint) bool {
	if t.Key == corev1.TaintNodeUnschedulable {
		return t.Effect == corev1.TaintEffectNoSchedule
	}
	for _, r := range rules {
		if t.Key == r.key && (t.Effect == corev1.TaintEffectNoSchedule || r.evicts && t.Effect == corev1.TaintEffectNoExecute) {
			return true
		}
	}
	return false
}

// String prints one line an action.
func (p Plan) String() string {
	var b strings.Builder
	for _, c := range p.Conditions {
		fmt.Fprintf(&b, "condition %s=%s %s\n", c.Type, c.Status, c.Reason)
	}
	if p.Taint {
		b.WriteString("taints")
		for _, t := range p.Taints {
			fmt.Fprintf(&b, " %s:%s", t.Key, t.Effect)
		}
		b.WriteByte('\n')
	}
	if p.Silent {
		b.WriteString("pods not ready\n")
	}
	return b.String()
}
