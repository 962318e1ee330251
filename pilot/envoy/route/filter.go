package route

import (
	"strconv"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commonfault "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	cors "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	fault "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	networking "istio.io/api/networking/v1alpha3"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/xebec-mesh/xebec/pilot/envoy"
)

// Names of the HTTP filters that routes configure.
const (
	FaultFilter = "envoy.filters.http.fault"
	CorsFilter  = "envoy.filters.http.cors"
)

func perFilter(out *routev3.Route, h *networking.HTTPRoute) {
	put := func(name string, a *anypb.Any) {
		if out.TypedPerFilterConfig == nil {
			out.TypedPerFilterConfig = map[string]*anypb.Any{}
		}
		out.TypedPerFilterConfig[name] = a
	}
	if f := faults(h.GetFault()); f != nil {
		put(FaultFilter, envoy.MustAny(f))
	}
	if c := h.GetCorsPolicy(); c != nil {
		put(CorsFilter, envoy.MustAny(corsPolicy(c)))
	}
}

func faults(f *networking.HTTPFaultInjection) *fault.HTTPFault {
	if f == nil {
		return nil
	}
	out := &fault.HTTPFault{}
	if d := f.GetDelay(); d != nil {
		percent := d.GetPercentage().GetValue()
		if d.GetPercentage() == nil {
			percent = whole(float64(d.GetPercent())) //nolint:staticcheck // the older spelling is still written
		}
		out.Delay = &commonfault.FaultDelay{Percentage: fraction(percent)}
		switch t := d.GetHttpDelayType().(type) {
		case *networking.HTTPFaultInjection_Delay_FixedDelay:
			out.Delay.FaultDelaySecifier = &commonfault.FaultDelay_FixedDelay{FixedDelay: t.FixedDelay}
		case *networking.HTTPFaultInjection_Delay_ExponentialDelay:
			out.Delay.FaultDelaySecifier = &commonfault.FaultDelay_FixedDelay{FixedDelay: t.ExponentialDelay}
		}
	}
	if a := f.GetAbort(); a != nil {
		percent := 100.0
		if a.GetPercentage() != nil {
			percent = a.GetPercentage().GetValue()
		}
		out.Abort = &fault.FaultAbort{Percentage: fraction(percent)}
		switch t := a.GetErrorType().(type) {
		case *networking.HTTPFaultInjection_Abort_HttpStatus:
			out.Abort.ErrorType = &fault.FaultAbort_HttpStatus{HttpStatus: uint32(t.HttpStatus)}
		case *networking.HTTPFaultInjection_Abort_GrpcStatus:
			out.Abort.ErrorType = &fault.FaultAbort_GrpcStatus{GrpcStatus: grpcCode(t.GrpcStatus)}
		}
	}
	return out
}

// whole reads the older percent, where an absent value means all.
func whole(p float64) float64 {
	if p == 0 {
		return 100
	}
	return p
}

var grpcCodes = map[string]uint32{
	"OK": 0, "CANCELLED": 1, "UNKNOWN": 2, "INVALID_ARGUMENT": 3, "DEADLINE_EXCEEDED": 4, "NOT_FOUND": 5,
	"ALREADY_EXISTS": 6, "PERMISSION_DENIED": 7, "RESOURCE_EXHAUSTED": 8, "FAILED_PRECONDITION": 9,
	"ABORTED": 10, "OUT_OF_RANGE": 11, "UNIMPLEMENTED": 12, "INTERNAL": 13, "UNAVAILABLE": 14,
	"DATA_LOSS": 15, "UNAUTHENTICATED": 16,
}

func grpcCode(s string) uint32 {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return uint32(n)
	}
	if c, ok := grpcCodes[strings.ToUpper(s)]; ok {
		return c
	}
	return 2
}

func corsPolicy(c *networking.CorsPolicy) *cors.CorsPolicy {
	out := &cors.CorsPolicy{
		AllowMethods:  strings.Join(c.GetAllowMethods(), ","),
		AllowHeaders:  strings.Join(c.GetAllowHeaders(), ","),
		ExposeHeaders: strings.Join(c.GetExposeHeaders(), ","),
		FilterEnabled: &core.RuntimeFractionalPercent{DefaultValue: fraction(100)},
	}
	for _, o := range c.GetAllowOrigins() {
		if m := text(o); m != nil {
			out.AllowOriginStringMatch = append(out.AllowOriginStringMatch, m)
		}
	}
	for _, o := range c.GetAllowOrigin() { //nolint:staticcheck // the older spelling is still written
		out.AllowOriginStringMatch = append(out.AllowOriginStringMatch, envoy.Exactly(o))
	}
	if c.GetMaxAge() != nil {
		out.MaxAge = strconv.FormatInt(c.GetMaxAge().GetSeconds(), 10)
	}
	out.AllowCredentials = c.GetAllowCredentials()
	if c.GetUnmatchedPreflights() == networking.CorsPolicy_IGNORE {
		out.ForwardNotMatchingPreflights = wrapperspb.Bool(false)
	}
	return out
}
