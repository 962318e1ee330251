package scheduler

import (
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/scheduler/queue"
	"github.com/xebec-mesh/xebec/orchestrator/scheduler/snapshot"
)

// observe brings one change into the snapshot and the queue.
func (s *Scheduler) observe(e client.Event) {
	switch o := e.Object.(type) {
	case *corev1.Namespace:
		if e.Type == client.Deleted {
			s.snapshot.SetNamespace(o.Name, nil)
			return
		}
		s.snapshot.SetNamespace(o.Name, labels.Set(o.Labels))
		if old, ok := e.Old.(*corev1.Namespace); ok && !maps.Equal(old.Labels, o.Labels) {
			s.changed(nil) // terms may select namespaces
		}
	case *corev1.Node:
		if e.Type == client.Deleted {
			s.snapshot.RemoveNode(o.Name)
			s.changed(nil)
			return
		}
		old, _ := e.Old.(*corev1.Node)
		node := s.snapshot.SetNode(o)
		if old == nil || matters(old, o) {
			s.changed(node)
		}
	case *corev1.Pod:
		s.observePod(e, o)
	}
}

// matters says whether a change to a node may let a pod fit; heartbeats do not.
func matters(a, b *corev1.Node) bool {
	return a.Spec.Unschedulable != b.Spec.Unschedulable ||
		!equality.Semantic.DeepEqual(a.Spec.Taints, b.Spec.Taints) ||
		!maps.Equal(a.Labels, b.Labels) ||
		!equality.Semantic.DeepEqual(a.Status.Allocatable, b.Status.Allocatable)
}

func (s *Scheduler) observePod(e client.Event, pod *corev1.Pod) {
	key := snapshot.Key(pod)
	switch {
	case e.Type == client.Deleted || ended(pod):
		s.queue.Delete(key)
		delete(s.assumed, key)
		if gone := s.snapshot.RemovePod(key); gone != nil {
			s.changed(s.snapshot.Node(gone.Spec.NodeName))
		}
	case pod.Spec.NodeName != "":
		s.queue.Delete(key)
		s.running(key, pod)
	case s.assumed[key] != nil && s.assumed[key].UID == pod.UID:
		// An event from before the binding.
	case pod.DeletionTimestamp != nil || !s.names[pod.Spec.SchedulerName] || len(pod.Spec.SchedulingGates) > 0:
		s.queue.Delete(key)
	default:
		old, _ := e.Old.(*corev1.Pod)
		changed := old == nil || old.Generation != pod.Generation || !maps.Equal(old.Labels, pod.Labels)
		s.queue.Add(snapshot.NewPod(pod), changed, time.Now())
	}
}

// running takes in a pod that has a node. Most of its events are of its status,
// which changes no sum.
func (s *Scheduler) running(key string, pod *corev1.Pod) {
	_, wasAssumed := s.assumed[key]
	delete(s.assumed, key)
	known := s.snapshot.Pod(key)
	if known != nil && known.UID == pod.UID && known.Spec.NodeName == pod.Spec.NodeName &&
		known.Generation == pod.Generation && maps.Equal(known.Labels, pod.Labels) {
		known.Pod = pod
		return
	}
	s.snapshot.SetPod(snapshot.NewPod(pod))
	if known != nil || !wasAssumed {
		s.changed(s.snapshot.Node(pod.Spec.NodeName))
	}
}

func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// changed lets those parked pods be tried again that a change on a node, which
// may be nil, may help: the node suits them now, or what refused them looks at
// more than one node.
func (s *Scheduler) changed(node *snapshot.Node) {
	s.queue.Move(time.Now(), func(i *queue.Item) bool {
		return len(i.Rejected) == 0 || s.cycle.global(i.Rejected) ||
			(node != nil && s.cycle.fits(i.Pod, node, s.snapshot))
	})
}
