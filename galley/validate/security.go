package validate

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	security "istio.io/api/security/v1beta1"
	typev1 "istio.io/api/type/v1beta1"

	"github.com/xebec-mesh/xebec/galley/message"
)

func (c *checker) selector(s *typev1.WorkloadSelector) {
	c.labels(spec.dot("selector").dot("matchLabels"), s.GetMatchLabels())
}

func (c *checker) peerAuthentication(s *security.PeerAuthentication) {
	c.selector(s.GetSelector())
	if len(s.GetPortLevelMtls()) > 0 && len(s.GetSelector().GetMatchLabels()) == 0 {
		c.missing(spec.dot("selector").dot("matchLabels"), "want labels where portLevelMtls is given: port levels hold for selected workloads only")
	}
	if m := s.GetMtls(); m != nil {
		c.mode(spec.dot("mtls").dot("mode"), m.GetMode())
	}
	for port, m := range s.GetPortLevelMtls() {
		p := spec.dot("portLevelMtls").key(strconv.FormatUint(uint64(port), 10))
		c.port(p, port)
		c.mode(p.dot("mode"), m.GetMode())
	}
}

func (c *checker) mode(p path, m security.PeerAuthentication_MutualTLS_Mode) {
	if _, ok := security.PeerAuthentication_MutualTLS_Mode_name[int32(m)]; !ok {
		c.bad(p, int32(m), "want UNSET, DISABLE, PERMISSIVE or STRICT")
	}
}

const notEnforced = "is accepted and checked but not enforced by this version: it neither allows nor denies anything"

func (c *checker) authorizationPolicy(s *security.AuthorizationPolicy) {
	c.selector(s.GetSelector())
	c.target(s.GetSelector(), s.GetTargetRef(), s.GetTargetRefs())
	if s.GetAction() == security.AuthorizationPolicy_CUSTOM && s.GetProvider().GetName() == "" {
		c.missing(spec.dot("provider").dot("name"), "want the name of a provider with action CUSTOM")
	}
	if s.GetAction() == security.AuthorizationPolicy_DENY && len(s.GetRules()) == 0 {
		c.warn(message.Ignored, spec.dot("rules"), "are empty: a DENY policy without rules denies nothing")
	}
	for i, r := range s.GetRules() {
		c.rule(spec.dot("rules").at(i), r)
	}
	c.warn(message.Ignored, spec, notEnforced)
}

func (c *checker) rule(p path, r *security.Rule) {
	if r == nil {
		c.missing(p, "want from, to or when; {} to match everything")
		return
	}
	for i, f := range r.GetFrom() {
		at := p.dot("from").at(i).dot("source")
		s := f.GetSource()
		if s == nil {
			c.missing(at, "want at least one condition")
			continue
		}
		for field, blocks := range map[string][]string{
			"ipBlocks": s.GetIpBlocks(), "notIpBlocks": s.GetNotIpBlocks(),
			"remoteIpBlocks": s.GetRemoteIpBlocks(), "notRemoteIpBlocks": s.GetNotRemoteIpBlocks(),
		} {
			c.subnets(at.dot(field), blocks)
		}
		for field, values := range map[string][]string{
			"principals": s.GetPrincipals(), "notPrincipals": s.GetNotPrincipals(), "namespaces": s.GetNamespaces(),
			"notNamespaces": s.GetNotNamespaces(), "requestPrincipals": s.GetRequestPrincipals(),
		} {
			c.nonEmpty(at.dot(field), values)
		}
	}
	for i, t := range r.GetTo() {
		at := p.dot("to").at(i).dot("operation")
		o := t.GetOperation()
		if o == nil {
			c.missing(at, "want at least one condition")
			continue
		}
		for field, ports := range map[string][]string{"ports": o.GetPorts(), "notPorts": o.GetNotPorts()} {
			for j, port := range ports {
				if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
					c.bad(at.dot(field).at(j), port, "want a port from 1 to 65535")
				}
			}
		}
		for field, values := range map[string][]string{"hosts": o.GetHosts(), "methods": o.GetMethods(), "paths": o.GetPaths()} {
			c.nonEmpty(at.dot(field), values)
		}
	}
	for i, w := range r.GetWhen() {
		c.condition(p.dot("when").at(i), w)
	}
}

var attributes = []string{
	"source.ip", "source.namespace", "source.principal", "source.serviceAccount", "remote.ip", "request.auth.principal",
	"request.auth.audiences", "request.auth.presenter", "destination.ip", "destination.port", "connection.sni",
}

func (c *checker) condition(p path, w *security.Condition) {
	if len(w.GetValues()) == 0 && len(w.GetNotValues()) == 0 {
		c.missing(p.dot("values"), "want values or notValues")
	}
	k := w.GetKey()
	known := slices.Contains(attributes, k)
	for _, prefix := range []string{"request.headers[", "request.auth.claims[", "experimental.envoy.filters."} {
		known = known || strings.HasPrefix(k, prefix)
	}
	if !known {
		c.bad(p.dot("key"), k, "want request.headers[name], request.auth.claims[name] or one of %s", strings.Join(attributes, ", "))
	}
	if oneOf(k, "source.ip", "remote.ip", "destination.ip") {
		for i, v := range w.GetValues() {
			if _, err := netip.ParsePrefix(v); err != nil {
				if _, err := netip.ParseAddr(v); err != nil {
					c.bad(p.dot("values").at(i), v, "want an address or a range such as 10.1.0.0/16")
				}
			}
		}
	}
}

func (c *checker) nonEmpty(p path, values []string) {
	for i, v := range values {
		if v == "" {
			c.missing(p.at(i), "want a value; * matches any that is not empty")
		}
	}
}

func (c *checker) target(s *typev1.WorkloadSelector, one *typev1.PolicyTargetReference, many []*typev1.PolicyTargetReference) {
	n := 0
	for _, is := range []bool{s != nil, one != nil, len(many) > 0} {
		if is {
			n++
		}
	}
	if n > 1 {
		c.bad(spec.dot("targetRefs"), len(many), "want only one of selector, targetRef and targetRefs")
	}
}

func (c *checker) requestAuthentication(s *security.RequestAuthentication) {
	c.selector(s.GetSelector())
	c.target(s.GetSelector(), s.GetTargetRef(), s.GetTargetRefs())
	for i, r := range s.GetJwtRules() {
		p := spec.dot("jwtRules").at(i)
		if r.GetIssuer() == "" {
			c.missing(p.dot("issuer"), "want the token's issuer, as its iss claim says")
		}
		if r.GetJwks() != "" && r.GetJwksUri() != "" {
			c.bad(p.dot("jwks"), "jwks", "want either jwks or jwksUri")
		}
		if r.GetJwksUri() != "" {
			c.url(p.dot("jwksUri"), r.GetJwksUri(), "http", "https")
		}
		for j, h := range r.GetFromHeaders() {
			c.headerName(p.dot("fromHeaders").at(j).dot("name"), h.GetName())
		}
		for j, h := range r.GetOutputClaimToHeaders() {
			c.headerName(p.dot("outputClaimToHeaders").at(j).dot("header"), h.GetHeader())
			if h.GetClaim() == "" {
				c.missing(p.dot("outputClaimToHeaders").at(j).dot("claim"), "want the name of a claim")
			}
		}
		c.duration(p.dot("timeout"), r.GetTimeout(), shortest)
	}
	c.warn(message.Ignored, spec, notEnforced)
}
