package apiendpoints

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	namespace = metav1.NamespaceDefault
	name      = "kubernetes"
	portName  = "https"
)

// Plan holds the objects to write. The zero Plan means converged.
type Plan struct {
	Slice     *discoveryv1.EndpointSlice // nil: as it is
	Endpoints *corev1.Endpoints          // nil: as it is
}

// compute makes the plan; slice and endpoints are nil where there is none.
func compute(slice *discoveryv1.EndpointSlice, endpoints *corev1.Endpoints, servers []netip.AddrPort) Plan {
	servers = slices.SortedFunc(slices.Values(servers), netip.AddrPort.Compare)
	var p Plan
	if next := wantSlice(slice, servers); !equality.Semantic.DeepEqual(next, slice) {
		p.Slice = next
	}
	if next := wantEndpoints(endpoints, servers); !equality.Semantic.DeepEqual(next, endpoints) {
		p.Endpoints = next
	}
	return p
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
	if p.Slice != nil {
		s += "write endpoint slice " + namespace + "/" + name + "\n"
	}
	if p.Endpoints != nil {
		s += "write endpoints " + namespace + "/" + name + "\n"
	}
	return s
}
