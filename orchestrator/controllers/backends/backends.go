// Package backends knows which pods each Service selects.
//
//	in:   Services, Pods
//	out:  the pods of a Service; the Services that a pod's change concerns
//
// Invariant: what an event costs depends on the pod's labels and on the Services
// that select it, not on how many Services or pods there are. Only a Service whose
// selector changed costs a look at all pods of its namespace.
package backends

import (
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
)

// bySelector indexes Services by the first pair of their selector.
const bySelector = "first-selector-pair"

// Index is shared by whoever needs it. It holds keys only, no objects.
type Index struct {
	Services client.View[*corev1.Service]
	Pods     client.View[*corev1.Pod]

	mu      sync.Mutex
	members map[types.NamespacedName]*members
}

type members struct {
	selector map[string]string
	pods     sets.Set[types.NamespacedName]
}

// New returns an index over c's informers.
func New(c client.Interface) *Index {
	ix := &Index{
		Services: client.For(c, client.Services).Informer(client.ListOptions{}),
		Pods:     client.For(c, client.Pods).Informer(client.ListOptions{}),
		members:  map[types.NamespacedName]*members{},
	}
	ix.Services.AddIndex(bySelector, func(o client.Object) []string {
		svc := o.(*corev1.Service)
		if len(svc.Spec.Selector) == 0 {
			return nil
		}
		first := slices.Min(slices.Collect(maps.Keys(svc.Spec.Selector)))
		return []string{pair(svc.Namespace, first, svc.Spec.Selector[first])}
	})
	return ix
}

func pair(namespace, key, value string) string {
	return strings.Join([]string{namespace, key, value}, "\x00")
}

// Keys maps a pod's event to the Services that it concerns: those that select it,
// and those that did. Every user of the index must have its pod events pass here.
func (ix *Index) Keys(ev client.Event) []types.NamespacedName {
	pod := ev.Object.(*corev1.Pod)
	old, _ := ev.Old.(*corev1.Pod)
	if old != nil && !concerns(old, pod) {
		return nil
	}
	now := ix.selecting(pod)
	if ev.Type == client.Deleted {
		ix.move(client.Key(pod), now, nil)
		return now
	}
	if old == nil || maps.Equal(old.Labels, pod.Labels) {
		ix.move(client.Key(pod), nil, now)
		return now
	}
	before := ix.selecting(old)
	ix.move(client.Key(pod), before, now)
	for _, key := range before {
		if !slices.Contains(now, key) {
			now = append(now, key)
		}
	}
	return now
}

// concerns says whether a change of a pod can change anybody's endpoints.
func concerns(old, pod *corev1.Pod) bool {
	return pods.Ready(old) != pods.Ready(pod) ||
		old.Status.Phase != pod.Status.Phase ||
		(old.DeletionTimestamp == nil) != (pod.DeletionTimestamp == nil) ||
		old.Spec.NodeName != pod.Spec.NodeName ||
		old.UID != pod.UID ||
		!slices.Equal(old.Status.PodIPs, pod.Status.PodIPs) || old.Status.PodIP != pod.Status.PodIP ||
		!maps.Equal(old.Labels, pod.Labels)
}

// selecting returns the Services whose selector matches a pod.
func (ix *Index) selecting(pod *corev1.Pod) []types.NamespacedName {
	var keys []types.NamespacedName
	for k, v := range pod.Labels {
		for _, svc := range ix.Services.ByIndex(bySelector, pair(pod.Namespace, k, v)) {
			if labels.SelectorFromSet(svc.Spec.Selector).Matches(labels.Set(pod.Labels)) {
				keys = append(keys, client.Key(svc))
			}
		}
	}
	return keys
}

func (ix *Index) move(pod types.NamespacedName, from, to []types.NamespacedName) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	for _, key := range from {
		if m := ix.members[key]; m != nil {
			m.pods.Delete(pod)
		}
	}
	for _, key := range to {
		if m := ix.members[key]; m != nil {
			m.pods.Insert(pod)
		}
	}
}

// Of returns the pods that a Service selects, in no particular order.
func (ix *Index) Of(svc *corev1.Service) []*corev1.Pod {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	m := ix.members[client.Key(svc)]
	if m == nil || !equality.Semantic.DeepEqual(m.selector, svc.Spec.Selector) {
		m = &members{selector: svc.Spec.Selector, pods: sets.New[types.NamespacedName]()}
		ix.members[client.Key(svc)] = m
		selector := labels.SelectorFromSet(svc.Spec.Selector)
		for _, pod := range ix.Pods.List(svc.Namespace) {
			if selector.Matches(labels.Set(pod.Labels)) {
				m.pods.Insert(client.Key(pod))
			}
		}
	}
	out := make([]*corev1.Pod, 0, len(m.pods))
	for key := range m.pods {
		// A pod's labels may have changed without its event having passed yet.
		if pod, ok := ix.Pods.Get(key.Namespace, key.Name); ok && contains(pod.Labels, m.selector) {
			out = append(out, pod)
		}
	}
	return out
}

func contains(all, some map[string]string) bool {
	for k, v := range some {
		if have, ok := all[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// Forget drops a Service that no longer exists or has no selector.
func (ix *Index) Forget(svc types.NamespacedName) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	delete(ix.members, svc)
}

// Serves says whether a pod has an address and may still answer.
func Serves(pod *corev1.Pod) bool {
	return !pods.Finished(pod) && (pod.Status.PodIP != "" || len(pod.Status.PodIPs) > 0)
}

// TargetPort returns the port of a pod that a Service's port leads to, if it has it.
// A name is looked up in containers and in native sidecars.
func TargetPort(port *corev1.ServicePort, pod *corev1.Pod) (int32, bool) {
	name := port.TargetPort.StrVal
	if name == "" {
		if n := port.TargetPort.IntVal; n != 0 {
			return n, true
		}
		return port.Port, true
	}
	for i := range pod.Spec.Containers {
		if n, ok := named(&pod.Spec.Containers[i], name, port.Protocol); ok {
			return n, true
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			if n, ok := named(c, name, port.Protocol); ok {
				return n, true
			}
		}
	}
	return 0, false
}

func named(c *corev1.Container, name string, protocol corev1.Protocol) (int32, bool) {
	for _, p := range c.Ports {
		if p.Name == name && Protocol(p.Protocol) == Protocol(protocol) {
			return p.ContainerPort, true
		}
	}
	return 0, false
}

// Protocol returns p, or TCP where nothing is said.
func Protocol(p corev1.Protocol) corev1.Protocol {
	if p == "" {
		return corev1.ProtocolTCP
	}
	return p
}
