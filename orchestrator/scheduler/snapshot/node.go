// Package snapshot is what the scheduler knows of the cluster: nodes with what
// their pods use, kept up to date by deltas and never copied.
//
//	in:   Nodes, and Pods that have a node, one change at a time
//	out:  Nodes with sums; indexes of the pods that constrain others
//
// It belongs to one goroutine. A pod that was assumed on a node counts as running
// there; the event that confirms it replaces the assumption.
package snapshot

import (
	corev1 "k8s.io/api/core/v1"
)

// Resources are amounts in the scheduler's units: thousandths of a CPU, bytes,
// and counts.
type Resources struct {
	MilliCPU, Memory, Storage, Pods int64
	Scalar                          map[corev1.ResourceName]int64
}

// ResourcesOf converts a list.
func ResourcesOf(list corev1.ResourceList) Resources {
	var r Resources
	for name, q := range list {
		switch name {
		case corev1.ResourceCPU:
			r.MilliCPU = q.MilliValue()
		case corev1.ResourceMemory:
			r.Memory = q.Value()
		case corev1.ResourceEphemeralStorage:
			r.Storage = q.Value()
		case corev1.ResourcePods:
			r.Pods = q.Value()
		default:
			if r.Scalar == nil {
				r.Scalar = map[corev1.ResourceName]int64{}
			}
			r.Scalar[name] = q.Value()
		}
	}
	return r
}

func (r *Resources) add(o *Resources, sign int64) {
	r.MilliCPU += sign * o.MilliCPU
	r.Memory += sign * o.Memory
	r.Storage += sign * o.Storage
	r.Pods += sign * o.Pods
	for name, v := range o.Scalar {
		if r.Scalar == nil {
			r.Scalar = map[corev1.ResourceName]int64{}
		}
		r.Scalar[name] += sign * v
	}
}

// HostPort is a port of the node that a container occupies.
type HostPort struct {
	Protocol corev1.Protocol
	IP       string // 0.0.0.0 is every address
	Port     int32
}

const everyIP = "0.0.0.0"

// Conflicts says whether p cannot be had beside what used counts.
func (p HostPort) Conflicts(used map[HostPort]int) bool {
	if len(used) == 0 {
		return false
	}
	if p.IP != everyIP {
		return used[p] > 0 || used[HostPort{p.Protocol, everyIP, p.Port}] > 0
	}
	for u := range used {
		if u.Protocol == p.Protocol && u.Port == p.Port {
			return true
		}
	}
	return false
}

// Node is a node with the sums over its pods.
type Node struct {
	*corev1.Node
	Allocatable Resources
	Requested   Resources // what pods ask for; Pods counts them
	// NonZero is Requested in CPU and memory, where a pod that asks for nothing
	// counts as a small one: what scores compare.
	NonZero Resources
	Ports   map[HostPort]int
	Pods    map[string]*Pod  // by namespace/name
	Images  map[string]int64 // size by name

	index int // in Snapshot.Nodes
}

func newNode(n *corev1.Node) *Node {
	out := &Node{Pods: map[string]*Pod{}, Ports: map[HostPort]int{}}
	out.set(n)
	return out
}

func (n *Node) set(node *corev1.Node) {
	n.Node = node
	n.Allocatable = ResourcesOf(node.Status.Allocatable)
	n.Images = make(map[string]int64, len(node.Status.Images))
	for _, i := range node.Status.Images {
		for _, name := range i.Names {
			n.Images[name] = i.SizeBytes
		}
	}
}

func (n *Node) count(p *Pod, sign int64) {
	n.Requested.add(&p.Requests, sign)
	n.Requested.Pods += sign
	n.NonZero.MilliCPU += sign * p.NonZero.MilliCPU
	n.NonZero.Memory += sign * p.NonZero.Memory
	for _, port := range p.Ports {
		if n.Ports[port] += int(sign); n.Ports[port] == 0 {
			delete(n.Ports, port)
		}
	}
}
