package validate

import (
	"maps"
	"slices"
	"strings"
	"time"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/xebec-mesh/xebec/galley/message"
)

func (c *checker) virtualService(s *networking.VirtualService) {
	delegate := len(s.GetHosts()) == 0
	if delegate && (len(s.GetGateways()) > 0 || len(s.GetTcp()) > 0 || len(s.GetTls()) > 0) {
		c.missing(spec.dot("hosts"), "want at least one host; only a VirtualService that others delegate to has none, and then no gateways, tcp or tls")
	}
	c.hosts(s)
	c.gatewayNames(spec.dot("gateways"), s.GetGateways())
	c.exportTo(spec.dot("exportTo"), s.GetExportTo())
	if len(s.GetHttp())+len(s.GetTcp())+len(s.GetTls()) == 0 {
		c.missing(spec.dot("http"), "want at least one route in http, tcp or tls")
	}
	for i, h := range s.GetHttp() {
		c.httpRoute(spec.dot("http").at(i), h, delegate)
	}
	c.unreachable(s.GetHttp())
	for i, t := range s.GetTcp() {
		c.tcpRoute(spec.dot("tcp").at(i), t)
	}
	for i, t := range s.GetTls() {
		c.tlsRoute(spec.dot("tls").at(i), t, s.GetHosts())
	}
}

func (c *checker) hosts(s *networking.VirtualService) {
	seen := map[string]bool{}
	for i, h := range s.GetHosts() {
		p := spec.dot("hosts").at(i)
		c.host(p, h, true)
		if seen[strings.ToLower(h)] {
			c.bad(p, h, "want each host once")
		}
		seen[strings.ToLower(h)] = true
		if h == "*" && (len(s.GetGateways()) == 0 || slices.Contains(s.GetGateways(), "mesh")) {
			c.bad(p, h, "want a host or *.suffix: for sidecars (gateway mesh) * alone is not accepted")
		}
	}
}

func (c *checker) gatewayNames(p path, names []string) {
	for i, g := range names {
		if g == "mesh" {
			continue
		}
		ns, name, ok := strings.Cut(g, "/")
		if !ok {
			name = ns
			ns = "x"
		}
		for _, part := range []string{ns, name} {
			for _, label := range strings.Split(part, ".") {
				if label == "" || strings.ToLower(label) != label || strings.ContainsAny(label, "/*_ ") {
					c.bad(p.at(i), g, "want mesh, the name of a Gateway, or namespace/name")
					return
				}
			}
		}
	}
}

// unreachable warns of routes behind one that takes everything.
func (c *checker) unreachable(routes []*networking.HTTPRoute) {
	for i, h := range routes {
		if len(h.GetMatch()) == 0 && i < len(routes)-1 {
			c.warn(message.VirtualServiceUnreachableRule, spec.dot("http").at(i+1),
				"never reached: http[%d] before it has no match and takes every request", i)
			return
		}
	}
}

func (c *checker) httpRoute(p path, h *networking.HTTPRoute, delegate bool) {
	if h == nil {
		c.missing(p, "want a route")
		return
	}
	c.kindOfRoute(p, h, delegate)
	for i, m := range h.GetMatch() {
		c.httpMatch(p.dot("match").at(i), m)
	}
	c.destinations(p, h)
	c.redirect(p.dot("redirect"), h.GetRedirect())
	c.directResponse(p.dot("directResponse"), h.GetDirectResponse())
	c.rewrite(p.dot("rewrite"), h)
	c.duration(p.dot("timeout"), h.GetTimeout(), 0)
	c.retries(p.dot("retries"), h.GetRetries())
	c.fault(p.dot("fault"), h.GetFault())
	c.mirrors(p, h)
	c.cors(p.dot("corsPolicy"), h.GetCorsPolicy())
	c.headers(p.dot("headers"), h.GetHeaders())
}

// kindOfRoute checks that a route does exactly one thing.
func (c *checker) kindOfRoute(p path, h *networking.HTTPRoute, delegate bool) {
	var does []string
	for _, k := range []struct {
		name string
		is   bool
	}{
		{"route", len(h.GetRoute()) > 0}, {"redirect", h.GetRedirect() != nil},
		{"directResponse", h.GetDirectResponse() != nil}, {"delegate", h.GetDelegate() != nil},
	} {
		if k.is {
			does = append(does, k.name)
		}
	}
	switch {
	case len(does) == 0:
		c.missing(p, "want one of route, redirect, directResponse or delegate")
	case len(does) > 1:
		c.bad(p.dot(does[1]), does[1], "want only one of route, redirect, directResponse and delegate; %s is there too", does[0])
	case delegate && h.GetDelegate() != nil:
		c.bad(p.dot("delegate"), h.GetDelegate().GetName(), "a VirtualService that is delegated to cannot delegate in turn")
	}
	if len(h.GetRoute()) > 0 || len(does) != 1 {
		return
	}
	if h.GetDelegate() == nil && h.GetFault() != nil && h.GetRedirect() != nil {
		c.warn(message.Ignored, p.dot("fault"), "has no effect beside redirect")
	}
	if h.GetDelegate() == nil && h.GetRewrite() != nil {
		c.bad(p.dot("rewrite"), "rewrite", "want it only beside route: %s does not send the request on", does[0])
	}
}

func (c *checker) httpMatch(p path, m *networking.HTTPMatchRequest) {
	if m == nil {
		c.missing(p, "want a condition; leave match out to take every request")
		return
	}
	for _, f := range []struct {
		name string
		m    *networking.StringMatch
	}{{"uri", m.GetUri()}, {"scheme", m.GetScheme()}, {"method", m.GetMethod()}, {"authority", m.GetAuthority()}} {
		c.stringMatch(p.dot(f.name), f.m)
	}
	if u, ok := m.GetUri().GetMatchType().(*networking.StringMatch_Exact); ok && !strings.HasPrefix(u.Exact, "/") && u.Exact != "*" {
		c.bad(p.dot("uri").dot("exact"), u.Exact, "want a path that begins with /")
	}
	if _, ok := m.GetUri().GetMatchType().(*networking.StringMatch_Regex); ok && m.GetIgnoreUriCase() {
		c.warn(message.Ignored, p.dot("ignoreUriCase"), "has no effect on regex; write (?i) into the expression")
	}
	if m.GetPort() != 0 {
		c.port(p.dot("port"), m.GetPort())
	}
	for _, k := range slices.Sorted(maps.Keys(m.GetHeaders())) {
		c.headerMatch(p.dot("headers").key(k), k, m.GetHeaders()[k])
	}
	for _, k := range slices.Sorted(maps.Keys(m.GetWithoutHeaders())) {
		c.headerMatch(p.dot("withoutHeaders").key(k), k, m.GetWithoutHeaders()[k])
	}
	for _, k := range slices.Sorted(maps.Keys(m.GetQueryParams())) {
		q := m.GetQueryParams()[k]
		if k == "" {
			c.missing(p.dot("queryParams"), "want the name of a parameter")
		}
		if r, ok := q.GetMatchType().(*networking.StringMatch_Regex); ok {
			c.regex(p.dot("queryParams").key(k).dot("regex"), r.Regex)
		}
	}
	c.labels(p.dot("sourceLabels"), m.GetSourceLabels())
	if ns := m.GetSourceNamespace(); ns != "" {
		c.dnsLabel(p.dot("sourceNamespace"), ns, "the name of a namespace")
	}
	c.gatewayNames(p.dot("gateways"), m.GetGateways())
}

// headerMatch accepts an empty match: it asks only that the header be there.
func (c *checker) headerMatch(p path, name string, m *networking.StringMatch) {
	if oneOf(name, "uri", "scheme", "method", "authority") {
		c.bad(p, name, "want a header; there is a field %s beside headers for this", name)
		return
	}
	c.headerName(p, name)
	if r, ok := m.GetMatchType().(*networking.StringMatch_Regex); ok {
		c.regex(p.dot("regex"), r.Regex)
	}
}

func (c *checker) destinations(p path, h *networking.HTTPRoute) {
	sum := int64(0)
	for i, d := range h.GetRoute() {
		at := p.dot("route").at(i)
		if d == nil {
			c.missing(at, "want a destination")
			continue
		}
		c.destination(at.dot("destination"), d.GetDestination())
		c.weight(at.dot("weight"), d.GetWeight())
		c.headers(at.dot("headers"), d.GetHeaders())
		sum += int64(d.GetWeight())
	}
	if len(h.GetRoute()) > 1 && sum == 0 {
		c.bad(p.dot("route"), "0", "want weights that sum to more than 0: no destination would get a request")
	}
}

func (c *checker) weight(p path, w int32) {
	if w < 0 || w > 100 {
		c.bad(p, w, "want a weight from 0 to 100; a destination gets its weight's share of the sum of all weights of the route")
	}
}

func (c *checker) destination(p path, d *networking.Destination) {
	if d == nil {
		c.missing(p, "want a destination with a host")
		return
	}
	c.host(p.dot("host"), d.GetHost(), false)
	if d.GetSubset() != "" {
		c.dnsLabelLoose(p.dot("subset"), d.GetSubset())
	}
	if d.GetPort() != nil {
		c.port(p.dot("port").dot("number"), d.GetPort().GetNumber())
	}
}

// dnsLabelLoose checks the name of a subset, such as v2.0-alpha.
func (c *checker) dnsLabelLoose(p path, s string) {
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_') {
			c.bad(p, s, "want a name of letters, digits, -, . and _")
			return
		}
	}
	if len(s) > 63 {
		c.bad(p, s, "want a name of at most 63 characters")
	}
}

func (c *checker) redirect(p path, r *networking.HTTPRedirect) {
	if r == nil {
		return
	}
	if r.GetUri() == "" && r.GetAuthority() == "" && r.GetScheme() == "" && r.GetRedirectPort() == nil && r.GetPrefixRewrite() == "" {
		c.missing(p, "want at least one of uri, authority, port, derivePort or scheme: the redirect would lead to itself")
	}
	if !oneOf(r.GetScheme(), "", "http", "https") {
		c.bad(p.dot("scheme"), r.GetScheme(), "want http or https")
	}
	if code := r.GetRedirectCode(); code != 0 && !slices.Contains([]uint32{301, 302, 303, 307, 308}, code) {
		c.bad(p.dot("redirectCode"), code, "want 301, 302, 303, 307 or 308")
	}
	if t, ok := r.GetRedirectPort().(*networking.HTTPRedirect_Port); ok {
		c.port(p.dot("port"), t.Port)
	}
}

func (c *checker) directResponse(p path, d *networking.HTTPDirectResponse) {
	if d == nil {
		return
	}
	if d.GetStatus() < 200 || d.GetStatus() > 599 {
		c.bad(p.dot("status"), d.GetStatus(), "want an HTTP status from 200 to 599")
	}
	size := len(d.GetBody().GetString_()) + len(d.GetBody().GetBytes())
	switch {
	case size > 1<<20:
		c.bad(p.dot("body"), size, "want a body of at most 1 MiB")
	case size > 100<<10:
		c.warn(message.Ignored, p.dot("body"), "of %d bytes is held in every proxy; beyond 100 kB a service of its own serves better", size)
	}
}

func (c *checker) rewrite(p path, h *networking.HTTPRoute) {
	r := h.GetRewrite()
	if r == nil {
		return
	}
	switch {
	case r.GetUri() != "" && r.GetUriRegexRewrite() != nil:
		c.bad(p.dot("uriRegexRewrite"), r.GetUriRegexRewrite().GetMatch(), "want either uri or uriRegexRewrite")
	case r.GetUri() == "" && r.GetUriRegexRewrite() == nil && r.GetAuthority() == "":
		c.missing(p, "want one of uri, authority or uriRegexRewrite")
	}
	if x := r.GetUriRegexRewrite(); x != nil {
		c.regex(p.dot("uriRegexRewrite").dot("match"), x.GetMatch())
		c.substitution(p.dot("uriRegexRewrite").dot("rewrite"), x)
	}
}

func (c *checker) tcpRoute(p path, t *networking.TCPRoute) {
	for i, m := range t.GetMatch() {
		at := p.dot("match").at(i)
		if m.GetPort() != 0 {
			c.port(at.dot("port"), m.GetPort())
		}
		c.subnets(at.dot("destinationSubnets"), m.GetDestinationSubnets())
		c.labels(at.dot("sourceLabels"), m.GetSourceLabels())
		c.gatewayNames(at.dot("gateways"), m.GetGateways())
	}
	c.routeDestinations(p.dot("route"), t.GetRoute())
}

func (c *checker) tlsRoute(p path, t *networking.TLSRoute, hosts []string) {
	if len(t.GetMatch()) == 0 {
		c.missing(p.dot("match"), "want at least one match with sniHosts")
	}
	for i, m := range t.GetMatch() {
		at := p.dot("match").at(i)
		if len(m.GetSniHosts()) == 0 {
			c.missing(at.dot("sniHosts"), "want at least one server name")
		}
		for j, h := range m.GetSniHosts() {
			c.host(at.dot("sniHosts").at(j), h, true)
			if !covered(h, hosts) {
				c.bad(at.dot("sniHosts").at(j), h, "want a name that spec.hosts covers")
			}
		}
		if m.GetPort() != 0 {
			c.port(at.dot("port"), m.GetPort())
		}
		c.subnets(at.dot("destinationSubnets"), m.GetDestinationSubnets())
		c.labels(at.dot("sourceLabels"), m.GetSourceLabels())
		c.gatewayNames(at.dot("gateways"), m.GetGateways())
	}
	c.routeDestinations(p.dot("route"), t.GetRoute())
}

func covered(sni string, hosts []string) bool {
	for _, h := range hosts {
		if h == "*" || h == sni || strings.HasPrefix(h, "*") && strings.HasSuffix(sni, h[1:]) || !strings.Contains(h, ".") {
			return true
		}
	}
	return false
}

func (c *checker) routeDestinations(p path, to []*networking.RouteDestination) {
	if len(to) == 0 {
		c.missing(p, "want at least one destination")
	}
	sum := int64(0)
	for i, d := range to {
		c.destination(p.at(i).dot("destination"), d.GetDestination())
		c.weight(p.at(i).dot("weight"), d.GetWeight())
		sum += int64(d.GetWeight())
	}
	if len(to) > 1 && sum == 0 {
		c.bad(p, "0", "want weights that sum to more than 0: no destination would get a connection")
	}
}

const shortest = time.Millisecond
