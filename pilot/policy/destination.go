package policy

import (
	networking "istio.io/api/networking/v1alpha3"

	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/pilot/model"
)

// Caller is what configuration may ask about who calls.
type Caller struct {
	Namespace string
	Labels    model.Labels // only those on which some configuration depends
}

// Rules are the DestinationRules that one caller applies to one host. The first one
// that says something wins; subsets of all are joined.
type Rules = model.Tuple[*config.DestinationRule]

// RulesOf finds them as Istio does: in the caller's namespace, else in the
// service's, else in the root namespaces; in each the most specific host wins.
func RulesOf(r *model.Reader, who Caller, host, serviceNamespace string) Rules {
	var places []string
	isRoot := false
	for _, root := range r.Mesh.Settings.RootNamespaces.All() {
		isRoot = isRoot || root == who.Namespace
	}
	if !isRoot {
		places = append(places, who.Namespace)
	}
	places = append(places, serviceNamespace)
	places = append(places, r.Mesh.Settings.RootNamespaces.Slice()...)

	lists := make([]Rules, 0, 6)
	for _, pattern := range config.Lookup(host, r.Mesh.Settings.ClusterDomain) {
		if t := r.DestinationRules(pattern); t.Len() > 0 {
			lists = append(lists, t)
		}
	}
	if len(lists) == 0 {
		return Rules{}
	}
	for _, ns := range places {
		for _, t := range lists {
			if found := rulesIn(t, ns, who); len(found) > 0 {
				return model.TupleOf(found...)
			}
		}
	}
	return Rules{}
}

func rulesIn(t Rules, namespace string, who Caller) []*config.DestinationRule {
	var selected, general []*config.DestinationRule
	for _, d := range t.All() {
		if d.Namespace != namespace || !d.Exports.To(who.Namespace) {
			continue
		}
		sel := d.Spec.GetWorkloadSelector().GetMatchLabels()
		switch {
		case len(sel) == 0:
			general = append(general, d)
		case d.Namespace == who.Namespace && who.Labels.Contain(sel):
			selected = append(selected, d)
		}
	}
	if len(selected) > 0 {
		return selected
	}
	return general
}

// Subset finds a subset by name.
func Subset(rules Rules, name string) *networking.Subset {
	for _, d := range rules.All() {
		for _, s := range d.Spec.GetSubsets() {
			if s.GetName() == name {
				return s
			}
		}
	}
	return nil
}

// Subsets lists the names of all subsets, each once.
func Subsets(rules Rules) []string {
	var out []string
	seen := map[string]bool{}
	for _, d := range rules.All() {
		for _, s := range d.Spec.GetSubsets() {
			if !seen[s.GetName()] {
				seen[s.GetName()] = true
				out = append(out, s.GetName())
			}
		}
	}
	return out
}

// Traffic is the policy that holds for one port of one subset. A nil part means
// Istio's default.
type Traffic struct {
	LoadBalancer     *networking.LoadBalancerSettings
	ConnectionPool   *networking.ConnectionPoolSettings
	OutlierDetection *networking.OutlierDetection
	TLS              *networking.ClientTLSSettings
}

// TrafficOf merges what the rules say: the subset's policy replaces the host's part
// by part, and a port's settings replace all parts, as Istio documents it.
func TrafficOf(rules Rules, subset string, port uint32) Traffic {
	var t Traffic
	for _, d := range rules.All() {
		if p := d.Spec.GetTrafficPolicy(); p != nil {
			t.overlay(p, port)
			break
		}
	}
	if subset != "" {
		if p := Subset(rules, subset).GetTrafficPolicy(); p != nil {
			t.overlay(p, port)
		}
	}
	return t
}

func (t *Traffic) overlay(p *networking.TrafficPolicy, port uint32) {
	for _, pl := range p.GetPortLevelSettings() {
		if pl.GetPort().GetNumber() == port {
			*t = Traffic{pl.GetLoadBalancer(), pl.GetConnectionPool(), pl.GetOutlierDetection(), pl.GetTls()}
			return
		}
	}
	if p.LoadBalancer != nil {
		t.LoadBalancer = p.LoadBalancer
	}
	if p.ConnectionPool != nil {
		t.ConnectionPool = p.ConnectionPool
	}
	if p.OutlierDetection != nil {
		t.OutlierDetection = p.OutlierDetection
	}
	if p.Tls != nil {
		t.TLS = p.Tls
	}
}

// Origins are the objects behind rules.
func Origins(rules Rules) []config.Ref {
	var out []config.Ref
	for _, d := range rules.All() {
		out = append(out, d.Ref)
	}
	return out
}
