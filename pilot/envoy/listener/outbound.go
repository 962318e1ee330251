package listener

import (
	"strconv"
	"strings"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/envoy/cluster"
	"github.com/xebec-mesh/xebec/pilot/model"
)

// Names of the two listeners that interception delivers to.
const (
	Outbound = "virtualOutbound"
	Inbound  = "virtualInbound"
)

const (
	anyV4  = "0.0.0.0"
	anyV6  = "::"
	loopV4 = "127.0.0.1"
	loopV6 = "::1"
)

// Wildcard is the name of the listener that takes a port at every address.
func Wildcard(port uint32) string { return At(anyV4, port) }

// At is the name of the listener that takes a port at one address.
func At(address string, port uint32) string {
	return address + "_" + strconv.FormatUint(uint64(port), 10)
}

// HTTPInput is all that a listener for requests to one port at any address is made from.
type HTTPInput struct {
	Settings   *model.Settings
	Port       uint32
	Restricted bool // addresses that nobody declared are refused
}

// HTTP makes listeners on which the host that a request names decides.
var HTTP = envoy.Generator[HTTPInput]{Type: envoy.ListenerType, Name: func(in HTTPInput) string { return Wildcard(in.Port) }, Make: func(in HTTPInput) (proto.Message, []config.Ref) {
	port := strconv.FormatUint(uint64(in.Port), 10)
	l := table(in.Settings, Wildcard(in.Port), in.Port, anyV4, anyV6)
	l.FilterChains = []*listenerv3.FilterChain{plainHTTP(outboundHTTP(in.Settings, "outbound_"+Wildcard(in.Port), port, nil), envoy.PlaintextHTTP)}
	l.DefaultFilterChain = &listenerv3.FilterChain{
		Name:    "passthrough",
		Filters: []*listenerv3.Filter{tcp(in.Settings, source, beyond(in.Restricted), []Share{{Cluster: beyond(in.Restricted)}})},
	}
	sniff(in.Settings, l)
	return l, nil
}}

// TCPInput is all that a listener for connections to one service's port is made from.
type TCPInput struct {
	Settings *model.Settings
	Address  model.Tuple[string] // at least one
	Port     uint32
	To       model.Tuple[Share]
	Table    string // undeclared protocol: the route configuration for what turns out to be HTTP; else ""
	Origins  model.Tuple[config.Ref]
}

// TCP makes listeners whose connections go to one service.
var TCP = envoy.Generator[TCPInput]{Type: envoy.ListenerType, Name: func(in TCPInput) string { return At(in.Address.Slice()[0], in.Port) }, Make: func(in TCPInput) (proto.Message, []config.Ref) {
	addresses := in.Address.Slice()
	l := table(in.Settings, At(addresses[0], in.Port), in.Port, addresses...)
	to := in.To.Slice()
	rest := &listenerv3.FilterChain{Filters: []*listenerv3.Filter{tcp(in.Settings, source, to[0].Cluster, to)}}
	if in.Table == "" {
		l.FilterChains = []*listenerv3.FilterChain{rest}
	} else {
		l.FilterChains = []*listenerv3.FilterChain{
			plainHTTP(outboundHTTP(in.Settings, "outbound_"+in.Table, in.Table, envoy.ClientHTTP), envoy.PlaintextHTTP1),
			plainHTTP(outboundHTTP(in.Settings, "outbound_"+in.Table, in.Table, envoy.ClientHTTP2), envoy.PlaintextHTTP2),
		}
		l.DefaultFilterChain = rest
		sniff(in.Settings, l)
	}
	return l, in.Origins.Slice()
}}

// OutboundInput is all that virtualOutbound is made from.
type OutboundInput struct {
	Settings   *model.Settings
	Restricted bool
}

// All makes virtualOutbound: it hands connections to the listener of their original
// destination, and lets through (or refuses) those that have none.
var All = envoy.Generator[OutboundInput]{Type: envoy.ListenerType, Name: func(OutboundInput) string { return Outbound }, Make: func(in OutboundInput) (proto.Message, []config.Ref) {
	l := bound(in.Settings, Outbound, in.Settings.OutboundPort, core.TrafficDirection_OUTBOUND, loopV4, loopV6)
	l.UseOriginalDst = wrapperspb.Bool(true)
	l.FilterChains = []*listenerv3.FilterChain{
		refuse(in.Settings, "loop", in.Settings.OutboundPort),
		{Name: "passthrough", Filters: []*listenerv3.Filter{
			tcp(in.Settings, source, beyond(in.Restricted), []Share{{Cluster: beyond(in.Restricted)}}),
		}},
	}
	return l, nil
}}

func beyond(restricted bool) string {
	if restricted {
		return cluster.BlackHole
	}
	return cluster.Passthrough
}

// refuse closes connections that were addressed to a port of the sidecar itself.
func refuse(s *model.Settings, name string, port uint32) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{
		Name:             name,
		FilterChainMatch: &listenerv3.FilterChainMatch{DestinationPort: wrapperspb.UInt32(port)},
		Filters:          []*listenerv3.Filter{tcp(&model.Settings{}, source, cluster.BlackHole, []Share{{Cluster: cluster.BlackHole}})},
	}
}

func plainHTTP(f *listenerv3.Filter, protocols []string) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{
		FilterChainMatch: &listenerv3.FilterChainMatch{
			TransportProtocol:    "raw_buffer",
			ApplicationProtocols: protocols,
		},
		Filters: []*listenerv3.Filter{f},
	}
}

// sniff looks at the first bytes, for a while.
func sniff(s *model.Settings, l *listenerv3.Listener) {
	l.ListenerFilters = []*listenerv3.ListenerFilter{tlsInspector(), httpInspector()}
	patience(s, l)
}

func patience(s *model.Settings, l *listenerv3.Listener) {
	l.ListenerFiltersTimeout = durationpb.New(time.Duration(s.Sniffing) * time.Millisecond)
	l.ContinueOnListenerFiltersTimeout = true
}

// table is a listener that is not bound: virtualOutbound hands connections to it.
func table(s *model.Settings, name string, port uint32, addresses ...string) *listenerv3.Listener {
	l := bound(s, name, port, core.TrafficDirection_OUTBOUND, addresses...)
	l.BindToPort = wrapperspb.Bool(false)
	return l
}

func bound(s *model.Settings, name string, port uint32, d core.TrafficDirection, addresses ...string) *listenerv3.Listener {
	l := &listenerv3.Listener{Name: name, Address: envoy.Address(addresses[0], port), TrafficDirection: d}
	for _, a := range addresses[1:] {
		if s.IPv6 || !strings.Contains(a, ":") {
			l.AdditionalAddresses = append(l.AdditionalAddresses, &listenerv3.AdditionalAddress{Address: envoy.Address(a, port)})
		}
	}
	return l
}
