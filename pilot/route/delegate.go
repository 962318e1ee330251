package route

import (
	"maps"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/pilot/model"
	"github.com/xebec-mesh/xebec/pilot/policy"
)

// delegated returns the rules of the VirtualService that a route delegates to, each
// under both its own condition and the route's. There is one level of delegation.
func delegated(r *model.Reader, who policy.Caller, v *config.VirtualService, h *networking.HTTPRoute, port uint32) []Rule {
	ns := h.GetDelegate().GetNamespace()
	if ns == "" {
		ns = v.Namespace
	}
	var out []Rule
	for _, to := range r.VirtualServices(config.DelegateKey(ns, h.GetDelegate().GetName())).All() {
		if !to.Exports.To(v.Namespace) {
			continue
		}
		for _, inner := range to.Spec.GetHttp() {
			if inner.GetDelegate() == nil {
				both := &networking.HTTPRoute{Match: conditions(h.GetMatch(), inner.GetMatch())}
				if len(both.Match) > 0 || len(h.GetMatch())+len(inner.GetMatch()) == 0 {
					out = append(out, expandAs(r, who, to, inner, both.GetMatch(), port)...)
				}
			}
		}
	}
	return out
}

// conditions joins each of the outer with each of the inner ones.
func conditions(outer, inner []*networking.HTTPMatchRequest) []*networking.HTTPMatchRequest {
	if len(outer) == 0 {
		return inner
	}
	if len(inner) == 0 {
		return outer
	}
	var out []*networking.HTTPMatchRequest
	for _, o := range outer {
		for _, i := range inner {
			if m := both(o, i); m != nil {
				out = append(out, m)
			}
		}
	}
	return out
}

// both is the condition under which two hold, or nil if they never do.
func both(o, i *networking.HTTPMatchRequest) *networking.HTTPMatchRequest {
	uri, ok := bothURIs(o.GetUri(), i.GetUri())
	if !ok || o.GetPort() != 0 && i.GetPort() != 0 && o.GetPort() != i.GetPort() {
		return nil
	}
	m := i.DeepCopy()
	m.Uri = uri
	m.Name = strings.Trim(o.GetName()+"-"+i.GetName(), "-")
	m.IgnoreUriCase = o.GetIgnoreUriCase() || i.GetIgnoreUriCase()
	m.Scheme = first(i.GetScheme(), o.GetScheme())
	m.Method = first(i.GetMethod(), o.GetMethod())
	m.Authority = first(i.GetAuthority(), o.GetAuthority())
	m.Headers = joined(o.GetHeaders(), i.GetHeaders())
	m.WithoutHeaders = joined(o.GetWithoutHeaders(), i.GetWithoutHeaders())
	m.QueryParams = joined(o.GetQueryParams(), i.GetQueryParams())
	m.SourceLabels = joined(o.GetSourceLabels(), i.GetSourceLabels())
	if m.Port == 0 {
		m.Port = o.GetPort()
	}
	if m.SourceNamespace == "" {
		m.SourceNamespace = o.GetSourceNamespace()
	}
	if len(m.Gateways) == 0 {
		m.Gateways = o.GetGateways()
	}
	return m
}

func first(a, b *networking.StringMatch) *networking.StringMatch {
	if a != nil {
		return a
	}
	return b
}

// bothURIs accepts what can be told apart without running both: the inner path must
// lie under the outer prefix.
func bothURIs(o, i *networking.StringMatch) (*networking.StringMatch, bool) {
	if o == nil || i == nil {
		return first(i, o), true
	}
	under, ok := o.GetMatchType().(*networking.StringMatch_Prefix)
	if !ok {
		return nil, false
	}
	switch t := i.GetMatchType().(type) {
	case *networking.StringMatch_Exact:
		return i, strings.HasPrefix(t.Exact, under.Prefix)
	case *networking.StringMatch_Prefix:
		return i, strings.HasPrefix(t.Prefix, under.Prefix)
	}
	return nil, false
}

func joined[V any](o, i map[string]V) map[string]V {
	if len(o) == 0 {
		return i
	}
	out := maps.Clone(o)
	maps.Copy(out, i)
	return out
}
