package plugins

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	schedulinghelpers "k8s.io/component-helpers/scheduling/corev1"

	"github.com/xebec-mesh/xebec/orchestrator/scheduler/snapshot"
)

// nodeName keeps a pod that names its node off all others.
var nodeName = Filter{Name: "NodeName", Prepare: func(p *snapshot.Pod, _ *snapshot.Snapshot) Check {
	want := p.Spec.NodeName
	if want == "" {
		return nil
	}
	return func(n *snapshot.Node) string {
		if n.Name != want {
			return "node(s) didn't match the requested node name"
		}
		return ""
	}
}}

// nodeUnschedulable keeps pods off cordoned nodes, unless they tolerate that.
var nodeUnschedulable = Filter{Name: "NodeUnschedulable", Prepare: func(p *snapshot.Pod, _ *snapshot.Snapshot) Check {
	taint := corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}
	if tolerates(p.Spec.Tolerations, &taint) {
		return nil
	}
	return func(n *snapshot.Node) string {
		if n.Spec.Unschedulable {
			return "node(s) were unschedulable"
		}
		return ""
	}
}}

// taintToleration keeps pods off nodes whose taints they do not tolerate.
var taintToleration = Filter{Name: "TaintToleration", Prepare: func(p *snapshot.Pod, _ *snapshot.Snapshot) Check {
	tolerations := p.Spec.Tolerations
	return func(n *snapshot.Node) string {
		for i := range n.Spec.Taints {
			t := &n.Spec.Taints[i]
			if t.Effect != corev1.TaintEffectPreferNoSchedule && !tolerates(tolerations, t) {
				return fmt.Sprintf("node(s) had untolerated taint {%s: %s}", t.Key, t.Value)
			}
		}
		return ""
	}
}}

// taintTolerationScore prefers nodes with few PreferNoSchedule taints that the
// pod does not tolerate.
var taintTolerationScore = Score{Name: "TaintToleration", Weight: 3, Prepare: func(p *snapshot.Pod, s *snapshot.Snapshot) *Rating {
	return &Rating{
		Rate: func(n *snapshot.Node) int64 {
			var count int64
			for i := range n.Spec.Taints {
				t := &n.Spec.Taints[i]
				if t.Effect == corev1.TaintEffectPreferNoSchedule && !tolerates(p.Spec.Tolerations, t) {
					count++
				}
			}
			return count
		},
		Normalize: func(values []int64) { scale(values, true) },
	}
}}

func tolerates(tolerations []corev1.Toleration, taint *corev1.Taint) bool {
	return schedulinghelpers.TolerationsTolerateTaint(klog.Background(), tolerations, taint, true)
}

// nodeAffinity holds nodeSelector and required node affinity.
var nodeAffinity = Filter{Name: "NodeAffinity", Prepare: func(p *snapshot.Pod, _ *snapshot.Snapshot) Check {
	a := p.Spec.Affinity
	if len(p.Spec.NodeSelector) == 0 && (a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil) {
		return nil
	}
	required := nodeaffinity.GetRequiredNodeAffinity(p.Pod)
	return func(n *snapshot.Node) string {
		if ok, err := required.Match(n.Node); err != nil || !ok {
			return "node(s) didn't match Pod's node affinity/selector"
		}
		return ""
	}
}}

// nodeAffinityScore follows preferred node affinity.
var nodeAffinityScore = Score{Name: "NodeAffinity", Weight: 2, Prepare: func(p *snapshot.Pod, _ *snapshot.Snapshot) *Rating {
	a := p.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || len(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) == 0 {
		return nil
	}
	terms, err := nodeaffinity.NewPreferredSchedulingTerms(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	if err != nil {
		return nil
	}
	return &Rating{
		Rate:      func(n *snapshot.Node) int64 { return terms.Score(n.Node) },
		Normalize: func(values []int64) { scale(values, false) },
	}
}}

// nodePorts keeps pods off nodes where a host port of theirs is taken.
var nodePorts = Filter{Name: "NodePorts", Prepare: func(p *snapshot.Pod, _ *snapshot.Snapshot) Check {
	if len(p.Ports) == 0 {
		return nil
	}
	return func(n *snapshot.Node) string {
		for _, port := range p.Ports {
			if port.Conflicts(n.Ports) {
				return "node(s) didn't have free ports for the requested pod ports"
			}
		}
		return ""
	}
}}

// imageLocality prefers nodes that have the pod's images, the more so the larger
// and the rarer these are.
var imageLocality = Score{Name: "ImageLocality", Weight: 1, Prepare: func(p *snapshot.Pod, s *snapshot.Snapshot) *Rating {
	const least, most = 23 << 20, 1000 << 20 // bytes a container that begin and cease to matter
	known := false
	for i := range p.Spec.Containers {
		known = known || s.ImageNodes(p.Spec.Containers[i].Image) > 0
	}
	if !known || len(s.Nodes) < 2 {
		return nil
	}
	containers := int64(len(p.Spec.Containers) + len(p.Spec.InitContainers))
	return &Rating{Rate: func(n *snapshot.Node) int64 {
		var sum int64
		for i := range p.Spec.Containers {
			name := p.Spec.Containers[i].Image
			sum += n.Images[name] * int64(s.ImageNodes(name)) / int64(len(s.Nodes))
		}
		top := int64(most) * containers
		return MaxScore * (min(max(sum, least), top) - least) / (top - least)
	}}
}}
