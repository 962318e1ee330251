package route

import (
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previous "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	priorities "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	networking "istio.io/api/networking/v1alpha3"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/xebec-mesh/xebec/pilot/envoy"
)

// NotDelivered is the header by which a sidecar tells the caller's that the
// application has not seen the request: it could not be connected to. Such a request
// can always be sent again elsewhere, whatever its method. It is what keeps a pod that
// stops listening from losing requests before its endpoint is gone everywhere.
const NotDelivered = "x-xebec-not-delivered"

// What is retried by default: what Istio retries, and what surely was not delivered.
const (
	defaultAttempts = 2
	defaultOn       = "connect-failure,refused-stream,unavailable,cancelled,reset-before-request,retriable-headers"
)

func defaultRetry() *routev3.RetryPolicy {
	return &routev3.RetryPolicy{
		RetryOn:                       defaultOn,
		NumRetries:                    wrapperspb.UInt32(defaultAttempts),
		RetryHostPredicate:            elsewhere(),
		HostSelectionRetryMaxAttempts: 5,
		RetriableHeaders:              notDelivered(),
	}
}

// ownRetry is for the application beside the sidecar: only where it closed an idle
// connection in the very moment in which a request was to use it.
func ownRetry() *routev3.RetryPolicy {
	return &routev3.RetryPolicy{RetryOn: "reset-before-request", NumRetries: wrapperspb.UInt32(defaultAttempts)}
}

// ownSafeRetry is for requests that may be sent twice because they only read (RFC 9110,
// section 9.2.1): also where the connection broke after they were sent, as it does when
// the application stops. If it has stopped, the caller's sidecar hears that the request
// was not delivered, and sends it elsewhere.
func ownSafeRetry() *routev3.RetryPolicy {
	return &routev3.RetryPolicy{RetryOn: "reset", NumRetries: wrapperspb.UInt32(defaultAttempts)}
}

func elsewhere() []*routev3.RetryPolicy_RetryHostPredicate {
	return []*routev3.RetryPolicy_RetryHostPredicate{{
		Name:       "envoy.retry_host_predicates.previous_hosts",
		ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: envoy.MustAny(&previous.PreviousHostsPredicate{})},
	}}
}

func notDelivered() []*routev3.HeaderMatcher {
	return []*routev3.HeaderMatcher{{
		Name:                 NotDelivered,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
	}}
}

// retry translates what the user asked for; nil means the default, and zero attempts none.
func retry(r *networking.HTTPRetry) *routev3.RetryPolicy {
	if r == nil {
		return defaultRetry()
	}
	if r.GetAttempts() <= 0 {
		return nil
	}
	p := defaultRetry()
	p.NumRetries = wrapperspb.UInt32(uint32(r.GetAttempts()))
	p.PerTryTimeout = r.GetPerTryTimeout()
	if r.GetRetryOn() != "" {
		p.RetryOn, p.RetriableStatusCodes = conditions(r.GetRetryOn())
	}
	if r.GetRetryIgnorePreviousHosts() != nil && !r.GetRetryIgnorePreviousHosts().GetValue() {
		p.RetryHostPredicate, p.HostSelectionRetryMaxAttempts = nil, 0
	}
	if r.GetRetryRemoteLocalities().GetValue() {
		p.RetryPriority = &routev3.RetryPolicy_RetryPriority{
			Name: "envoy.retry_priorities.previous_priorities",
			ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{
				TypedConfig: envoy.MustAny(&priorities.PreviousPrioritiesConfig{UpdateFrequency: 2}),
			},
		}
	}
	if b := r.GetBackoff(); b != nil {
		p.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{BaseInterval: b, MaxInterval: durationpb.New(10 * b.AsDuration())}
	}
	return p
}

// conditions splits retryOn into Envoy's words and status codes.
func conditions(on string) (string, []uint32) {
	var words []string
	var codes []uint32
	has := map[string]bool{}
	for _, w := range strings.Split(on, ",") {
		w = strings.TrimSpace(w)
		if n, err := strconv.ParseUint(w, 10, 32); err == nil {
			codes = append(codes, uint32(n))
			continue
		}
		if w != "" && !has[w] {
			has[w] = true
			words = append(words, w)
		}
	}
	if len(codes) > 0 && !has["retriable-status-codes"] {
		words = append(words, "retriable-status-codes")
	}
	if !has["retriable-headers"] {
		words = append(words, "retriable-headers")
	}
	return strings.Join(words, ","), codes
}
