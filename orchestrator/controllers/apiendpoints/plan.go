package apiendpoints

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	namespace = metav1.NamespaceDefault
	name      = "kubernetes"
	portName  = "https"
)

// Plan holds the objects to write. The zero Plan means converged.
type Plan struct {
	Service   *corev1.Service            // nil: as it is
	Slice     *discoveryv1.EndpointSlice // nil: as it is
	Endpoints *corev1.Endpoints          // nil: as it is
}

// Snapshot is all that a plan depends on; what does not exist is nil.
type Snapshot struct {
	Service   *corev1.Service
	Slice     *discoveryv1.EndpointSlice
	Endpoints *corev1.Endpoints
}

// compute makes the plan.
func compute(s Snapshot, service netip.Addr, servers []netip.AddrPort) Plan {
	servers = slices.SortedFunc(slices.Values(servers), netip.AddrPort.Compare)
	var p Plan
	if next := wantService(s.Service, service, servers[0].Port()); !equality.Semantic.DeepEqual(next, s.Service) {
		p.Service = next
	}
	if next := wantSlice(s.Slice, servers); !equality.Semantic.DeepEqual(next, s.Slice) {
		p.Slice = next
	}
	if next := wantEndpoints(s.Endpoints, servers); !equality.Semantic.DeepEqual(next, s.Endpoints) {
		p.Endpoints = next
	}
	return p
}

// wantService changes nothing of a Service that is there but its port: addresses
// cannot be changed, and the rest is the API server's.
func wantService(have *corev1.Service, address netip.Addr, port uint16) *corev1.Service {
	ports := []corev1.ServicePort{{Name: portName, Protocol: corev1.ProtocolTCP, Port: 443, TargetPort: intstr.FromInt32(int32(port))}}
	if have != nil {
		next := have.DeepCopy()
		next.Spec.Ports = ports
		return next
	}
	family, policy := corev1.IPv4Protocol, corev1.IPFamilyPolicySingleStack
	if address.Is6() {
		family = corev1.IPv6Protocol
	}
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"component": "apiserver", "provider": "kubernetes"}},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: address.String(), ClusterIPs: []string{address.String()},
			IPFamilies: []corev1.IPFamily{family}, IPFamilyPolicy: &policy, SessionAffinity: corev1.ServiceAffinityNone,
			Ports: ports,
		},
	}
}

func wantSlice(have *discoveryv1.EndpointSlice, servers []netip.AddrPort) *discoveryv1.EndpointSlice {
	next := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if have != nil {
		next = have.DeepCopy()
	}
	next.Labels = map[string]string{discoveryv1.LabelServiceName: name}
	next.AddressType = discoveryv1.AddressTypeIPv4
	if servers[0].Addr().Is6() {
		next.AddressType = discoveryv1.AddressTypeIPv6
	}
	port, protocol, https, yes := int32(servers[0].Port()), corev1.ProtocolTCP, portName, true
	next.Ports = []discoveryv1.EndpointPort{{Name: &https, Port: &port, Protocol: &protocol}}
	next.Endpoints = nil
	for _, s := range servers {
		next.Endpoints = append(next.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{s.Addr().String()}, Conditions: discoveryv1.EndpointConditions{Ready: &yes},
		})
	}
	return next
}

func wantEndpoints(have *corev1.Endpoints, servers []netip.AddrPort) *corev1.Endpoints {
	next := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if have != nil {
		next = have.DeepCopy()
	}
	next.Labels = map[string]string{discoveryv1.LabelSkipMirror: "true"}
	subset := corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Name: portName, Port: int32(servers[0].Port()), Protocol: corev1.ProtocolTCP}}}
	for _, s := range servers {
		subset.Addresses = append(subset.Addresses, corev1.EndpointAddress{IP: s.Addr().String()})
	}
	next.Subsets = []corev1.EndpointSubset{subset}
	return next
}

// String prints one line an action.
func (p Plan) String() string {
	s := ""
	if p.Service != nil {
		s += "write service " + namespace + "/" + name + "\n"
	}
	if p.Slice != nil {
		s += "write endpoint slice " + namespace + "/" + name + "\n"
	}
	if p.Endpoints != nil {
		s += "write endpoints " + namespace + "/" + name + "\n"
	}
	return s
}
