package plugins

import (
	"github.com/xebec-mesh/xebec/orchestrator/scheduler/snapshot"
)

// nodeResourcesFit keeps pods off nodes that lack what they ask for.
var nodeResourcesFit = Filter{Name: "NodeResourcesFit", Prepare: func(p *snapshot.Pod, _ *snapshot.Snapshot) Check {
	r := &p.Requests
	return func(n *snapshot.Node) string {
		a, used := &n.Allocatable, &n.Requested
		switch {
		case used.Pods+1 > a.Pods:
			return "Too many pods"
		case r.MilliCPU > 0 && used.MilliCPU+r.MilliCPU > a.MilliCPU:
			return "Insufficient cpu"
		case r.Memory > 0 && used.Memory+r.Memory > a.Memory:
			return "Insufficient memory"
		case r.Storage > 0 && used.Storage+r.Storage > a.Storage:
			return "Insufficient ephemeral-storage"
		}
		for name, v := range r.Scalar {
			if v > 0 && used.Scalar[name]+v > a.Scalar[name] {
				return "Insufficient " + string(name)
			}
		}
		return ""
	}
}}

// nodeResourcesScore prefers nodes with more CPU and memory left (LeastAllocated).
var nodeResourcesScore = Score{Name: "NodeResourcesFit", Weight: 1, Prepare: func(p *snapshot.Pod, _ *snapshot.Snapshot) *Rating {
	return &Rating{Rate: func(n *snapshot.Node) int64 {
		return (left(n.NonZero.MilliCPU+p.NonZero.MilliCPU, n.Allocatable.MilliCPU) +
			left(n.NonZero.Memory+p.NonZero.Memory, n.Allocatable.Memory)) / 2
	}}
}}

func left(used, all int64) int64 {
	if all == 0 || used > all {
		return 0
	}
	return (all - used) * MaxScore / all
}

// balancedAllocation prefers nodes where CPU and memory are used in like shares.
// A pod that asks for neither is not rated, as in Kubernetes.
var balancedAllocation = Score{Name: "NodeResourcesBalancedAllocation", Weight: 1, Prepare: func(p *snapshot.Pod, _ *snapshot.Snapshot) *Rating {
	if p.Requests.MilliCPU == 0 && p.Requests.Memory == 0 {
		return nil
	}
	return &Rating{Rate: func(n *snapshot.Node) int64 {
		cpu := share(n.Requested.MilliCPU+p.Requests.MilliCPU, n.Allocatable.MilliCPU)
		memory := share(n.Requested.Memory+p.Requests.Memory, n.Allocatable.Memory)
		// With two values the standard deviation is half of their distance.
		return int64((1 - max(cpu-memory, memory-cpu)/2) * MaxScore)
	}}
}}

func share(used, all int64) float64 {
	if all == 0 {
		return 1
	}
	return min(float64(used)/float64(all), 1)
}
