package registry

import (
	"maps"
	"slices"
	"strconv"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/pilot/model"
)

func serviceOf(o *corev1.Service, host string) *model.Service {
	s := &model.Service{
		Host: host, Name: o.Name, Namespace: o.Namespace,
		Selector: model.LabelsOf(o.Spec.Selector),
		Ref:      config.Ref{Kind: "Service", Namespace: o.Namespace, Name: o.Name},
	}
	if o.Spec.ClusterIP == corev1.ClusterIPNone {
		s.Resolution = model.Headless
	} else {
		ips := o.Spec.ClusterIPs
		if len(ips) == 0 && o.Spec.ClusterIP != "" {
			ips = []string{o.Spec.ClusterIP}
		}
		s.Addresses = model.TupleOf(ips...)
	}
	var ports []model.Port
	for _, p := range o.Spec.Ports {
		port := model.Port{
			Name: p.Name, Number: uint32(p.Port),
			Protocol:   model.ProtocolOf(p.Name, p.AppProtocol, p.Protocol),
			Target:     uint32(p.TargetPort.IntVal),
			TargetName: p.TargetPort.StrVal,
		}
		ports = append(ports, port)
	}
	s.Ports = model.TupleOf(ports...)
	return s
}

// endpointsOf joins the slices of a service. Endpoints that are ready count; if there
// are none, those that terminate but still serve.
func endpointsOf(host string, all []*discoveryv1.EndpointSlice, workload func(string) *model.Workload) *model.Endpoints {
	slices.SortFunc(all, func(a, b *discoveryv1.EndpointSlice) int { return cmpString(a.Name, b.Name) })
	out := &model.Endpoints{Host: host, ByPort: map[string][]model.Endpoint{}}
	lingering := map[string][]model.Endpoint{}
	identities := map[string]bool{}
	seen := map[string]bool{}
	for _, slice := range all {
		if slice.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		for _, e := range slice.Endpoints {
			var w *model.Workload
			if e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
				w = workload(slice.Namespace + "/" + e.TargetRef.Name)
			}
			if w != nil {
				identities[w.Namespace+"/"+w.ServiceAccount] = true
			}
			to := out.ByPort
			switch {
			case isTrue(e.Conditions.Ready, true) && !isTrue(e.Conditions.Terminating, false):
			case isTrue(e.Conditions.Serving, false):
				to = lingering
			default:
				continue
			}
			collect(to, seen, slice, e, w)
		}
	}
	for port, eps := range lingering {
		if len(out.ByPort[port]) == 0 {
			out.ByPort[port] = eps
		}
	}
	out.Identities = model.TupleOf(slices.Sorted(maps.Keys(identities))...)
	return out
}

func collect(to map[string][]model.Endpoint, seen map[string]bool, slice *discoveryv1.EndpointSlice, e discoveryv1.Endpoint, w *model.Workload) {
	for _, p := range slice.Ports {
		if p.Port == nil {
			continue
		}
		name := ""
		if p.Name != nil {
			name = *p.Name
		}
		for _, a := range e.Addresses {
			ep := model.Endpoint{Address: a, Port: uint32(*p.Port), Workload: w}
			if w != nil {
				ep.Labels = w.Labels
			}
			if e.Zone != nil {
				ep.Zone = *e.Zone
			}
			if k := model.Join(name, a, strconv.Itoa(int(*p.Port))); !seen[k] {
				seen[k] = true
				to[name] = append(to[name], ep)
			}
		}
	}
}

func isTrue(b *bool, otherwise bool) bool {
	if b == nil {
		return otherwise
	}
	return *b
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// entry makes a service of each host of a ServiceEntry.
func (s *State) entry(o *networkingv1.ServiceEntry, gone bool) {
	key := o.Namespace + "/" + o.Name
	for _, h := range s.entries[key] {
		if gone || !slices.Contains(o.Spec.Hosts, h) {
			s.edit.Service(h, nil)
			s.edit.Endpoints(h, nil)
		}
	}
	delete(s.entries, key)
	if gone {
		return
	}
	for _, h := range o.Spec.Hosts {
		s.entries[key] = append(s.entries[key], h)
		next, eps := entryOf(o, h)
		if old := s.edit.CurrentService(h); old == nil || *old != *next {
			s.edit.Service(h, next)
		}
		s.edit.Endpoints(h, eps)
	}
}

func entryOf(o *networkingv1.ServiceEntry, host string) (*model.Service, *model.Endpoints) {
	spec := &o.Spec
	s := &model.Service{
		Host: host, Name: o.Name, Namespace: o.Namespace, External: true,
		Addresses: model.TupleOf(spec.GetAddresses()...),
		Ref:       config.Ref{Kind: "ServiceEntry", Namespace: o.Namespace, Name: o.Name, Generation: o.Generation},
	}
	switch spec.GetResolution() {
	case networking.ServiceEntry_NONE:
		s.Resolution = model.Headless
	case networking.ServiceEntry_DNS, networking.ServiceEntry_DNS_ROUND_ROBIN:
		s.Resolution = model.DNS
	}
	eps := &model.Endpoints{Host: host, ByPort: map[string][]model.Endpoint{}}
	var ports []model.Port
	for _, p := range spec.GetPorts() {
		proto := p.GetProtocol()
		ports = append(ports, model.Port{Name: p.GetName(), Number: p.GetNumber(), Protocol: model.ProtocolOf(proto, nil, "")})
		for _, e := range spec.GetEndpoints() {
			number := e.GetPorts()[p.GetName()]
			if number == 0 {
				number = p.GetTargetPort()
			}
			if number == 0 {
				number = p.GetNumber()
			}
			eps.ByPort[p.GetName()] = append(eps.ByPort[p.GetName()], model.Endpoint{
				Address: e.GetAddress(), Port: number, Labels: model.LabelsOf(e.GetLabels()),
				Zone: e.GetLocality(), Weight: e.GetWeight(),
			})
		}
	}
	s.Ports = model.TupleOf(ports...)
	return s, eps
}
