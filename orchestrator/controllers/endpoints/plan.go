package endpoints

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/controllers/backends"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
)

const (
	most         = 1000                                    // addresses in one object; the rest is cut off
	overCapacity = "endpoints.kubernetes.io/over-capacity" // annotation that says so
	managedBy    = "endpoints.kubernetes.io/managed-by"
	manager      = "endpoint-controller"
)

// Plan holds the object to write. The zero Plan means converged.
type Plan struct {
	Create, Update *corev1.Endpoints
	Delete         *pods.Ref
}

// compute makes the plan; have is nil if there is none. The order of list does not
// matter.
func compute(svc *corev1.Service, list []*corev1.Pod, have *corev1.Endpoints) Plan {
	next := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: svc.Name}}
	if have != nil {
		out := *have // its maps and slices are replaced, not changed
		next = &out
	}
	next.Labels = labelsOf(svc)
	var cut bool
	next.Subsets, cut = subsets(svc, list)
	annotate(next, cut)
	switch {
	case have == nil:
		return Plan{Create: next}
	case !equality.Semantic.DeepEqual(have, next):
		return Plan{Update: next}
	}
	return Plan{}
}

func labelsOf(svc *corev1.Service) map[string]string {
	l := map[string]string{}
	maps.Copy(l, svc.Labels)
	l[managedBy] = manager
	delete(l, corev1.IsHeadlessService)
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		l[corev1.IsHeadlessService] = ""
	}
	return l
}

func annotate(e *corev1.Endpoints, cut bool) {
	if _, is := e.Annotations[overCapacity]; is == cut {
		return
	}
	e.Annotations = maps.Clone(e.Annotations)
	if !cut {
		delete(e.Annotations, overCapacity)
		return
	}
	if e.Annotations == nil {
		e.Annotations = map[string]string{}
	}
	e.Annotations[overCapacity] = "truncated"
}

// subsets groups the pods' addresses by their ports; ready ones are kept first when
// there are too many.
func subsets(svc *corev1.Service, list []*corev1.Pod) (out []corev1.EndpointSubset, cut bool) {
	list = slices.DeleteFunc(slices.Clone(list), func(pod *corev1.Pod) bool {
		return !backends.Serves(pod) || pod.DeletionTimestamp != nil && !svc.Spec.PublishNotReadyAddresses
	})
	ready := func(pod *corev1.Pod) bool { return svc.Spec.PublishNotReadyAddresses || pods.Ready(pod) }
	slices.SortFunc(list, func(a, b *corev1.Pod) int {
		if ready(a) != ready(b) {
			if ready(a) {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.UID, b.UID)
	})
	if cut = len(list) > most; cut {
		list = list[:most]
	}
	byPorts := map[string]*corev1.EndpointSubset{}
	for _, pod := range list {
		ports, ok := portsOf(svc, pod)
		address, has := addressOf(svc, pod)
		if !ok || !has {
			continue
		}
		key := fmt.Sprint(ports)
		s := byPorts[key]
		if s == nil {
			s = &corev1.EndpointSubset{Ports: ports}
			byPorts[key] = s
		}
		if ready(pod) {
			s.Addresses = append(s.Addresses, address)
		} else {
			s.NotReadyAddresses = append(s.NotReadyAddresses, address)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(byPorts)) {
		out = append(out, *byPorts[key])
	}
	return out, cut
}

func portsOf(svc *corev1.Service, pod *corev1.Pod) (ports []corev1.EndpointPort, ok bool) {
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		if n, found := backends.TargetPort(p, pod); found {
			ports = append(ports, corev1.EndpointPort{Name: p.Name, Port: n, Protocol: backends.Protocol(p.Protocol), AppProtocol: p.AppProtocol})
		}
	}
	slices.SortFunc(ports, func(a, b corev1.EndpointPort) int { return strings.Compare(a.Name, b.Name) })
	return ports, len(ports) > 0 || len(svc.Spec.Ports) == 0
}

// addressOf returns a pod's address in the Service's first family: Endpoints know
// only one.
func addressOf(svc *corev1.Service, pod *corev1.Pod) (corev1.EndpointAddress, bool) {
	six := len(svc.Spec.IPFamilies) > 0 && svc.Spec.IPFamilies[0] == corev1.IPv6Protocol
	ips := pod.Status.PodIPs
	if len(ips) == 0 {
		ips = []corev1.PodIP{{IP: pod.Status.PodIP}}
	}
	for _, p := range ips {
		ip, err := netip.ParseAddr(p.IP)
		if err != nil || ip.Is6() != six {
			continue
		}
		a := corev1.EndpointAddress{
			IP:        p.IP,
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		}
		if pod.Spec.NodeName != "" {
			a.NodeName = &pod.Spec.NodeName
		}
		if pod.Spec.Subdomain == svc.Name {
			a.Hostname = pod.Spec.Hostname
		}
		return a, true
	}
	return corev1.EndpointAddress{}, false
}

// String prints one line an action.
func (p Plan) String() string {
	switch {
	case p.Create != nil:
		return fmt.Sprintf("create endpoints %s/%s\n", p.Create.Namespace, p.Create.Name)
	case p.Update != nil:
		return fmt.Sprintf("update endpoints %s/%s\n", p.Update.Namespace, p.Update.Name)
	case p.Delete != nil:
		return fmt.Sprintf("delete endpoints %s\n", p.Delete.NamespacedName)
	}
	return ""
}
