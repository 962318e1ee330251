package validate

import (
	"maps"
	"net/netip"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/xebec-mesh/xebec/galley/message"
)

// retryWords are what Envoy knows in x-envoy-retry-on and x-envoy-retry-grpc-on.
var retryWords = []string{
	"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited",
	"retriable-4xx", "refused-stream", "retriable-status-codes", "retriable-headers", "http3-post-connect-failure",
	"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
}

func (c *checker) retries(p path, r *networking.HTTPRetry) {
	if r == nil {
		return
	}
	if r.GetAttempts() < 0 {
		c.bad(p.dot("attempts"), r.GetAttempts(), "want 0 (no retries) or more")
	}
	if r.GetAttempts() == 0 && (r.GetPerTryTimeout() != nil || r.GetRetryOn() != "") {
		c.bad(p.dot("attempts"), r.GetAttempts(), "want more than 0 where perTryTimeout or retryOn is given")
	}
	c.duration(p.dot("perTryTimeout"), r.GetPerTryTimeout(), shortest)
	c.duration(p.dot("backoff"), r.GetBackoff(), shortest)
	for _, w := range strings.Split(r.GetRetryOn(), ",") {
		if w = strings.TrimSpace(w); w == "" && r.GetRetryOn() == "" || slices.Contains(retryWords, w) {
			continue
		}
		if n, err := strconv.Atoi(w); err == nil && n >= 100 && n <= 599 {
			continue
		}
		c.bad(p.dot("retryOn"), w, "want, separated by commas, HTTP status codes or words of %s", strings.Join(retryWords, ", "))
	}
}

func (c *checker) fault(p path, f *networking.HTTPFaultInjection) {
	if f == nil {
		return
	}
	if f.GetDelay() == nil && f.GetAbort() == nil {
		c.missing(p, "want delay, abort or both")
	}
	if d := f.GetDelay(); d != nil {
		at := p.dot("delay")
		if d.GetPercentage() != nil {
			c.percent(at.dot("percentage").dot("value"), d.GetPercentage().GetValue())
		}
		c.percent(at.dot("percent"), float64(d.GetPercent())) //nolint:staticcheck // the older spelling is still written
		switch t := d.GetHttpDelayType().(type) {
		case *networking.HTTPFaultInjection_Delay_FixedDelay:
			c.duration(at.dot("fixedDelay"), t.FixedDelay, shortest)
		case *networking.HTTPFaultInjection_Delay_ExponentialDelay:
			c.bad(at.dot("exponentialDelay"), t.ExponentialDelay.AsDuration(), "want fixedDelay; exponentialDelay is not supported by Envoy")
		default:
			c.missing(at.dot("fixedDelay"), "want a duration, such as 2s")
		}
	}
	if a := f.GetAbort(); a != nil {
		c.abort(p.dot("abort"), a)
	}
}

var grpcStatus = []string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
	"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

func (c *checker) abort(p path, a *networking.HTTPFaultInjection_Abort) {
	if a.GetPercentage() != nil {
		c.percent(p.dot("percentage").dot("value"), a.GetPercentage().GetValue())
	}
	switch t := a.GetErrorType().(type) {
	case *networking.HTTPFaultInjection_Abort_HttpStatus:
		if t.HttpStatus < 200 || t.HttpStatus > 599 {
			c.bad(p.dot("httpStatus"), t.HttpStatus, "want an HTTP status from 200 to 599")
		}
	case *networking.HTTPFaultInjection_Abort_GrpcStatus:
		if n, err := strconv.Atoi(t.GrpcStatus); (err != nil || n < 0 || n > 16) && !slices.Contains(grpcStatus, strings.ToUpper(t.GrpcStatus)) {
			c.bad(p.dot("grpcStatus"), t.GrpcStatus, "want a gRPC status: %s", strings.Join(grpcStatus, ", "))
		}
	case *networking.HTTPFaultInjection_Abort_Http2Error:
		c.bad(p.dot("http2Error"), t.Http2Error, "want httpStatus or grpcStatus; http2Error is not supported by Envoy")
	default:
		c.missing(p.dot("httpStatus"), "want httpStatus or grpcStatus")
	}
}

func (c *checker) mirrors(p path, h *networking.HTTPRoute) {
	if h.GetMirror() != nil && len(h.GetMirrors()) > 0 {
		c.bad(p.dot("mirror"), h.GetMirror().GetHost(), "want either mirror or mirrors")
	}
	if h.GetMirror() != nil {
		c.destination(p.dot("mirror"), h.GetMirror())
	}
	if h.GetMirrorPercentage() != nil {
		c.percent(p.dot("mirrorPercentage").dot("value"), h.GetMirrorPercentage().GetValue())
	}
	for i, m := range h.GetMirrors() {
		c.destination(p.dot("mirrors").at(i).dot("destination"), m.GetDestination())
		if m.GetPercentage() != nil {
			c.percent(p.dot("mirrors").at(i).dot("percentage").dot("value"), m.GetPercentage().GetValue())
		}
	}
	if len(h.GetRoute()) == 0 && h.GetDelegate() == nil && (h.GetMirror() != nil || len(h.GetMirrors()) > 0) {
		c.warn(message.Ignored, p.dot("mirror"), "has no effect without route")
	}
}

var methods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"}

func (c *checker) cors(p path, s *networking.CorsPolicy) {
	if s == nil {
		return
	}
	for i, o := range s.GetAllowOrigins() {
		c.stringMatch(p.dot("allowOrigins").at(i), o)
	}
	for i, m := range s.GetAllowMethods() {
		if !slices.Contains(methods, strings.ToUpper(m)) {
			c.bad(p.dot("allowMethods").at(i), m, "want one of %s", strings.Join(methods, ", "))
		}
	}
	for i, h := range s.GetAllowHeaders() {
		c.headerName(p.dot("allowHeaders").at(i), h)
	}
	for i, h := range s.GetExposeHeaders() {
		c.headerName(p.dot("exposeHeaders").at(i), h)
	}
	c.duration(p.dot("maxAge"), s.GetMaxAge(), 0)
	if s.GetMaxAge().GetNanos() != 0 {
		c.bad(p.dot("maxAge"), s.GetMaxAge().AsDuration(), "want whole seconds")
	}
}

func (c *checker) headers(p path, h *networking.Headers) {
	for _, side := range []struct {
		name string
		ops  *networking.Headers_HeaderOperations
	}{{"request", h.GetRequest()}, {"response", h.GetResponse()}} {
		at := p.dot(side.name)
		for _, k := range slices.Sorted(maps.Keys(side.ops.GetSet())) {
			c.headerOperation(at.dot("set").key(k), k, side.name == "request")
			c.headerValue(at.dot("set").key(k), side.ops.GetSet()[k])
		}
		for _, k := range slices.Sorted(maps.Keys(side.ops.GetAdd())) {
			c.headerOperation(at.dot("add").key(k), k, false)
			c.headerValue(at.dot("add").key(k), side.ops.GetAdd()[k])
		}
		for i, k := range side.ops.GetRemove() {
			c.headerOperation(at.dot("remove").at(i), k, false)
		}
	}
}

// headerOperation refuses what Envoy does not let anybody change; the authority may
// only be set.
func (c *checker) headerOperation(p path, name string, set bool) {
	if !c.headerName(p, name) {
		return
	}
	authority := strings.EqualFold(name, "host") || name == ":authority"
	if authority && set {
		return
	}
	if authority || strings.HasPrefix(name, ":") {
		c.bad(p, name, "want a header that may be changed: names that begin with : and Host may not (request.set may set :authority)")
	}
}

// headerValue checks for what Envoy takes as a command: % must be doubled.
func (c *checker) headerValue(p path, v string) {
	if strings.ContainsAny(v, "\r\n\x00") {
		c.bad(p, v, "want a value in one line")
	}
	if i := strings.IndexByte(v, '%'); i >= 0 && strings.Count(v, "%")%2 != 0 {
		c.bad(p, v, "want %%%% for a percent sign; a single one begins a command such as %%REQ(name)%%")
	}
}

// substitution checks the references of a rewrite against the groups of its match.
func (c *checker) substitution(p path, x *networking.RegexRewrite) {
	re, err := syntax.Parse(x.GetMatch(), syntax.Perl)
	if err != nil {
		return // reported already
	}
	groups := re.MaxCap()
	s := x.GetRewrite()
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			continue
		}
		if i++; i == len(s) || s[i] != '\\' && (s[i] < '0' || s[i] > '9') {
			c.bad(p, s, `want \0 to \9 for the groups of the match, and \\ for a backslash`)
			return
		}
		if n := int(s[i] - '0'); s[i] != '\\' && n > groups {
			c.bad(p, s, "want references to groups of the match, of which there are %d", groups)
			return
		}
	}
}

func (c *checker) subnets(p path, list []string) {
	for i, s := range list {
		if _, err := netip.ParsePrefix(s); err == nil {
			continue
		}
		if _, err := netip.ParseAddr(s); err != nil {
			c.bad(p.at(i), s, "want an address or a range such as 10.1.0.0/16")
		}
	}
}
