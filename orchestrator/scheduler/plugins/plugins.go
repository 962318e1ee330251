// Package plugins are the rules of placement, named as in Kubernetes.
//
//	in:   a pod, the snapshot
//	out:  for each node, a reason why it does not suit, or a score
//
// A plugin first looks at the pod, once in a cycle, and returns what to ask of
// each node, or nil when the pod gives it nothing to do; so a plain pod pays for
// few rules. Reasons are the texts that Kubernetes users find in events.
package plugins

import (
	"github.com/xebec-mesh/xebec/orchestrator/scheduler/snapshot"
)

// Check says why a node does not suit; "" means that it does.
type Check func(*snapshot.Node) (reason string)

// Filter is a rule that a node must satisfy.
type Filter struct {
	Name    string
	Prepare func(*snapshot.Pod, *snapshot.Snapshot) Check
	// Global says that the answer for one node depends on pods on others, so that
	// a change anywhere may let a pod that was refused fit.
	Global bool
}

// Score rates the nodes that suit: Rate gives a number for one, Normalize brings
// all into 0..100 where Rate does not do so by itself.
type Score struct {
	Name    string
	Weight  int64
	Prepare func(*snapshot.Pod, *snapshot.Snapshot) *Rating
}

// Rating is a Score made ready for one pod.
type Rating struct {
	Rate      func(*snapshot.Node) int64
	Normalize func([]int64) // nil: Rate is within 0..100
}

// MaxScore is the best score of one plugin, before its weight.
const MaxScore = 100

// Filters are the rules of the default profile, the cheapest first.
func Filters() []Filter {
	return []Filter{
		nodeUnschedulable, nodeName, nodeResourcesFit, taintToleration, nodeAffinity, nodePorts,
		podTopologySpread, interPodAffinity,
	}
}

// Scores are the preferences of the default profile, with Kubernetes' weights.
func Scores() []Score {
	return []Score{
		taintTolerationScore, nodeAffinityScore, podTopologySpreadScore, interPodAffinityScore,
		nodeResourcesScore, balancedAllocation, imageLocality,
	}
}

// scale brings values into 0..100 by the greatest; reverse makes small ones good.
func scale(values []int64, reverse bool) {
	var most int64
	for _, v := range values {
		most = max(most, v)
	}
	for i, v := range values {
		switch {
		case most == 0 && reverse:
			values[i] = MaxScore
		case most == 0:
			values[i] = 0
		case reverse:
			values[i] = MaxScore - v*MaxScore/most
		default:
			values[i] = v * MaxScore / most
		}
	}
}
