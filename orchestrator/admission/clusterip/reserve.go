package clusterip

import (
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-mesh/xebec/orchestrator/admission"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// reservation is what one write holds. Its methods but settle are called with
// the allocator locked.
type reservation struct {
	a     *Allocator
	at    *admission.Attributes // the write, and who holds pending things
	key   types.NamespacedName
	ips   []netip.Addr
	ports []nodePort
}

func (r *reservation) settle(uid types.UID, stored bool) {
	r.a.mu.Lock()
	defer r.a.mu.Unlock()
	for _, ip := range r.ips {
		r.a.ips.settle(ip, r.at, uid, stored)
	}
	for _, p := range r.ports {
		r.a.ports.settle(p, r.at, uid, stored)
	}
}

func (r *reservation) addresses(s *corev1.ServiceSpec) field.ErrorList {
	if s.Type == corev1.ServiceTypeExternalName || s.ClusterIP == corev1.ClusterIPNone {
		return nil
	}
	for i, family := range s.IPFamilies {
		if i < len(s.ClusterIPs) {
			if errs := r.given(s.ClusterIPs[i], i); len(errs) > 0 {
				return errs
			}
			continue
		}
		space := r.a.spaces[family]
		if space == nil {
			return field.ErrorList{field.Invalid(specPath.Child("ipFamilies").Index(i), family, "not configured on this cluster")}
		}
		ip, ok := space.find(r.a.ips.free)
		if !ok {
			return field.ErrorList{field.InternalError(specPath.Child("clusterIPs"), fmt.Errorf("failed to allocate a serviceIP: range %s is full", space.prefix))}
		}
		r.a.ips.take(ip, r.key, r.at)
		r.ips = append(r.ips, ip)
		s.ClusterIPs = append(s.ClusterIPs, ip.String())
	}
	if len(s.ClusterIPs) > 0 {
		s.ClusterIP = s.ClusterIPs[0]
	}
	return nil
}

// given reserves the address that a client asked for, or has. What is no address
// is left for validation.
func (r *reservation) given(text string, i int) field.ErrorList {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return nil
	}
	path := specPath.Child("clusterIPs")
	var ranges []string
	for _, s := range r.a.spaces {
		if s.prefix.Contains(ip) {
			if r.a.ips.take(ip, r.key, r.at) {
				r.ips = append(r.ips, ip)
				return nil
			}
			return field.ErrorList{field.Invalid(path, []string{text}, fmt.Sprintf("failed to allocate IP %s: provided IP is already allocated", text))}
		}
		ranges = append(ranges, s.prefix.String())
	}
	if old, ok := r.at.OldObject.(*corev1.Service); ok && i < len(old.Spec.ClusterIPs) && old.Spec.ClusterIPs[i] == text {
		return nil // from before the ranges were changed
	}
	what := "range of valid IPs is " + ranges[0]
	if len(ranges) > 1 {
		what = fmt.Sprintf("ranges of valid IPs are %s and %s", min(ranges[0], ranges[1]), max(ranges[0], ranges[1]))
	}
	return field.ErrorList{field.Invalid(path, []string{text}, fmt.Sprintf("failed to allocate IP %s: the provided IP is not in the valid range. The %s", text, what))}
}

func (r *reservation) nodePorts(s *corev1.ServiceSpec) field.ErrorList {
	wanted := s.Type == corev1.ServiceTypeNodePort ||
		s.Type == corev1.ServiceTypeLoadBalancer && (s.AllocateLoadBalancerNodePorts == nil || *s.AllocateLoadBalancerNodePorts)
	if s.Type != corev1.ServiceTypeNodePort && s.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	for i := range s.Ports {
		p, path := &s.Ports[i], specPath.Child("ports").Index(i).Child("nodePort")
		switch {
		case p.NodePort != 0:
			if errs := r.givenPort(nodePort{p.NodePort, p.Protocol}, path); len(errs) > 0 {
				return errs
			}
		case wanted:
			if p.NodePort = r.sharedPort(s, i); p.NodePort == 0 {
				return field.ErrorList{field.InternalError(path, errNoPort)}
			}
		}
	}
	return r.healthCheckPort(s)
}

var errNoPort = errors.New("failed to allocate a nodePort: all are in use")

func (r *reservation) healthCheckPort(s *corev1.ServiceSpec) field.ErrorList {
	path := specPath.Child("healthCheckNodePort")
	switch {
	case !resource.NeedsHealthCheck(s):
		return nil
	case s.HealthCheckNodePort != 0:
		return r.givenPort(nodePort{s.HealthCheckNodePort, corev1.ProtocolTCP}, path)
	}
	if s.HealthCheckNodePort = r.anyPort(corev1.ProtocolTCP); s.HealthCheckNodePort == 0 {
		return field.ErrorList{field.InternalError(path, errNoPort)}
	}
	return nil
}

func (r *reservation) givenPort(p nodePort, path *field.Path) field.ErrorList {
	if p.port < r.a.cfg.MinNodePort || p.port > r.a.cfg.MaxNodePort {
		return field.ErrorList{field.Invalid(path, p.port, fmt.Sprintf("provided port is not in the valid range. The range of valid ports is %d-%d", r.a.cfg.MinNodePort, r.a.cfg.MaxNodePort))}
	}
	if !r.a.ports.take(p, r.key, r.at) {
		return field.ErrorList{field.Invalid(path, p.port, "provided port is already allocated")}
	}
	r.ports = append(r.ports, p)
	return nil
}

// sharedPort gives the i-th port of s a node port: that of a port with the same
// number and another protocol (DNS over UDP and TCP), else a free one.
func (r *reservation) sharedPort(s *corev1.ServiceSpec, i int) int32 {
	p := &s.Ports[i]
	for j := range s.Ports[:i] {
		o := &s.Ports[j]
		if o.Port == p.Port && o.Protocol != p.Protocol && o.NodePort != 0 && r.takePort(nodePort{o.NodePort, p.Protocol}) {
			return o.NodePort
		}
	}
	return r.anyPort(p.Protocol)
}

// anyPort takes a free node port, or gives 0.
func (r *reservation) anyPort(protocol corev1.Protocol) int32 {
	count := r.a.cfg.MaxNodePort - r.a.cfg.MinNodePort + 1
	for range count {
		n := r.a.cfg.MinNodePort + r.a.nextPort
		r.a.nextPort = (r.a.nextPort + 1) % count
		if r.takePort(nodePort{n, protocol}) {
			return n
		}
	}
	return 0
}

func (r *reservation) takePort(p nodePort) bool {
	if !r.a.ports.free(p) || !r.a.ports.take(p, r.key, r.at) {
		return false
	}
	r.ports = append(r.ports, p)
	return true
}
