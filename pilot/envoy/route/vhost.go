// Package route makes Envoy route configurations and virtual hosts: where an HTTP
// request goes.
//
//	in:   HostInput: one host and port with the table that the caller applies to it;
//	      TableInput: one port's name
//	out:  route.v3.VirtualHost, one resource for each host and port, and
//	      route.v3.RouteConfiguration, which holds only what is left over
//
// A proxy gets its virtual hosts one by one (VHDS), so that what a change of routes
// sends does not grow with the number of services.
package route

import (
	"net/netip"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	networking "istio.io/api/networking/v1alpha3"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/envoy/cluster"
	"github.com/xebec-mesh/xebec/pilot/model"
	"github.com/xebec-mesh/xebec/pilot/policy"
	"github.com/xebec-mesh/xebec/pilot/route"
)

// HostInput is all that a virtual host is made from.
type HostInput struct {
	Settings *model.Settings
	Table    string         // name of the route configuration it belongs to
	Host     string         // fully qualified, or as a VirtualService names it
	Port     uint32         // that was called
	Service  *model.Service // nil: there is only a VirtualService
	Local    bool           // the caller is in the service's namespace and may use its bare name
	Routes   route.Table
	Rules    policy.Rules // for requests without a VirtualService
}

// Name is the virtual host's name, which says what it belongs to.
func (in HostInput) Name() string {
	return in.Table + "/" + in.Host + ":" + strconv.FormatUint(uint64(in.Port), 10)
}

// Host makes virtual hosts.
var Host = envoy.Generator[HostInput]{Type: envoy.VirtualHostType, Name: HostInput.Name, Make: func(in HostInput) (proto.Message, []config.Ref) {
	return Build(in), hostOrigins(in)
}}

func hostOrigins(in HostInput) []config.Ref {
	var out []config.Ref
	if in.Routes.Source != nil {
		out = append(out, in.Routes.Source.Ref)
	}
	if in.Service != nil {
		out = append(out, in.Service.Ref)
	}
	return append(out, policy.Origins(in.Rules)...)
}

// Build returns the message, for those who want it and not its encoding.
func Build(in HostInput) *routev3.VirtualHost {
	vh := &routev3.VirtualHost{
		Name:                       in.Name(),
		Domains:                    Domains(in),
		IncludeRequestAttemptCount: true,
	}
	if in.Routes.Source == nil {
		vh.Routes = []*routev3.Route{direct(in)}
		return vh
	}
	for _, rule := range in.Routes.Rules.All() {
		vh.Routes = append(vh.Routes, translate(in, rule))
	}
	return vh
}

// Domains lists what a caller may write for the host. Ports are ignored in matching.
func Domains(in HostInput) []string {
	out := []string{in.Host}
	s := in.Service
	if s == nil {
		return out
	}
	if base, ok := strings.CutSuffix(in.Host, ".svc."+in.Settings.ClusterDomain); ok && !s.External {
		short := []string{base + ".svc", base}
		if in.Local {
			short = append(short, s.Name)
		}
		out = append(out, short...)
		if s.Resolution == model.Headless {
			for _, d := range append(short, in.Host) {
				out = append(out, "*."+d)
			}
		}
	}
	for _, a := range s.Addresses.All() {
		if ip, err := netip.ParseAddr(a); err == nil && ip.Is6() {
			a = "[" + a + "]"
		}
		out = append(out, a)
	}
	return out
}

// direct is the route where nobody has written one.
func direct(in HostInput) *routev3.Route {
	t := policy.TrafficOf(in.Rules, "", in.Port)
	return &routev3.Route{
		Name:      "default",
		Match:     &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Decorator: operation(in.Host, in.Port),
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster.Outbound(in.Port, "", in.Host)},
			Timeout:          durationpb.New(0),
			RetryPolicy:      defaultRetry(),
			HashPolicy:       hashPolicy(t.LoadBalancer.GetConsistentHash()),
		}},
	}
}

func operation(host string, port uint32) *routev3.Decorator {
	return &routev3.Decorator{Operation: host + ":" + strconv.FormatUint(uint64(port), 10) + "/*"}
}

func hashPolicy(h *networking.LoadBalancerSettings_ConsistentHashLB) []*routev3.RouteAction_HashPolicy {
	p := &routev3.RouteAction_HashPolicy{}
	switch {
	case h.GetHttpHeaderName() != "":
		p.PolicySpecifier = &routev3.RouteAction_HashPolicy_Header_{Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: h.GetHttpHeaderName()}}
	case h.GetHttpCookie() != nil:
		c := h.GetHttpCookie()
		cookie := &routev3.RouteAction_HashPolicy_Cookie{Name: c.GetName(), Path: c.GetPath(), Ttl: c.GetTtl()}
		for _, a := range c.GetAttributes() {
			cookie.Attributes = append(cookie.Attributes, &routev3.RouteAction_HashPolicy_CookieAttribute{Name: a.GetName(), Value: a.GetValue()})
		}
		p.PolicySpecifier = &routev3.RouteAction_HashPolicy_Cookie_{Cookie: cookie}
	case h.GetUseSourceIp():
		p.PolicySpecifier = &routev3.RouteAction_HashPolicy_ConnectionProperties_{ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true}}
	case h.GetHttpQueryParameterName() != "":
		p.PolicySpecifier = &routev3.RouteAction_HashPolicy_QueryParameter_{QueryParameter: &routev3.RouteAction_HashPolicy_QueryParameter{Name: h.GetHttpQueryParameterName()}}
	default:
		return nil
	}
	return []*routev3.RouteAction_HashPolicy{p}
}

// TableInput is all that a route configuration is made from.
type TableInput struct {
	Name       string
	Restricted bool // hosts that nobody declared are refused instead of passed through
}

// Table makes route configurations.
var Table = envoy.Generator[TableInput]{Type: envoy.RouteType, Name: func(in TableInput) string { return in.Name }, Make: func(in TableInput) (proto.Message, []config.Ref) {
	rc := &routev3.RouteConfiguration{
		Name:                           in.Name,
		IgnorePortInHostMatching:       true,
		ValidateClusters:               wrapperspb.Bool(false), // a cluster that is missing is an answer of 503, not a refused table
		MaxDirectResponseBodySizeBytes: wrapperspb.UInt32(1 << 20),
		VirtualHosts:                   []*routev3.VirtualHost{leftOver(in.Restricted)},
		ResponseHeadersToRemove:        []string{NotDelivered},
		Vhds:                           &routev3.Vhds{ConfigSource: envoy.ADS()},
	}
	return rc, nil
}}

// leftOver takes requests for hosts that no virtual host names.
func leftOver(restricted bool) *routev3.VirtualHost {
	if restricted {
		return &routev3.VirtualHost{Name: "block_all", Domains: []string{"*"}, Routes: []*routev3.Route{{
			Name:   "block_all",
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 502}},
		}}}
	}
	return &routev3.VirtualHost{Name: "allow_any", Domains: []string{"*"}, Routes: []*routev3.Route{{
		Name:  "allow_any",
		Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster.Passthrough},
			Timeout:          durationpb.New(0),
		}},
	}}}
}

// Own is the table for requests to the application beside the sidecar.
func Own(port uint32, host string) *routev3.RouteConfiguration {
	name := cluster.Inbound(port)
	safe := own(name, host, ownSafeRetry())
	safe.Match.Headers = []*routev3.HeaderMatcher{{
		Name: ":method",
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcher.StringMatcher{
			MatchPattern: &matcher.StringMatcher_SafeRegex{SafeRegex: regex("GET|HEAD|OPTIONS")},
		}},
	}}
	return &routev3.RouteConfiguration{
		Name:             name,
		ValidateClusters: wrapperspb.Bool(false),
		VirtualHosts: []*routev3.VirtualHost{{
			Name: "inbound|http|" + strconv.FormatUint(uint64(port), 10), Domains: []string{"*"},
			Routes: []*routev3.Route{safe, own(name, host, ownRetry())},
		}},
	}
}

func own(name, host string, retry *routev3.RetryPolicy) *routev3.Route {
	return &routev3.Route{
		Name:      "default",
		Match:     &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Decorator: &routev3.Decorator{Operation: host + "/*"},
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: name},
			Timeout:          durationpb.New(0),
			RetryPolicy:      retry,
		}},
	}
}
