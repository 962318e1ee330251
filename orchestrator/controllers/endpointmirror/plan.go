package endpointmirror

import (
	"maps"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/controllers/endpointslice"
)

const (
	managedBy = "endpointslicemirroring-controller.k8s.io"
	most      = 1000 // addresses of one subset that are mirrored
)

// compute makes the plan for Endpoints that may be nil, or not to be mirrored.
func compute(svc *corev1.Service, e *corev1.Endpoints, have []*discoveryv1.EndpointSlice) endpointslice.Plan {
	if !mirrored(svc, e) {
		return endpointslice.Fit(have, nil, endpointslice.Meta{})
	}
	return endpointslice.Fit(have, groups(e), metaOf(e))
}

// mirrored says whether Endpoints are a user's, for a Service without selector.
func mirrored(svc *corev1.Service, e *corev1.Endpoints) bool {
	if svc == nil || e == nil || len(svc.Spec.Selector) > 0 || e.DeletionTimestamp != nil {
		return false
	}
	if _, election := e.Annotations["control-plane.alpha.kubernetes.io/leader"]; election {
		return false
	}
	return e.Labels[discoveryv1.LabelSkipMirror] != "true"
}

func metaOf(e *corev1.Endpoints) endpointslice.Meta {
	l := map[string]string{}
	maps.Copy(l, e.Labels)
	maps.DeleteFunc(l, func(k, _ string) bool { return strings.HasPrefix(k, "endpointslice.kubernetes.io/") })
	l[discoveryv1.LabelServiceName] = e.Name
	l[discoveryv1.LabelManagedBy] = managedBy
	return endpointslice.Meta{
		Namespace: e.Namespace, Service: e.Name, Labels: l,
		Owner: metav1.NewControllerRef(e, corev1.SchemeGroupVersion.WithKind("Endpoints")),
	}
}

func groups(e *corev1.Endpoints) []endpointslice.Group {
	var out []endpointslice.Group
	for i := range e.Subsets {
		s := &e.Subsets[i]
		four := endpointslice.Group{AddressType: discoveryv1.AddressTypeIPv4, Ports: ports(s)}
		six := endpointslice.Group{AddressType: discoveryv1.AddressTypeIPv6, Ports: four.Ports}
		add := func(addresses []corev1.EndpointAddress, ready bool) {
			for _, a := range addresses[:min(len(addresses), most)] {
				ip, err := netip.ParseAddr(a.IP)
				switch {
				case err != nil:
				case ip.Is4():
					four.Endpoints = append(four.Endpoints, endpoint(a, ready))
				default:
					six.Endpoints = append(six.Endpoints, endpoint(a, ready))
				}
			}
		}
		add(s.Addresses, true)
		add(s.NotReadyAddresses, false)
		for _, g := range []endpointslice.Group{four, six} {
			if len(g.Endpoints) > 0 {
				out = append(out, g)
			}
		}
	}
	return out
}

func ports(s *corev1.EndpointSubset) []discoveryv1.EndpointPort {
	var out []discoveryv1.EndpointPort
	for i := range s.Ports {
		p := &s.Ports[i]
		protocol := p.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		out = append(out, discoveryv1.EndpointPort{Name: &p.Name, Port: &p.Port, Protocol: &protocol, AppProtocol: p.AppProtocol})
	}
	return out
}

func endpoint(a corev1.EndpointAddress, ready bool) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{
		Addresses: []string{a.IP}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		TargetRef: a.TargetRef, NodeName: a.NodeName,
	}
	if a.Hostname != "" {
		e.Hostname = &a.Hostname
	}
	return e
}
