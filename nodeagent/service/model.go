package service

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/xebec-mesh/xebec/dataplane/dns"
	"github.com/xebec-mesh/xebec/dataplane/service"
)

// Balance is a Service as the kernel of a node should serve it. It is pure.
func Balance(s *corev1.Service, list []*discoveryv1.EndpointSlice, node string) service.Service {
	out := service.Service{Name: s.Namespace + "/" + s.Name}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return out
	}
	for _, ip := range append(slices.Clone(s.Spec.ClusterIPs), s.Spec.ExternalIPs...) {
		if a, err := netip.ParseAddr(ip); err == nil {
			out.Addrs = append(out.Addrs, a)
		}
	}
	if len(out.Addrs) == 0 {
		return out // headless, or no address yet
	}
	if p := s.Spec.InternalTrafficPolicy; p != nil && *p == corev1.ServiceInternalTrafficPolicyLocal {
		out.LocalOnly = true
	}
	if s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		out.Affinity = 3 * time.Hour
		if c := s.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
			out.Affinity = time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
		}
	}
	for _, p := range s.Spec.Ports {
		port := service.Port{Name: p.Name, Port: uint16(p.Port)}
		switch p.Protocol {
		case corev1.ProtocolTCP, "":
			port.Protocol = service.TCP
		case corev1.ProtocolUDP:
			port.Protocol = service.UDP
		default:
			continue
		}
		for _, sl := range list {
			port.Endpoints = append(port.Endpoints, endpoints(s, sl, p, node)...)
		}
		slices.SortFunc(port.Endpoints, func(a, b service.Endpoint) int { return a.Addr.Compare(b.Addr) })
		port.Endpoints = slices.CompactFunc(port.Endpoints, func(a, b service.Endpoint) bool { return a.Addr == b.Addr })
		out.Ports = append(out.Ports, port)
	}
	return out
}

func endpoints(s *corev1.Service, sl *discoveryv1.EndpointSlice, p corev1.ServicePort, node string) []service.Endpoint {
	i := slices.IndexFunc(sl.Ports, func(ep discoveryv1.EndpointPort) bool {
		return value(ep.Name, "") == p.Name && value(ep.Protocol, corev1.ProtocolTCP) == cmp.Or(p.Protocol, corev1.ProtocolTCP)
	})
	if i < 0 || sl.Ports[i].Port == nil {
		return nil
	}
	port := uint16(*sl.Ports[i].Port)
	var out []service.Endpoint
	for _, ep := range sl.Endpoints {
		for _, text := range ep.Addresses {
			a, err := netip.ParseAddr(text)
			if err != nil {
				continue
			}
			ready := value(ep.Conditions.Ready, true)
			out = append(out, service.Endpoint{
				Addr: netip.AddrPortFrom(a, port), Ready: ready || s.Spec.PublishNotReadyAddresses,
				Serving: value(ep.Conditions.Serving, ready), Terminating: value(ep.Conditions.Terminating, false),
				Local: value(ep.NodeName, "") == node,
			})
		}
	}
	return out
}

func value[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// Resolve is a Service as the cluster's DNS should answer for it. It is pure.
func Resolve(s *corev1.Service, list []*discoveryv1.EndpointSlice) dns.Service {
	out := dns.Service{Namespace: s.Namespace, Name: s.Name}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		out.ExternalName = s.Spec.ExternalName
		return out
	}
	for _, ip := range s.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(ip); err == nil {
			out.Addrs = append(out.Addrs, a)
		}
	}
	for _, p := range s.Spec.Ports {
		out.Ports = append(out.Ports, dns.Port{Name: p.Name, Protocol: string(cmp.Or(p.Protocol, corev1.ProtocolTCP)), Port: uint16(p.Port)})
	}
	if s.Spec.ClusterIP != corev1.ClusterIPNone {
		return out
	}
	for _, sl := range list {
		var ports []dns.Port
		for _, p := range sl.Ports {
			ports = append(ports, dns.Port{
				Name: value(p.Name, ""), Protocol: string(value(p.Protocol, corev1.ProtocolTCP)), Port: uint16(value(p.Port, 0)),
			})
		}
		for _, ep := range sl.Endpoints {
			if !value(ep.Conditions.Ready, true) && !s.Spec.PublishNotReadyAddresses {
				continue
			}
			for _, text := range ep.Addresses {
				if a, err := netip.ParseAddr(text); err == nil {
					out.Endpoints = append(out.Endpoints, dns.Endpoint{Addr: a, Hostname: value(ep.Hostname, ""), Ports: ports})
				}
			}
		}
	}
	slices.SortFunc(out.Endpoints, func(a, b dns.Endpoint) int { return a.Addr.Compare(b.Addr) })
	return out
}
