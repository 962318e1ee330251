package cluster

import (
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	networking "istio.io/api/networking/v1alpha3"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/model"
	"github.com/xebec-mesh/xebec/pilot/policy"
)

// TLSMode is the key in an endpoint's metadata by which a cluster chooses the
// transport; MeshMode its value where a sidecar answers.
const (
	TLSMode  = "tlsMode"
	MeshMode = "istio"
)

// secure chooses the transport: what the rule says or, where it says nothing, mutual
// TLS to every endpoint that has a sidecar and plaintext to the others.
func secure(c *clusterv3.Cluster, in Input, t *networking.ClientTLSSettings) {
	if t == nil {
		auto(c, in)
		return
	}
	switch t.GetMode() {
	case networking.ClientTLSSettings_DISABLE:
	case networking.ClientTLSSettings_ISTIO_MUTUAL:
		c.TransportSocket = envoy.TLSSocket(mutual(in, t))
	default:
		c.TransportSocket = envoy.TLSSocket(originate(in, t))
	}
}

func auto(c *clusterv3.Cluster, in Input) {
	if in.Service.External {
		return
	}
	if c.GetType() == clusterv3.Cluster_ORIGINAL_DST {
		if in.AllMeshed { // no endpoint list to look the address up in
			c.TransportSocket = envoy.TLSSocket(mutual(in, nil))
		}
		return
	}
	c.TransportSocketMatches = []*clusterv3.Cluster_TransportSocketMatch{
		{
			Name: "tlsMode-" + MeshMode,
			Match: &structpb.Struct{Fields: map[string]*structpb.Value{
				TLSMode: structpb.NewStringValue(MeshMode),
			}},
			TransportSocket: envoy.TLSSocket(mutual(in, nil)),
		},
		{Name: "tlsMode-disabled", Match: &structpb.Struct{}, TransportSocket: envoy.PlainSocket()},
	}
}

func mutual(in Input, t *networking.ClientTLSSettings) *tls.UpstreamTlsContext {
	sni := SNI(in.Port.Number, in.Subset, in.Service.Host)
	if t.GetSni() != "" {
		sni = t.GetSni()
	}
	return &tls.UpstreamTlsContext{
		Sni:              sni,
		CommonTlsContext: envoy.MeshTLS(in.Settings.AgentCluster, servers(in, t), alpn(in)),
	}
}

// servers says who may answer: those that serve the host, or whom the rule names; and
// anybody of this trust domain while nobody is known.
func servers(in Input, t *networking.ClientTLSSettings) []*matcher.StringMatcher {
	var out []*matcher.StringMatcher
	for _, san := range t.GetSubjectAltNames() {
		out = append(out, envoy.Exactly(san))
	}
	if len(out) > 0 {
		return out
	}
	for _, id := range in.Identities.All() {
		ns, sa, _ := strings.Cut(id, "/")
		out = append(out, envoy.Exactly("spiffe://"+in.Settings.TrustDomain+"/ns/"+ns+"/sa/"+sa))
	}
	if len(out) == 0 {
		out = append(out, envoy.Prefixed("spiffe://"+in.Settings.TrustDomain+"/"))
	}
	return out
}

// alpn says what is inside. Where the caller's own protocol is kept, the callee finds
// out by itself.
func alpn(in Input) []string {
	h := policy.TrafficOf(in.Rules, in.Subset, in.Port.Number).ConnectionPool.GetHttp()
	switch {
	case in.Port.Protocol == model.HTTP2, in.Port.Protocol == model.HTTP && upgraded(h):
		return envoy.ClientHTTP2
	case in.Port.Protocol == model.HTTP && !h.GetUseClientProtocol():
		return envoy.ClientHTTP
	}
	return envoy.ClientTCP
}

// originate is TLS to a server outside of the mesh, with certificates from files.
func originate(in Input, t *networking.ClientTLSSettings) *tls.UpstreamTlsContext {
	validation := &tls.CertificateValidationContext{}
	for _, san := range t.GetSubjectAltNames() {
		validation.MatchTypedSubjectAltNames = append(validation.MatchTypedSubjectAltNames,
			&tls.SubjectAltNameMatcher{SanType: tls.SubjectAltNameMatcher_DNS, Matcher: envoy.Exactly(san)},
			&tls.SubjectAltNameMatcher{SanType: tls.SubjectAltNameMatcher_URI, Matcher: envoy.Exactly(san)})
	}
	common := &tls.CommonTlsContext{}
	switch {
	case t.GetInsecureSkipVerify().GetValue():
	case t.GetCaCertificates() != "":
		validation.TrustedCa = file(t.GetCaCertificates())
	default:
		validation.SystemRootCerts = &tls.CertificateValidationContext_SystemRootCerts{}
	}
	common.ValidationContextType = &tls.CommonTlsContext_ValidationContext{ValidationContext: validation}
	if t.GetMode() == networking.ClientTLSSettings_MUTUAL && t.GetClientCertificate() != "" {
		common.TlsCertificates = []*tls.TlsCertificate{{
			CertificateChain: file(t.GetClientCertificate()), PrivateKey: file(t.GetPrivateKey()),
		}}
	}
	if in.Port.Protocol == model.HTTP2 {
		common.AlpnProtocols = []string{"h2"}
	}
	out := &tls.UpstreamTlsContext{CommonTlsContext: common, Sni: t.GetSni()}
	if out.Sni == "" && in.Service.External {
		out.Sni = in.Service.Host
	}
	return out
}

func file(path string) *core.DataSource {
	return &core.DataSource{Specifier: &core.DataSource_Filename{Filename: path}}
}
