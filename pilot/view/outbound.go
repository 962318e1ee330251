package view

import (
	"slices"

	"strings"

	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/envoy/cluster"
	"github.com/xebec-mesh/xebec/pilot/envoy/endpoint"
	"github.com/xebec-mesh/xebec/pilot/envoy/listener"
	envoyroute "github.com/xebec-mesh/xebec/pilot/envoy/route"
	"github.com/xebec-mesh/xebec/pilot/model"
	"github.com/xebec-mesh/xebec/pilot/policy"
	"github.com/xebec-mesh/xebec/pilot/route"
)

// Outbound says on what the calls that a proxy can make depend. Proxies with equal
// ones share a view.
type Outbound struct {
	Caller  policy.Caller
	Sidecar *config.Sidecar // that restricts it; nil: everything is visible
}

// NewOutbound returns the view of what can be called. Update fills it.
func NewOutbound(o Outbound) *View { return newView(o) }

// Units of an outbound view: a word and a host.
const (
	unitBase      = "base"
	unitHost      = "host/"      // clusters, listeners, routes
	unitEndpoints = "endpoints/" // endpoint lists
)

func (o Outbound) initial(m *model.Mesh) []string {
	out := []string{unitBase}
	for h := range m.Hosts {
		out = append(out, unitHost+h, unitEndpoints+h)
	}
	return out
}

func (o Outbound) concerned(k model.Key) []string {
	switch k.Kind {
	case model.KindService, model.KindVirtualService:
		if config.IsDelegateKey(k.Name) {
			return nil
		}
		return []string{unitHost + k.Name, unitEndpoints + k.Name}
	}
	return nil
}

func (o Outbound) gone(m *model.Mesh, unit string) bool {
	_, host, ok := strings.Cut(unit, "/")
	r := model.Reader{Mesh: m}
	return ok && r.Service(host) == nil && r.VirtualServices(host).Len() == 0
}

func (o Outbound) compute(r *model.Reader, c *envoy.Cache, unit string) []*envoy.Resource {
	b := &builder{o: o, r: r, c: c, s: r.Mesh.Settings}
	if host, ok := strings.CutPrefix(unit, unitHost); ok {
		b.host(host)
	} else if host, ok := strings.CutPrefix(unit, unitEndpoints); ok {
		b.endpoints(host)
	} else {
		b.base()
	}
	return b.out
}

// builder collects the resources of one unit.
type builder struct {
	o   Outbound
	r   *model.Reader
	c   *envoy.Cache
	s   *model.Settings
	out []*envoy.Resource
}

func add[In comparable](b *builder, g envoy.Generator[In], in In) {
	b.out = append(b.out, envoy.Make(b.c, g, in))
}

func (b *builder) base() {
	add(b, listener.All, listener.OutboundInput{Settings: b.s, Restricted: b.o.restricted()})
	for _, name := range []string{cluster.Passthrough, cluster.BlackHole} {
		add(b, cluster.Own, cluster.OwnInput{Settings: b.s, Name: name})
	}
}

// host makes what concerns calls to one host, except for where it answers.
func (b *builder) host(host string) {
	s := b.r.Service(host)
	if s == nil {
		b.virtual(host)
		return
	}
	if !b.o.sees(s) {
		return
	}
	rules := policy.RulesOf(b.r, b.o.Caller, host, s.Namespace)
	for _, p := range s.Ports.All() {
		if p.Protocol == model.UDP {
			continue
		}
		b.clusters(s, p, rules)
		switch {
		case p.Protocol.IsHTTP():
			b.http(s, p, rules)
		default:
			b.connections(s, p, rules)
		}
	}
}

func (b *builder) clusters(s *model.Service, p model.Port, rules policy.Rules) {
	in := cluster.Input{Settings: b.s, Service: s, Port: p, Rules: rules, Identities: b.r.Identities(s.Host)}
	switch s.Resolution {
	case model.Headless:
		in.AllMeshed = b.allMeshed(s, p)
	case model.DNS:
		in.Endpoints = b.r.Endpoints(s.Host)
	}
	add(b, cluster.Generator, in)
	for _, name := range policy.Subsets(rules) {
		in.Subset = name
		add(b, cluster.Generator, in)
	}
}

func (b *builder) allMeshed(s *model.Service, p model.Port) bool {
	eps := b.r.Endpoints(s.Host)
	if eps == nil || len(eps.ByPort[p.Name]) == 0 {
		return false
	}
	peers := policy.PeersOf(b.r, s.Namespace)
	for _, e := range eps.ByPort[p.Name] {
		if !endpoint.Mutual(e, peers) {
			return false
		}
	}
	return true
}

// http makes a port on which the host that a request names decides.
func (b *builder) http(s *model.Service, p model.Port, rules policy.Rules) {
	add(b, listener.HTTP, listener.HTTPInput{Settings: b.s, Port: p.Number, Restricted: b.o.restricted()})
	b.routes(tableName(p.Number), s.Host, p.Number, s, rules)
}

// routes makes the table of one host's requests, and the configuration around it.
func (b *builder) routes(table, host string, port uint32, s *model.Service, rules policy.Rules) {
	add(b, envoyroute.Table, envoyroute.TableInput{Name: table, Restricted: b.o.restricted()})
	in := envoyroute.HostInput{
		Settings: b.s, Table: table, Host: host, Port: port, Service: s,
		Routes: route.HTTP(b.r, b.o.Caller, host, port), Rules: rules,
	}
	in.Local = s != nil && s.Namespace == b.o.Caller.Namespace
	add(b, envoyroute.Host, in)
}

// virtual makes routes for a host that is no service: only a VirtualService knows it.
func (b *builder) virtual(host string) {
	v := route.Find(b.r, b.o.Caller, host)
	if v == nil || host == "*" || !listed(v, host) {
		return
	}
	if full := config.Unalias(host, b.s.ClusterDomain); full != "" && b.r.Service(full) != nil {
		return // it is the service's own virtual host that answers to this name
	}
	ports := map[uint32]bool{80: true}
	for _, h := range v.Spec.GetHttp() {
		for _, d := range h.GetRoute() {
			ports[route.Resolve(b.r, b.o.Caller, v.Namespace, d.GetDestination(), 80).Port] = true
		}
	}
	for p := range ports {
		add(b, listener.HTTP, listener.HTTPInput{Settings: b.s, Port: p, Restricted: b.o.restricted()})
		b.routes(tableName(p), host, p, nil, policy.Rules{})
	}
}

func listed(v *config.VirtualService, host string) bool {
	for _, h := range v.Hosts {
		if h == host {
			return true
		}
	}
	return false
}

// connections makes a port whose connections go to one service whatever they say or,
// where the protocol is undeclared, unless they turn out to be HTTP.
func (b *builder) connections(s *model.Service, p model.Port, rules policy.Rules) {
	in := listener.TCPInput{Settings: b.s, Port: p.Number}
	in.To, in.Origins = b.shares(s, p)
	if p.Protocol == model.Sniff {
		in.Table = s.Host + ":" + tableName(p.Number)
		b.routes(in.Table, s.Host, p.Number, s, rules)
	}
	if s.Addresses.Len() > 0 {
		in.Address = s.Addresses
		add(b, listener.TCP, in)
		return
	}
	if s.Resolution != model.Headless {
		return
	}
	if eps := b.r.Endpoints(s.Host); eps != nil { // the client calls the pods themselves
		for _, e := range eps.ByPort[p.Name] {
			in.Address, in.Port = model.TupleOf(e.Address), e.Port
			add(b, listener.TCP, in)
		}
	}
}

func (b *builder) shares(s *model.Service, p model.Port) (model.Tuple[listener.Share], model.Tuple[config.Ref]) {
	if slices.Contains(b.s.AgentHosts.Slice(), s.Host) {
		return model.TupleOf(listener.Share{Cluster: b.s.AgentCluster, Weight: 1}), model.TupleOf(s.Ref)
	}
	routes, to, from := route.TCP(b.r, b.o.Caller, s.Host, p.Number)
	if from == nil || to.Len() == 0 {
		return model.TupleOf(listener.Share{Cluster: cluster.Outbound(p.Number, "", s.Host), Weight: 1}), model.TupleOf(s.Ref)
	}
	var out []listener.Share
	for i, d := range to.All() {
		w := uint32(max(routes[i].GetWeight(), 0))
		if to.Len() == 1 {
			w = 1
		}
		out = append(out, listener.Share{Cluster: cluster.Outbound(d.Port, d.Subset, d.Host), Weight: w})
	}
	return model.TupleOf(out...), model.TupleOf(from.Ref, s.Ref)
}

// endpoints makes the lists of where one host answers, for each port and subset.
func (b *builder) endpoints(host string) {
	s := b.r.Service(host)
	if s == nil || s.Resolution != model.ClusterIP || !b.o.sees(s) {
		return
	}
	rules := policy.RulesOf(b.r, b.o.Caller, host, s.Namespace)
	in := endpoint.Input{Endpoints: b.r.Endpoints(host), Peers: policy.PeersOf(b.r, s.Namespace)}
	for _, p := range s.Ports.All() {
		if p.Protocol == model.UDP {
			continue
		}
		in.Port, in.Subset = p.Name, model.Labels{}
		in.Cluster = cluster.Outbound(p.Number, "", host)
		add(b, endpoint.Generator, in)
		for _, name := range policy.Subsets(rules) {
			in.Subset = model.LabelsOf(policy.Subset(rules, name).GetLabels())
			in.Cluster = cluster.Outbound(p.Number, name, host)
			add(b, endpoint.Generator, in)
		}
	}
}
