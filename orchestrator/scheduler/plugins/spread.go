package plugins

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/xebec-mesh/xebec/orchestrator/scheduler/snapshot"
)

// constraint is a topology spread constraint with its domains counted.
type constraint struct {
	key      string
	maxSkew  int
	self     int            // 1 if the pod counts itself
	counts   map[string]int // matching pods by the value of key
	smallest int
}

// podTopologySpread holds the constraints that must hold (DoNotSchedule).
var podTopologySpread = Filter{Name: "PodTopologySpread", Global: true, Prepare: func(p *snapshot.Pod, s *snapshot.Snapshot) Check {
	constraints := count(p, s, corev1.DoNotSchedule)
	if len(constraints) == 0 {
		return nil
	}
	return func(n *snapshot.Node) string {
		for i := range constraints {
			c := &constraints[i]
			value, ok := n.Labels[c.key]
			if !ok {
				return "node(s) didn't match pod topology spread constraints (missing required label)"
			}
			if c.counts[value]+c.self-c.smallest > c.maxSkew {
				return "node(s) didn't match pod topology spread constraints"
			}
		}
		return ""
	}
}}

// podTopologySpreadScore follows the constraints that should hold
// (ScheduleAnyway). A pod without any is kept apart from its controller's others.
var podTopologySpreadScore = Score{Name: "PodTopologySpread", Weight: 2, Prepare: func(p *snapshot.Pod, s *snapshot.Snapshot) *Rating {
	reverse := func(values []int64) { scale(values, true) }
	constraints := count(p, s, corev1.ScheduleAnyway)
	if len(constraints) > 0 {
		return &Rating{Normalize: reverse, Rate: func(n *snapshot.Node) int64 {
			var sum float64
			for i := range constraints {
				c := &constraints[i]
				if value, ok := n.Labels[c.key]; ok {
					sum += float64(c.counts[value])*math.Log(float64(len(c.counts)+2)) + float64(c.maxSkew-1)
				}
			}
			return int64(math.Round(sum))
		}}
	}
	if len(p.Spec.TopologySpreadConstraints) > 0 {
		return nil
	}
	siblings := s.Siblings(p)
	if len(siblings) == 0 {
		return nil
	}
	return &Rating{Normalize: reverse, Rate: func(n *snapshot.Node) int64 { return int64(siblings[n.Name]) }}
}}

// count prepares the constraints of one kind.
func count(p *snapshot.Pod, s *snapshot.Snapshot, kind corev1.UnsatisfiableConstraintAction) []constraint {
	var out []constraint
	for i := range p.Spec.TopologySpreadConstraints {
		c := &p.Spec.TopologySpreadConstraints[i]
		if c.WhenUnsatisfiable != kind {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(c.LabelSelector)
		if err != nil {
			selector = labels.Nothing()
		}
		selector = snapshot.WithLabelKeys(selector, p.Labels, c.MatchLabelKeys, nil)
		out = append(out, counted(p, s, c, selector))
	}
	return out
}

func counted(p *snapshot.Pod, s *snapshot.Snapshot, c *corev1.TopologySpreadConstraint, selector labels.Selector) constraint {
	out := constraint{key: c.TopologyKey, maxSkew: int(c.MaxSkew), counts: map[string]int{}}
	if selector.Matches(labels.Set(p.Labels)) {
		out.self = 1
	}
	eligible := eligibility(p, c)
	for _, n := range s.Nodes {
		if value, ok := n.Labels[c.TopologyKey]; ok && eligible(n) {
			out.counts[value] += 0
		}
	}
	for _, other := range s.InNamespace(p.Namespace) {
		if other.DeletionTimestamp != nil || !selector.Matches(labels.Set(other.Labels)) {
			continue
		}
		if n := s.Node(other.Spec.NodeName); n != nil && eligible(n) {
			if value, ok := n.Labels[c.TopologyKey]; ok {
				out.counts[value]++
			}
		}
	}
	first := true
	for _, v := range out.counts {
		if first || v < out.smallest {
			out.smallest, first = v, false
		}
	}
	if c.MinDomains != nil && len(out.counts) < int(*c.MinDomains) {
		out.smallest = 0
	}
	return out
}

// eligibility says which nodes a constraint counts, by its inclusion policies.
func eligibility(p *snapshot.Pod, c *corev1.TopologySpreadConstraint) func(*snapshot.Node) bool {
	honorAffinity := c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor
	honorTaints := c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor
	required := nodeaffinity.GetRequiredNodeAffinity(p.Pod)
	return func(n *snapshot.Node) bool {
		if honorAffinity {
			if ok, err := required.Match(n.Node); err != nil || !ok {
				return false
			}
		}
		if honorTaints {
			for i := range n.Spec.Taints {
				t := &n.Spec.Taints[i]
				if t.Effect != corev1.TaintEffectPreferNoSchedule && !tolerates(p.Spec.Tolerations, t) {
					return false
				}
			}
		}
		return true
	}
}
