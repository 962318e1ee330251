package listener

import (
	"cmp"
	"slices"
	"strconv"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/envoy/cluster"
	"github.com/xebec-mesh/xebec/pilot/model"
	"github.com/xebec-mesh/xebec/pilot/policy"
)

// OwnPort is one port of the application beside the sidecar.
type OwnPort struct {
	Number   uint32
	Protocol model.Protocol
	Host     string // service host:port by which it is called; for spans
	Mode     policy.Mode
}

// InboundInput is all that virtualInbound is made from. Pods whose ports and policies
// are equal share it.
type InboundInput struct {
	Settings *model.Settings
	Ports    model.Tuple[OwnPort]
	Rest     policy.Mode // for ports that nobody declared
	Origins  model.Tuple[config.Ref]
}

// Incoming makes virtualInbound.
//
// What a port accepts decides its filter chains; a connection that fits none is closed:
//
//	mode        mesh TLS      plaintext     the application's own TLS
//	STRICT      opened        closed        closed
//	PERMISSIVE  opened        taken         passed on unopened
//	DISABLE     passed on     taken         passed on unopened
//
// Envoy looks for the port first and does not look further once it has found it, so
// the chains for all other ports never take what a declared port refused.
var Incoming = envoy.Generator[InboundInput]{Type: envoy.ListenerType, Name: func(InboundInput) string { return Inbound }, Make: func(in InboundInput) (proto.Message, []config.Ref) {
	l := bound(in.Settings, Inbound, in.Settings.InboundPort, core.TrafficDirection_INBOUND, anyV4, anyV6)
	ports := in.Ports.Slice()
	slices.SortFunc(ports, func(a, b OwnPort) int { return cmp.Compare(a.Number, b.Number) })
	for _, own := range []uint32{in.Settings.InboundPort, in.Settings.OutboundPort} {
		l.FilterChains = append(l.FilterChains, refuse(in.Settings, "own-"+strconv.Itoa(int(own)), own))
	}
	for _, p := range ports {
		l.FilterChains = append(l.FilterChains, chains(in.Settings, p, cluster.Inbound(p.Number))...)
	}
	rest := OwnPort{Protocol: model.TCP, Mode: in.Rest}
	l.FilterChains = append(l.FilterChains, chains(in.Settings, rest, cluster.InboundPassthrough)...)
	inspect(in, ports, l)
	return l, in.Origins.Slice()
}}

// inspect adds the filters that look at first bytes, only where a chain asks for them:
// a client that waits for the server to speak first would otherwise have to wait.
func inspect(in InboundInput, ports []OwnPort, l *listenerv3.Listener) {
	var noTLS, noHTTP []uint32
	anySniff := false
	for _, p := range ports {
		if p.Mode == policy.Disable && p.Protocol != model.Sniff {
			noTLS = append(noTLS, p.Number)
		}
		if p.Protocol == model.Sniff {
			anySniff = true
		} else {
			noHTTP = append(noHTTP, p.Number)
		}
	}
	t := tlsInspector()
	t.FilterDisabled = onPorts(noTLS)
	l.ListenerFilters = append(l.ListenerFilters, t)
	if anySniff {
		h := httpInspector()
		h.FilterDisabled = onPorts(noHTTP)
		l.ListenerFilters = append(l.ListenerFilters, h)
	}
	patience(in.Settings, l)
}

func onPorts(ports []uint32) *listenerv3.ListenerFilterChainMatchPredicate {
	var rules []*listenerv3.ListenerFilterChainMatchPredicate
	for _, p := range ports {
		rules = append(rules, &listenerv3.ListenerFilterChainMatchPredicate{
			Rule: &listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange{
				DestinationPortRange: &typev3.Int32Range{Start: int32(p), End: int32(p) + 1},
			},
		})
	}
	switch len(rules) {
	case 0:
		return nil
	case 1:
		return rules[0]
	}
	return &listenerv3.ListenerFilterChainMatchPredicate{Rule: &listenerv3.ListenerFilterChainMatchPredicate_OrMatch{
		OrMatch: &listenerv3.ListenerFilterChainMatchPredicate_MatchSet{Rules: rules},
	}}
}

// chains are the ways into one port, or into all that have none of their own (number 0).
func chains(s *model.Settings, p OwnPort, to string) []*listenerv3.FilterChain {
	c := chainer{s, p, to}
	requests := p.Protocol.IsHTTP()
	var out []*listenerv3.FilterChain
	if p.Mode == policy.Disable && p.Protocol != model.Sniff && p.Number != 0 {
		return append(out, c.open("plain", "", nil, requests)) // nothing looks for TLS
	}
	switch p.Mode {
	case policy.Strict:
		if p.Protocol == model.Sniff {
			out = append(out, c.mutual("mtls-http", envoy.MeshHTTPALPN, true))
		}
		return append(out, c.mutual("mtls", nil, requests))
	case policy.Permissive:
		if p.Protocol == model.Sniff {
			out = append(out, c.mutual("mtls-http", envoy.MeshHTTPALPN, true), c.mutual("mtls-tcp", envoy.MeshTCPALPN, false))
		} else {
			out = append(out, c.mutual("mtls", envoy.MeshALPN, requests))
		}
	}
	out = append(out, c.open("tls", "tls", nil, false))
	if p.Protocol == model.Sniff {
		out = append(out, c.open("plain-http", "raw_buffer", envoy.PlaintextHTTP, true))
	}
	return append(out, c.open("plain", "raw_buffer", nil, requests))
}

type chainer struct {
	s  *model.Settings
	p  OwnPort
	to string
}

func (c chainer) mutual(name string, alpn []string, http bool) *listenerv3.FilterChain {
	fc := c.open(name, "tls", alpn, http)
	fc.TransportSocket = envoy.TLSSocket(&tls.DownstreamTlsContext{
		RequireClientCertificate: wrapperspb.Bool(true),
		CommonTlsContext: envoy.MeshTLS(c.s.AgentCluster,
			[]*matcher.StringMatcher{envoy.Prefixed("spiffe://" + c.s.TrustDomain + "/")}, envoy.ServerHTTP),
	})
	return fc
}

func (c chainer) open(name, transport string, alpn []string, http bool) *listenerv3.FilterChain {
	m := &listenerv3.FilterChainMatch{TransportProtocol: transport, ApplicationProtocols: alpn}
	label := "rest-"
	if c.p.Number != 0 {
		m.DestinationPort = wrapperspb.UInt32(c.p.Number)
		label = strconv.FormatUint(uint64(c.p.Number), 10) + "-"
	}
	last := tcp(c.s, destination, c.to, []Share{{Cluster: c.to}})
	if http {
		last = inboundHTTP(c.s, c.p.Number, c.p.Host)
	}
	return &listenerv3.FilterChain{
		Name:             label + name,
		FilterChainMatch: m,
		Filters:          []*listenerv3.Filter{keepDestination(), last},
	}
}
