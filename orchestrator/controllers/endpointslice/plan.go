package endpointslice

import (
	"encoding/binary"
	"iter"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/controllers/backends"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
)

// managedBy marks the slices that this controller owns, with the name that
// Kubernetes gives it, as other software looks for it.
const managedBy = "endpointslice-controller.k8s.io"

// Snapshot is all that a plan depends on.
type Snapshot struct {
	Service *corev1.Service
	Pods    []*corev1.Pod                // that it selects
	Slices  []*discoveryv1.EndpointSlice // of the Service, managed by this controller
	Zone    func(node string) string     // "" where not known
}

// compute makes the plan. The order of Pods and Slices does not matter.
func compute(s Snapshot) Plan {
	return Fit(s.Slices, groups(s), metaOf(s.Service))
}

func metaOf(svc *corev1.Service) Meta {
	l := map[string]string{}
	for k, v := range svc.Labels {
		if !reserved(k) {
			l[k] = v
		}
	}
	l[discoveryv1.LabelServiceName] = svc.Name
	l[discoveryv1.LabelManagedBy] = managedBy
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		l[corev1.IsHeadlessService] = ""
	}
	return Meta{
		Namespace: svc.Namespace, Service: svc.Name, Labels: l,
		Owner: metav1.NewControllerRef(svc, corev1.SchemeGroupVersion.WithKind("Service")),
	}
}

// reserved are labels that a slice never takes from its Service.
func reserved(key string) bool {
	return key == discoveryv1.LabelServiceName || key == discoveryv1.LabelManagedBy || key == corev1.IsHeadlessService ||
		strings.HasPrefix(key, "endpointslice.kubernetes.io/")
}

// groups sorts a Service's endpoints by address family and ports. A family without
// endpoints has one empty group.
func groups(s Snapshot) []Group {
	var out []Group
	ports := portSets{service: s.Service, byNumbers: map[string]*portSet{}}
	for _, family := range families(s.Service) {
		byPorts := map[*portSet]*Group{}
		for _, pod := range s.Pods {
			set, address := ports.of(pod), addressOf(pod, family)
			if set == nil || address == "" || !backends.Serves(pod) {
				continue
			}
			g := byPorts[set]
			if g == nil {
				g = &Group{AddressType: family, Ports: set.ports}
				byPorts[set] = g
			}
			g.Endpoints = append(g.Endpoints, endpoint(s, pod, address))
		}
		if len(byPorts) == 0 {
			byPorts[nil] = &Group{AddressType: family}
		}
		out = append(out, slices.SortedFunc(values(byPorts), func(a, b Group) int {
			return strings.Compare(groupKey(a.AddressType, a.Ports), groupKey(b.AddressType, b.Ports))
		})...)
	}
	return out
}

func values(m map[*portSet]*Group) iter.Seq[Group] {
	return func(yield func(Group) bool) {
		for _, g := range m {
			if !yield(*g) {
				return
			}
		}
	}
}

// families are the Service's address families.
func families(svc *corev1.Service) []discoveryv1.AddressType {
	var out []discoveryv1.AddressType
	for _, f := range svc.Spec.IPFamilies {
		out = append(out, discoveryv1.AddressType(f))
	}
	if len(out) > 0 {
		return out
	}
	if ip, err := netip.ParseAddr(svc.Spec.ClusterIP); err == nil && ip.Is6() {
		return []discoveryv1.AddressType{discoveryv1.AddressTypeIPv6}
	}
	return []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4}
}

// portSets resolves a Service's ports in pods, each combination of numbers once.
type portSets struct {
	service   *corev1.Service
	byNumbers map[string]*portSet
	buf       []byte
}

type portSet struct {
	ports []discoveryv1.EndpointPort
}

// of returns where the Service's ports lead in a pod. A named port that the pod does
// not have is left out; nil if nothing of several remains.
func (s *portSets) of(pod *corev1.Pod) *portSet {
	s.buf = s.buf[:0]
	for i := range s.service.Spec.Ports {
		n, _ := backends.TargetPort(&s.service.Spec.Ports[i], pod)
		s.buf = binary.BigEndian.AppendUint32(s.buf, uint32(n))
	}
	if set, ok := s.byNumbers[string(s.buf)]; ok {
		return set
	}
	set := &portSet{}
	for i := range s.service.Spec.Ports {
		p := &s.service.Spec.Ports[i]
		n := int32(binary.BigEndian.Uint32(s.buf[4*i:]))
		if n == 0 { // no port has this number
			continue
		}
		protocol := backends.Protocol(p.Protocol)
		set.ports = append(set.ports, discoveryv1.EndpointPort{Name: &p.Name, Port: &n, Protocol: &protocol, AppProtocol: p.AppProtocol})
	}
	if len(set.ports) == 0 && len(s.service.Spec.Ports) > 0 {
		set = nil
	}
	s.byNumbers[string(s.buf)] = set
	return set
}

func addressOf(pod *corev1.Pod, family discoveryv1.AddressType) string {
	ips := pod.Status.PodIPs
	if len(ips) == 0 {
		ips = []corev1.PodIP{{IP: pod.Status.PodIP}}
	}
	six := family == discoveryv1.AddressTypeIPv6
	for _, p := range ips { // the API admits only addresses, so the form tells the family
		if p.IP != "" && strings.Contains(p.IP, ":") == six {
			return p.IP
		}
	}
	return ""
}

func endpoint(s Snapshot, pod *corev1.Pod, address string) discoveryv1.Endpoint {
	serving, terminating := pods.Ready(pod), pod.DeletionTimestamp != nil
	ready := s.Service.Spec.PublishNotReadyAddresses || serving && !terminating
	e := discoveryv1.Endpoint{
		Addresses:  []string{address},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	}
	if pod.Spec.NodeName != "" {
		node := pod.Spec.NodeName // a pointer into the pod would keep all of it in memory
		e.NodeName = &node
		if zone := s.Zone(node); zone != "" {
			e.Zone = &zone
		}
	}
	if h := pod.Spec.Hostname; h != "" && pod.Spec.Subdomain == s.Service.Name {
		e.Hostname = &h
	}
	return e
}
