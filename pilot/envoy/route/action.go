package route

import (
	"maps"
	"slices"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	networking "istio.io/api/networking/v1alpha3"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/xebec-mesh/xebec/pilot/envoy/cluster"
	"github.com/xebec-mesh/xebec/pilot/route"
)

func translate(in HostInput, rule route.Rule) *routev3.Route {
	h := rule.Route
	out := &routev3.Route{Name: h.GetName(), Match: match(rule.Match)}
	if n := rule.Match.GetName(); n != "" {
		out.Name = strings.TrimPrefix(out.Name+"."+n, ".")
	}
	headers(h.GetHeaders(), &out.RequestHeadersToAdd, &out.RequestHeadersToRemove, &out.ResponseHeadersToAdd, &out.ResponseHeadersToRemove)
	switch {
	case h.GetRedirect() != nil:
		out.Action = &routev3.Route_Redirect{Redirect: redirect(h.GetRedirect(), in.Port)}
	case h.GetDirectResponse() != nil:
		out.Action = &routev3.Route_DirectResponse{DirectResponse: response(h.GetDirectResponse())}
	default:
		out.Action = &routev3.Route_Route{Route: action(h, rule, out)}
		out.Decorator = operationOf(in, rule)
	}
	perFilter(out, h)
	return out
}

func operationOf(in HostInput, rule route.Rule) *routev3.Decorator {
	for _, d := range rule.To.All() {
		return operation(d.Host, d.Port)
	}
	return operation(in.Host, in.Port)
}

func action(h *networking.HTTPRoute, rule route.Rule, out *routev3.Route) *routev3.RouteAction {
	a := &routev3.RouteAction{Timeout: durationpb.New(0), RetryPolicy: retry(h.GetRetries())}
	if t := h.GetTimeout(); t != nil {
		a.Timeout = t
	}
	rewrite(a, h.GetRewrite())
	if host := authority(h.GetHeaders()); host != "" {
		a.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: host}
	}
	split(a, h, rule, out)
	a.RequestMirrorPolicies = mirrorPolicies(h, rule)
	for _, d := range rule.To.All() {
		if d.Hash != nil {
			a.HashPolicy = hashPolicy(d.Hash)
			break
		}
	}
	return a
}

// split sends each destination its share. Weights need not sum to anything in
// particular; a destination of weight 0 gets nothing, unless it is the only one.
func split(a *routev3.RouteAction, h *networking.HTTPRoute, rule route.Rule, out *routev3.Route) {
	to := rule.To.Slice()
	var shares []*routev3.WeightedCluster_ClusterWeight
	var only *networking.HTTPRouteDestination
	for i, d := range h.GetRoute() {
		if d.GetWeight() == 0 && len(to) > 1 {
			continue
		}
		only = d
		w := &routev3.WeightedCluster_ClusterWeight{
			Name:   cluster.Outbound(to[i].Port, to[i].Subset, to[i].Host),
			Weight: wrapperspb.UInt32(uint32(max(d.GetWeight(), 0))),
		}
		headers(d.GetHeaders(), &w.RequestHeadersToAdd, &w.RequestHeadersToRemove, &w.ResponseHeadersToAdd, &w.ResponseHeadersToRemove)
		if host := authority(d.GetHeaders()); host != "" {
			w.HostRewriteSpecifier = &routev3.WeightedCluster_ClusterWeight_HostRewriteLiteral{HostRewriteLiteral: host}
		}
		shares = append(shares, w)
	}
	switch len(shares) {
	case 0:
		a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: cluster.BlackHole}
	case 1:
		a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: shares[0].GetName()}
		headers(only.GetHeaders(), &out.RequestHeadersToAdd, &out.RequestHeadersToRemove, &out.ResponseHeadersToAdd, &out.ResponseHeadersToRemove)
		if host := authority(only.GetHeaders()); host != "" {
			a.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: host}
		}
	default:
		a.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: &routev3.WeightedCluster{Clusters: shares}}
	}
}

func rewrite(a *routev3.RouteAction, r *networking.HTTPRewrite) {
	if r == nil {
		return
	}
	if r.GetAuthority() != "" {
		a.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: r.GetAuthority()}
	}
	if x := r.GetUriRegexRewrite(); x != nil {
		a.RegexRewrite = &matcher.RegexMatchAndSubstitute{Pattern: regex(x.GetMatch()), Substitution: x.GetRewrite()}
		return
	}
	a.PrefixRewrite = r.GetUri()
}

func mirrorPolicies(h *networking.HTTPRoute, rule route.Rule) []*routev3.RouteAction_RequestMirrorPolicy {
	var out []*routev3.RouteAction_RequestMirrorPolicy
	for i, d := range rule.Mirrors.All() {
		percent := h.GetMirrorPercentage()
		if len(h.GetMirrors()) > 0 {
			percent = h.GetMirrors()[i].GetPercentage()
		} else if p := h.GetMirrorPercent(); percent == nil && p != nil { //nolint:staticcheck // the older spelling is still written
			percent = &networking.Percent{Value: float64(p.GetValue())}
		}
		share := 100.0
		if percent != nil {
			share = percent.GetValue()
		}
		if share <= 0 {
			continue
		}
		out = append(out, &routev3.RouteAction_RequestMirrorPolicy{
			Cluster:         cluster.Outbound(d.Port, d.Subset, d.Host),
			RuntimeFraction: &core.RuntimeFractionalPercent{DefaultValue: fraction(share)},
		})
	}
	return out
}

// fraction keeps four decimals of a percentage.
func fraction(percent float64) *typev3.FractionalPercent {
	return &typev3.FractionalPercent{Numerator: uint32(percent*10000 + 0.5), Denominator: typev3.FractionalPercent_MILLION}
}

func redirect(r *networking.HTTPRedirect, port uint32) *routev3.RedirectAction {
	out := &routev3.RedirectAction{HostRedirect: r.GetAuthority()}
	if r.GetUri() != "" {
		out.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: r.GetUri()}
	}
	if p := r.GetPrefixRewrite(); p != "" {
		out.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: p}
	}
	if r.GetScheme() != "" {
		out.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: r.GetScheme()}
	}
	switch p := r.GetRedirectPort().(type) {
	case *networking.HTTPRedirect_Port:
		out.PortRedirect = p.Port
	case *networking.HTTPRedirect_DerivePort:
		if p.DerivePort == networking.HTTPRedirect_FROM_REQUEST_PORT {
			out.PortRedirect = port
		}
	}
	switch r.GetRedirectCode() {
	case 302:
		out.ResponseCode = routev3.RedirectAction_FOUND
	case 303:
		out.ResponseCode = routev3.RedirectAction_SEE_OTHER
	case 307:
		out.ResponseCode = routev3.RedirectAction_TEMPORARY_REDIRECT
	case 308:
		out.ResponseCode = routev3.RedirectAction_PERMANENT_REDIRECT
	}
	return out
}

func response(r *networking.HTTPDirectResponse) *routev3.DirectResponseAction {
	out := &routev3.DirectResponseAction{Status: r.GetStatus()}
	switch b := r.GetBody().GetSpecifier().(type) {
	case *networking.HTTPBody_String_:
		out.Body = &core.DataSource{Specifier: &core.DataSource_InlineString{InlineString: b.String_}}
	case *networking.HTTPBody_Bytes:
		out.Body = &core.DataSource{Specifier: &core.DataSource_InlineBytes{InlineBytes: b.Bytes}}
	}
	return out
}

// headers translates header operations, except for the authority, which Envoy keeps elsewhere.
func headers(h *networking.Headers, add *[]*core.HeaderValueOption, remove *[]string, addBack *[]*core.HeaderValueOption, removeBack *[]string) {
	operations(h.GetRequest(), add, remove)
	operations(h.GetResponse(), addBack, removeBack)
}

func operations(o *networking.Headers_HeaderOperations, add *[]*core.HeaderValueOption, remove *[]string) {
	for _, k := range slices.Sorted(maps.Keys(o.GetSet())) {
		if !isAuthority(k) {
			*add = append(*add, option(k, o.GetSet()[k], core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(o.GetAdd())) {
		if !isAuthority(k) {
			*add = append(*add, option(k, o.GetAdd()[k], core.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD))
		}
	}
	*remove = append(*remove, o.GetRemove()...)
}

func option(k, v string, how core.HeaderValueOption_HeaderAppendAction) *core.HeaderValueOption {
	return &core.HeaderValueOption{Header: &core.HeaderValue{Key: k, Value: v}, AppendAction: how}
}

func isAuthority(k string) bool { return strings.EqualFold(k, "host") || k == ":authority" }

func authority(h *networking.Headers) string {
	for k, v := range h.GetRequest().GetSet() {
		if isAuthority(k) {
			return v
		}
	}
	return ""
}
