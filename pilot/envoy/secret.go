package envoy

import (
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	raw "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Names of the secrets that every sidecar gets from its node's agent.
const (
	IdentitySecret = "default" // the workload's own SVID and key
	BundleSecret   = "ROOTCA"  // whom to trust
)

// ALPN words by which a sidecar tells that it speaks the mesh's own TLS, and what
// is inside. An application's TLS never offers them.
var (
	MeshALPN     = []string{"istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"}
	MeshHTTPALPN = []string{"istio-http/1.0", "istio-http/1.1", "istio-h2"}
	MeshTCPALPN  = []string{"istio", "istio-peer-exchange"}
	ClientTCP    = []string{"istio"}
	ClientHTTP   = []string{"istio-http/1.1", "istio", "http/1.1"}
	ClientHTTP2  = []string{"istio-h2", "istio", "h2"}
	ServerHTTP   = []string{"h2", "http/1.1"}
)

// Words by which Envoy's HTTP inspector names what it recognised.
var (
	PlaintextHTTP  = []string{"http/1.0", "http/1.1", "h2c"}
	PlaintextHTTP1 = []string{"http/1.0", "http/1.1"}
	PlaintextHTTP2 = []string{"h2c"}
)

// ADS is a reference to this very stream.
func ADS() *core.ConfigSource {
	return &core.ConfigSource{
		ResourceApiVersion:    core.ApiVersion_V3,
		InitialFetchTimeout:   durationpb.New(0),
		ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}},
	}
}

// AgentService is the node agent's gRPC socket.
func AgentService(cluster string) *core.GrpcService {
	return &core.GrpcService{TargetSpecifier: &core.GrpcService_EnvoyGrpc_{
		EnvoyGrpc: &core.GrpcService_EnvoyGrpc{ClusterName: cluster},
	}}
}

// Secret refers to a secret that the node agent serves. Without it there is no
// connection: it is waited for without limit.
func Secret(name, agent string) *tls.SdsSecretConfig {
	return &tls.SdsSecretConfig{Name: name, SdsConfig: &core.ConfigSource{
		ResourceApiVersion:  core.ApiVersion_V3,
		InitialFetchTimeout: durationpb.New(0),
		ConfigSourceSpecifier: &core.ConfigSource_ApiConfigSource{ApiConfigSource: &core.ApiConfigSource{
			ApiType:                   core.ApiConfigSource_DELTA_GRPC,
			TransportApiVersion:       core.ApiVersion_V3,
			SetNodeOnFirstMessageOnly: true,
			GrpcServices:              []*core.GrpcService{AgentService(agent)},
		}},
	}}
}

// MeshTLS is what both sides of a mesh connection share: own identity, trust
// bundle, and which URIs the other side may have.
func MeshTLS(agent string, peers []*matcher.StringMatcher, alpn []string) *tls.CommonTlsContext {
	var sans []*tls.SubjectAltNameMatcher
	for _, p := range peers {
		sans = append(sans, &tls.SubjectAltNameMatcher{SanType: tls.SubjectAltNameMatcher_URI, Matcher: p})
	}
	return &tls.CommonTlsContext{
		AlpnProtocols:                  alpn,
		TlsParams:                      &tls.TlsParameters{TlsMinimumProtocolVersion: tls.TlsParameters_TLSv1_2, TlsMaximumProtocolVersion: tls.TlsParameters_TLSv1_3},
		TlsCertificateSdsSecretConfigs: []*tls.SdsSecretConfig{Secret(IdentitySecret, agent)},
		ValidationContextType: &tls.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tls.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext:         &tls.CertificateValidationContext{MatchTypedSubjectAltNames: sans},
				ValidationContextSdsSecretConfig: Secret(BundleSecret, agent),
			},
		},
	}
}

// TLSSocket wraps a TLS context.
func TLSSocket(ctx proto.Message) *core.TransportSocket {
	return &core.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &core.TransportSocket_TypedConfig{TypedConfig: MustAny(ctx)},
	}
}

// PlainSocket sends bytes as they are.
func PlainSocket() *core.TransportSocket {
	return &core.TransportSocket{
		Name:       "envoy.transport_sockets.raw_buffer",
		ConfigType: &core.TransportSocket_TypedConfig{TypedConfig: MustAny(&raw.RawBuffer{})},
	}
}

// Exactly matches one string.
func Exactly(s string) *matcher.StringMatcher {
	return &matcher.StringMatcher{MatchPattern: &matcher.StringMatcher_Exact{Exact: s}}
}

// Prefixed matches strings that begin with s.
func Prefixed(s string) *matcher.StringMatcher {
	return &matcher.StringMatcher{MatchPattern: &matcher.StringMatcher_Prefix{Prefix: s}}
}

// SocketAddress is an IP address or a name with a port.
func SocketAddress(host string, port uint32) *core.SocketAddress {
	return &core.SocketAddress{Address: host, PortSpecifier: &core.SocketAddress_PortValue{PortValue: port}}
}

// Address wraps SocketAddress.
func Address(host string, port uint32) *core.Address {
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: SocketAddress(host, port)}}
}
