package endpointslice

import (
	"maps"
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
	for _, family := range families(s.Service) {
		byPorts := map[string]*Group{}
		for _, pod := range s.Pods {
			ports, ok := portsOf(s.Service, pod)
			address := addressOf(pod, family)
			if !ok || address == "" || !backends.Serves(pod) {
				continue
			}
			key := groupKey(family, ports)
			if byPorts[key] == nil {
				byPorts[key] = &Group{AddressType: family, Ports: ports}
			}
			byPorts[key].Endpoints = append(byPorts[key].Endpoints, endpoint(s, pod, address))
		}
		if len(byPorts) == 0 {
			byPorts[""] = &Group{AddressType: family}
		}
		for _, key := range slices.Sorted(maps.Keys(byPorts)) {
			out = append(out, *byPorts[key])
		}
	}
	return out
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

// portsOf returns where a Service's ports lead in a pod. A named port that the pod
// does not have is left out; ok is false if nothing of several remains.
func portsOf(svc *corev1.Service, pod *corev1.Pod) (ports []discoveryv1.EndpointPort, ok bool) {
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		n, found := backends.TargetPort(p, pod)
		if !found {
			continue
		}
		protocol := backends.Protocol(p.Protocol)
		ports = append(ports, discoveryv1.EndpointPort{Name: &p.Name, Port: &n, Protocol: &protocol, AppProtocol: p.AppProtocol})
	}
	return ports, len(ports) > 0 || len(svc.Spec.Ports) == 0
}

func addressOf(pod *corev1.Pod, family discoveryv1.AddressType) string {
	ips := pod.Status.PodIPs
	if len(ips) == 0 {
		ips = []corev1.PodIP{{IP: pod.Status.PodIP}}
	}
	for _, p := range ips {
		ip, err := netip.ParseAddr(p.IP)
		if err == nil && ip.Is4() == (family == discoveryv1.AddressTypeIPv4) {
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
		node := pod.Spec.NodeName
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
