package describe

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	fault "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

// Action prints what a route does.
func Action(r *routev3.Route) string {
	var parts []string
	switch a := r.GetAction().(type) {
	case *routev3.Route_Route:
		parts = forward(a.Route)
	case *routev3.Route_Redirect:
		parts = redirect(a.Redirect)
	case *routev3.Route_DirectResponse:
		parts = append(parts, fmt.Sprintf("answer %d %q", a.DirectResponse.GetStatus(), a.DirectResponse.GetBody().GetInlineString()))
	}
	parts = append(parts, headers(r.GetRequestHeadersToAdd(), r.GetRequestHeadersToRemove(), "request")...)
	parts = append(parts, headers(r.GetResponseHeadersToAdd(), r.GetResponseHeadersToRemove(), "response")...)
	for _, name := range slices.Sorted(maps.Keys(r.GetTypedPerFilterConfig())) {
		var f fault.HTTPFault
		if c := r.GetTypedPerFilterConfig()[name]; c.MessageIs(&f) && c.UnmarshalTo(&f) == nil {
			if f.GetDelay() != nil {
				parts = append(parts, fmt.Sprintf("delay %s of %s", f.GetDelay().GetFixedDelay().AsDuration(), percent(f.GetDelay().GetPercentage())))
			}
			if f.GetAbort() != nil {
				parts = append(parts, fmt.Sprintf("abort %d of %s", f.GetAbort().GetHttpStatus()+f.GetAbort().GetGrpcStatus(), percent(f.GetAbort().GetPercentage())))
			}
		} else {
			parts = append(parts, strings.TrimPrefix(name, "envoy.filters.http."))
		}
	}
	return strings.Join(parts, "; ")
}

func forward(a *routev3.RouteAction) []string {
	var parts []string
	if w := a.GetWeightedClusters(); w != nil {
		var shares []string
		for _, c := range w.GetClusters() {
			shares = append(shares, fmt.Sprintf("%d %s", c.GetWeight().GetValue(), c.GetName()))
		}
		parts = append(parts, strings.Join(shares, " + "))
	} else {
		parts = append(parts, a.GetCluster())
	}
	if d := a.GetTimeout().AsDuration(); d != 0 {
		parts = append(parts, "timeout "+d.String())
	}
	if p := a.GetRetryPolicy(); p == nil {
		parts = append(parts, "no retries")
	} else if p.GetNumRetries().GetValue() != 2 || p.GetPerTryTimeout() != nil {
		try := fmt.Sprintf("retries %d", p.GetNumRetries().GetValue())
		if p.GetPerTryTimeout() != nil {
			try += " of " + p.GetPerTryTimeout().AsDuration().String()
		}
		parts = append(parts, try+" on "+p.GetRetryOn())
	}
	if a.GetPrefixRewrite() != "" {
		parts = append(parts, "rewrite "+a.GetPrefixRewrite())
	}
	if x := a.GetRegexRewrite(); x != nil {
		parts = append(parts, "rewrite ~"+x.GetPattern().GetRegex()+" to "+x.GetSubstitution())
	}
	if h := a.GetHostRewriteLiteral(); h != "" {
		parts = append(parts, "host "+h)
	}
	for _, m := range a.GetRequestMirrorPolicies() {
		parts = append(parts, fmt.Sprintf("mirror %s to %s", percent(m.GetRuntimeFraction().GetDefaultValue()), m.GetCluster()))
	}
	if len(a.GetHashPolicy()) > 0 {
		parts = append(parts, "sticky")
	}
	return parts
}

func redirect(a *routev3.RedirectAction) []string {
	to := a.GetSchemeRedirect()
	if to != "" {
		to += "://"
	}
	to += a.GetHostRedirect()
	if a.GetPortRedirect() != 0 {
		to += fmt.Sprintf(":%d", a.GetPortRedirect())
	}
	to += a.GetPathRedirect() + a.GetPrefixRewrite()
	return []string{fmt.Sprintf("redirect %s to %s", a.GetResponseCode(), to)}
}

func headers(add []*core.HeaderValueOption, remove []string, side string) []string {
	var parts []string
	for _, h := range add {
		op := "="
		if h.GetAppendAction() == core.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD {
			op = "+="
		}
		parts = append(parts, fmt.Sprintf("%s %s%s%s", side, h.GetHeader().GetKey(), op, h.GetHeader().GetValue()))
	}
	for _, h := range remove {
		parts = append(parts, side+" -"+h)
	}
	return parts
}

func percent(p *typev3.FractionalPercent) string {
	scale := map[typev3.FractionalPercent_DenominatorType]float64{
		typev3.FractionalPercent_HUNDRED: 1, typev3.FractionalPercent_TEN_THOUSAND: 100, typev3.FractionalPercent_MILLION: 10000,
	}[p.GetDenominator()]
	return fmt.Sprintf("%g%%", float64(p.GetNumerator())/scale)
}
