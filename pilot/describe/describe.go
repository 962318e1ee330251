// Package describe prints Envoy resources as tables of what they mean.
//
//	in:   resources as proxies get them
//	out:  text: one line a route, endpoint, cluster or filter chain
//
// The same printers serve the script tests and `xebec proxy config`.
package describe

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxy "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/view"
)

// Kinds are the words that Snapshots knows, with the type each means.
var Kinds = map[string]string{
	"cluster": envoy.ClusterType, "endpoint": envoy.EndpointType, "listener": envoy.ListenerType,
	"table": envoy.RouteType, "route": envoy.VirtualHostType,
}

// Snapshots prints all resources of one kind that snapshots hold, in the order of names.
func Snapshots(kind string, of ...*view.Snapshot) (string, error) {
	url, ok := Kinds[kind]
	if !ok {
		return "", fmt.Errorf("%q: want cluster, endpoint, listener, table or route", kind)
	}
	var all []*envoy.Resource
	for _, s := range of {
		for _, r := range s.Sets[envoy.TypeIndex(url)].All() {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b *envoy.Resource) int { return strings.Compare(a.Name, b.Name) })
	var b strings.Builder
	for _, r := range all {
		text, err := Resource(r)
		if err != nil {
			return "", err
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

// Resource prints one resource.
func Resource(r *envoy.Resource) (string, error) {
	var b strings.Builder
	if why := r.Rejected(); why != "" {
		fmt.Fprintf(&b, "REFUSED %s: %s\n", r.Name, why)
	}
	var err error
	switch r.Type {
	case envoy.ClusterType:
		err = with(r, func(c *clusterv3.Cluster) { cluster(&b, c) })
	case envoy.EndpointType:
		err = with(r, func(c *endpointv3.ClusterLoadAssignment) { endpoints(&b, c) })
	case envoy.ListenerType:
		err = with(r, func(l *listenerv3.Listener) { listener(&b, l) })
	case envoy.RouteType:
		err = with(r, func(rc *routev3.RouteConfiguration) {
			fmt.Fprintln(&b, rc.GetName())
			for _, vh := range rc.GetVirtualHosts() {
				virtualHost(&b, vh)
			}
		})
	case envoy.VirtualHostType:
		err = with(r, func(vh *routev3.VirtualHost) { virtualHost(&b, vh) })
	}
	return b.String(), err
}

func with[M any, P interface {
	*M
	proto.Message
}](r *envoy.Resource, f func(P)) error {
	m := P(new(M))
	if err := proto.Unmarshal(r.Body, m); err != nil {
		return fmt.Errorf("decode %s: %w", r.Name, err)
	}
	f(m)
	return nil
}

func cluster(b *strings.Builder, c *clusterv3.Cluster) {
	fmt.Fprintf(b, "%s %s %s", c.GetName(), c.GetType(), c.GetLbPolicy())
	t := c.GetCircuitBreakers().GetThresholds()
	if len(t) > 0 {
		limit(b, "connections", t[0].GetMaxConnections().GetValue())
		limit(b, "pending", t[0].GetMaxPendingRequests().GetValue())
		limit(b, "requests", t[0].GetMaxRequests().GetValue())
	}
	if d := c.GetConnectTimeout().AsDuration(); d.Seconds() != 10 {
		fmt.Fprintf(b, " connect=%s", d)
	}
	if c.GetOutlierDetection() != nil {
		b.WriteString(" outliers")
	}
	switch {
	case len(c.GetTransportSocketMatches()) > 0:
		b.WriteString(" tls=auto")
	case c.GetTransportSocket() != nil:
		b.WriteString(" tls=always")
	default:
		b.WriteString(" tls=never")
	}
	b.WriteByte('\n')
}

func limit(b *strings.Builder, what string, n uint32) {
	if n != math.MaxUint32 {
		fmt.Fprintf(b, " %s≤%d", what, n)
	}
}

func endpoints(b *strings.Builder, c *endpointv3.ClusterLoadAssignment) {
	fmt.Fprintln(b, c.GetClusterName())
	for _, l := range c.GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			a := e.GetEndpoint().GetAddress().GetSocketAddress()
			fmt.Fprintf(b, "  %s:%d", a.GetAddress(), a.GetPortValue())
			if m := e.GetMetadata().GetFilterMetadata()["envoy.transport_socket_match"]; m != nil {
				b.WriteString(" mtls")
			}
			if z := l.GetLocality().GetZone(); z != "" {
				b.WriteString(" zone=" + z)
			}
			if w := e.GetLoadBalancingWeight().GetValue(); w > 1 {
				fmt.Fprintf(b, " weight=%d", w)
			}
			b.WriteByte('\n')
		}
	}
}

func listener(b *strings.Builder, l *listenerv3.Listener) {
	a := l.GetAddress().GetSocketAddress()
	fmt.Fprintf(b, "%s %s:%d", l.GetName(), a.GetAddress(), a.GetPortValue())
	if l.GetBindToPort() == nil || l.GetBindToPort().GetValue() {
		b.WriteString(" bound")
	}
	b.WriteByte('\n')
	for _, fc := range l.GetFilterChains() {
		chain(b, fc)
	}
	if fc := l.GetDefaultFilterChain(); fc != nil {
		chain(b, fc)
	}
}

func chain(b *strings.Builder, fc *listenerv3.FilterChain) {
	var cond []string
	m := fc.GetFilterChainMatch()
	if p := m.GetDestinationPort(); p != nil {
		cond = append(cond, ":"+strconv.Itoa(int(p.GetValue())))
	}
	if t := m.GetTransportProtocol(); t != "" {
		cond = append(cond, t)
	}
	if a := m.GetApplicationProtocols(); len(a) > 0 {
		cond = append(cond, strings.Join(a, ","))
	}
	if len(cond) == 0 {
		cond = []string{"any"}
	}
	open := ""
	if fc.GetTransportSocket() != nil {
		open = " mtls"
	}
	fmt.Fprintf(b, "  %s →%s %s\n", strings.Join(cond, " "), open, filters(fc))
}

func filters(fc *listenerv3.FilterChain) string {
	for _, f := range fc.GetFilters() {
		var h hcm.HttpConnectionManager
		var t tcpproxy.TcpProxy
		switch {
		case f.GetTypedConfig().MessageIs(&h):
			_ = f.GetTypedConfig().UnmarshalTo(&h)
			if h.GetRds() != nil {
				return "http table " + h.GetRds().GetRouteConfigName()
			}
			return "http " + h.GetRouteConfig().GetName()
		case f.GetTypedConfig().MessageIs(&t):
			_ = f.GetTypedConfig().UnmarshalTo(&t)
			if t.GetCluster() != "" {
				return "tcp " + t.GetCluster()
			}
			var parts []string
			for _, c := range t.GetWeightedClusters().GetClusters() {
				parts = append(parts, fmt.Sprintf("%s %d", c.GetName(), c.GetWeight()))
			}
			return "tcp " + strings.Join(parts, " | ")
		}
	}
	return "nothing"
}

func virtualHost(b *strings.Builder, vh *routev3.VirtualHost) {
	fmt.Fprintf(b, "%s [%s]\n", vh.GetName(), strings.Join(vh.GetDomains(), " "))
	for _, r := range vh.GetRoutes() {
		fmt.Fprintf(b, "  %s → %s\n", Match(r.GetMatch()), Action(r))
	}
}

// Match prints a route's condition.
func Match(m *routev3.RouteMatch) string {
	var parts []string
	switch p := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Path:
		parts = append(parts, p.Path)
	case *routev3.RouteMatch_Prefix:
		parts = append(parts, strings.TrimSuffix(p.Prefix, "/")+"/*")
		if !strings.HasSuffix(p.Prefix, "/") {
			parts[0] = p.Prefix + "*"
		}
	case *routev3.RouteMatch_SafeRegex:
		parts = append(parts, "~"+p.SafeRegex.GetRegex())
	}
	if m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue() {
		parts = append(parts, "(any case)")
	}
	for _, h := range m.GetHeaders() {
		not := ""
		if h.GetInvertMatch() {
			not = "!"
		}
		parts = append(parts, not+h.GetName()+value(h.GetStringMatch()))
	}
	for _, q := range m.GetQueryParameters() {
		parts = append(parts, "?"+q.GetName()+value(q.GetStringMatch()))
	}
	return strings.Join(parts, " ")
}

func value(m *matcher.StringMatcher) string {
	switch p := m.GetMatchPattern().(type) {
	case *matcher.StringMatcher_Exact:
		return "=" + p.Exact
	case *matcher.StringMatcher_Prefix:
		return "=" + p.Prefix + "*"
	case *matcher.StringMatcher_SafeRegex:
		return "~" + p.SafeRegex.GetRegex()
	}
	return ""
}
