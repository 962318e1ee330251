// Package route turns VirtualServices into the rules that one caller applies to one
// host and port.
//
//	in:   the model, the caller, a host and a port
//	out:  Table: rules in order, with every destination resolved to a host and port
//
// Tables can be compared with ==: two callers to whom the same holds get equal ones,
// and share what is generated from them. The rules point at the upstream messages,
// which nobody modifies.
package route

import (
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/pilot/model"
	"github.com/xebec-mesh/xebec/pilot/policy"
)

// Table is what one caller's requests to one host and port go through, first match
// first. Without Source there is no VirtualService and Rules is empty.
type Table struct {
	Source *config.VirtualService
	Rules  model.Tuple[Rule]
}

// Rule is one match of one http route. A route with several matches is several rules.
type Rule struct {
	Route   *networking.HTTPRoute
	Match   *networking.HTTPMatchRequest // nil: everything
	To      model.Tuple[Destination]     // for each of Route.Route
	Mirrors model.Tuple[Destination]     // for Route.Mirror, or for each of Route.Mirrors
}

// Destination is where a request is sent.
type Destination struct {
	Host   string
	Port   uint32
	Subset string
	Found  bool                                              // there is such a service and port
	Hash   *networking.LoadBalancerSettings_ConsistentHashLB // how to choose among endpoints; nil: no affinity
}

// Find returns the VirtualService that routes a host for a caller: the one whose
// host is most specific, and of those the oldest.
func Find(r *model.Reader, who policy.Caller, host string) *config.VirtualService {
	for _, pattern := range config.Lookup(host, r.Mesh.Settings.ClusterDomain) {
		for _, v := range r.VirtualServices(pattern).All() {
			if v.Exports.To(who.Namespace) && forMesh(v.Gateways) && v.Spec.GetHosts() != nil {
				return v
			}
		}
	}
	return nil
}

func forMesh(gateways []string) bool {
	for _, g := range gateways {
		if g == config.MeshGateway {
			return true
		}
	}
	return false
}

// HTTP returns the table for requests to host and port.
func HTTP(r *model.Reader, who policy.Caller, host string, port uint32) Table {
	v := Find(r, who, host)
	if v == nil || len(v.Spec.GetHttp()) == 0 {
		return Table{}
	}
	var rules []Rule
	for _, h := range v.Spec.GetHttp() {
		found := expand(r, who, v, h, port)
		if h.GetDelegate() != nil {
			found = delegated(r, who, v, h, port)
		}
		rules = append(rules, found...)
		if n := len(found); n > 0 && found[n-1].Match == nil {
			break // nothing gets past it
		}
	}
	return Table{Source: v, Rules: model.TupleOf(rules...)}
}

func expand(r *model.Reader, who policy.Caller, v *config.VirtualService, h *networking.HTTPRoute, port uint32) []Rule {
	return expandAs(r, who, v, h, h.GetMatch(), port)
}

// expandAs is expand under other conditions than the route's own.
func expandAs(r *model.Reader, who policy.Caller, v *config.VirtualService, h *networking.HTTPRoute, conditions []*networking.HTTPMatchRequest, port uint32) []Rule {
	rule := Rule{Route: h, To: destinations(r, who, v, h.GetRoute(), port), Mirrors: mirrors(r, who, v, h, port)}
	if len(conditions) == 0 {
		return []Rule{rule}
	}
	var out []Rule
	for _, m := range conditions {
		if !applies(m, who, v, port) {
			continue
		}
		rule.Match = m
		if Everything(m) {
			rule.Match = nil
		}
		out = append(out, rule)
		if rule.Match == nil {
			break
		}
	}
	return out
}

// applies decides what is known before a request comes: who calls, which port, and
// that we are a sidecar.
func applies(m *networking.HTTPMatchRequest, who policy.Caller, v *config.VirtualService, port uint32) bool {
	if m.GetPort() != 0 && m.GetPort() != port {
		return false
	}
	if len(m.GetGateways()) > 0 && !forMesh(config.Gateways(m.GetGateways(), v.Namespace)) {
		return false
	}
	if ns := m.GetSourceNamespace(); ns != "" && ns != who.Namespace {
		return false
	}
	return who.Labels.Contain(m.GetSourceLabels())
}

// Everything says whether a match lets every request through.
func Everything(m *networking.HTTPMatchRequest) bool {
	if u := m.GetUri(); u != nil && u.GetPrefix() != "/" && u.GetRegex() != "*" {
		return false
	}
	return m.GetScheme() == nil && m.GetMethod() == nil && m.GetAuthority() == nil &&
		len(m.GetHeaders()) == 0 && len(m.GetWithoutHeaders()) == 0 && len(m.GetQueryParams()) == 0
}

func destinations(r *model.Reader, who policy.Caller, v *config.VirtualService, to []*networking.HTTPRouteDestination, port uint32) model.Tuple[Destination] {
	out := make([]Destination, 0, len(to))
	for _, d := range to {
		out = append(out, Resolve(r, who, v.Namespace, d.GetDestination(), port))
	}
	return model.TupleOf(out...)
}

func mirrors(r *model.Reader, who policy.Caller, v *config.VirtualService, h *networking.HTTPRoute, port uint32) model.Tuple[Destination] {
	var out []Destination
	for _, m := range h.GetMirrors() {
		out = append(out, Resolve(r, who, v.Namespace, m.GetDestination(), port))
	}
	if len(out) == 0 && h.GetMirror() != nil {
		out = append(out, Resolve(r, who, v.Namespace, h.GetMirror(), port))
	}
	return model.TupleOf(out...)
}

// Resolve finds the host and port that a destination means. A port that is not named
// is the service's only one or, where it has several, the one that was called.
func Resolve(r *model.Reader, who policy.Caller, namespace string, d *networking.Destination, port uint32) Destination {
	host := config.Host(d.GetHost(), namespace, r.Mesh.Settings.ClusterDomain)
	s := r.Service(host)
	if s == nil {
		if full := config.Unalias(host, r.Mesh.Settings.ClusterDomain); full != "" {
			if s = r.Service(full); s != nil {
				host = full
			}
		}
	}
	out := Destination{Host: host, Port: d.GetPort().GetNumber(), Subset: d.GetSubset()}
	if s == nil {
		if out.Port == 0 {
			out.Port = port
		}
		return out
	}
	if out.Port == 0 {
		out.Port = port
		if s.Ports.Len() == 1 {
			for _, p := range s.Ports.All() {
				out.Port = p.Number
			}
		}
	}
	rules := policy.RulesOf(r, who, host, s.Namespace)
	_, out.Found = s.PortNumbered(out.Port)
	if out.Subset != "" && policy.Subset(rules, out.Subset) == nil {
		out.Found = false
	}
	out.Hash = policy.TrafficOf(rules, out.Subset, out.Port).LoadBalancer.GetConsistentHash()
	return out
}

// TCP returns where connections to host and port go: one destination for each of
// the route's, with the route itself; nil if nobody says.
func TCP(r *model.Reader, who policy.Caller, host string, port uint32) ([]*networking.RouteDestination, model.Tuple[Destination], *config.VirtualService) {
	v := Find(r, who, host)
	if v == nil {
		return nil, model.Tuple[Destination]{}, nil
	}
	for _, t := range v.Spec.GetTcp() {
		if len(t.GetMatch()) == 0 || anyL4(t.GetMatch(), who, v, port) {
			return t.GetRoute(), tcpDestinations(r, who, v, t.GetRoute(), port), v
		}
	}
	for _, t := range v.Spec.GetTls() {
		for _, m := range t.GetMatch() {
			if sniCovers(m.GetSniHosts(), host) && l4(m.GetPort(), m.GetGateways(), m.GetSourceLabels(), m.GetSourceNamespace(), who, v, port) {
				return t.GetRoute(), tcpDestinations(r, who, v, t.GetRoute(), port), v
			}
		}
	}
	return nil, model.Tuple[Destination]{}, nil
}

func anyL4(ms []*networking.L4MatchAttributes, who policy.Caller, v *config.VirtualService, port uint32) bool {
	for _, m := range ms {
		if l4(m.GetPort(), m.GetGateways(), m.GetSourceLabels(), m.GetSourceNamespace(), who, v, port) {
			return true
		}
	}
	return false
}

func l4(want uint32, gateways []string, labels map[string]string, ns string, who policy.Caller, v *config.VirtualService, port uint32) bool {
	return (want == 0 || want == port) &&
		(len(gateways) == 0 || forMesh(config.Gateways(gateways, v.Namespace))) &&
		(ns == "" || ns == who.Namespace) && who.Labels.Contain(labels)
}

func sniCovers(hosts []string, host string) bool {
	for _, h := range hosts {
		if config.Matches(h, host) || strings.EqualFold(h, host) {
			return true
		}
	}
	return false
}

func tcpDestinations(r *model.Reader, who policy.Caller, v *config.VirtualService, to []*networking.RouteDestination, port uint32) model.Tuple[Destination] {
	out := make([]Destination, 0, len(to))
	for _, d := range to {
		out = append(out, Resolve(r, who, v.Namespace, d.GetDestination(), port))
	}
	return model.TupleOf(out...)
}
