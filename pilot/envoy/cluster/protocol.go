package cluster

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	http "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	tcp "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/tcp/v3"
	networking "istio.io/api/networking/v1alpha3"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/model"
)

const (
	httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
	tcpOptions  = "envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions"
)

// speak chooses the protocol towards the endpoints: the declared one, or the
// client's own where nothing is declared.
func speak(c *clusterv3.Cluster, p model.Protocol, pool *networking.ConnectionPoolSettings) {
	h := pool.GetHttp()
	h2 := &core.Http2ProtocolOptions{}
	if n := h.GetMaxConcurrentStreams(); n > 0 {
		h2.MaxConcurrentStreams = wrapperspb.UInt32(uint32(n))
	}
	if k := h.GetHttp2KeepAlive(); k != nil {
		h2.ConnectionKeepalive = &core.KeepaliveSettings{Interval: k.GetInterval(), Timeout: k.GetTimeout()}
	}
	o := &http.HttpProtocolOptions{CommonHttpProtocolOptions: common(h, pool.GetTcp())}
	switch {
	case p == model.HTTP2, p == model.HTTP && upgraded(h):
		explicit := &http.HttpProtocolOptions_ExplicitHttpConfig{}
		explicit.ProtocolConfig = &http.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: h2}
		o.UpstreamProtocolOptions = &http.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit}
	case p == model.Sniff, p == model.HTTP && h.GetUseClientProtocol():
		o.UpstreamProtocolOptions = clientsOwn(h2)
	case p == model.HTTP:
		o.UpstreamProtocolOptions = &http.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &http.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &http.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: &core.Http1ProtocolOptions{}},
		}}
	default:
		if t := pool.GetTcp().GetIdleTimeout(); t != nil {
			option(c, tcpOptions, envoy.MustAny(&tcp.TcpProtocolOptions{IdleTimeout: t}))
		}
		return
	}
	option(c, httpOptions, envoy.MustAny(o))
}

func upgraded(h *networking.ConnectionPoolSettings_HTTPSettings) bool {
	return h.GetH2UpgradePolicy() == networking.ConnectionPoolSettings_HTTPSettings_UPGRADE
}

func clientsOwn(h2 *core.Http2ProtocolOptions) *http.HttpProtocolOptions_UseDownstreamProtocolConfig {
	return &http.HttpProtocolOptions_UseDownstreamProtocolConfig{
		UseDownstreamProtocolConfig: &http.HttpProtocolOptions_UseDownstreamHttpConfig{
			HttpProtocolOptions:  &core.Http1ProtocolOptions{},
			Http2ProtocolOptions: h2,
		},
	}
}

func common(h *networking.ConnectionPoolSettings_HTTPSettings, t *networking.ConnectionPoolSettings_TCPSettings) *core.HttpProtocolOptions {
	o := &core.HttpProtocolOptions{
		IdleTimeout:           h.GetIdleTimeout(),
		MaxConnectionDuration: t.GetMaxConnectionDuration(),
	}
	if n := h.GetMaxRequestsPerConnection(); n > 0 {
		o.MaxRequestsPerConnection = wrapperspb.UInt32(uint32(n))
	}
	if o.IdleTimeout == nil && o.MaxConnectionDuration == nil && o.MaxRequestsPerConnection == nil {
		return nil
	}
	return o
}

func option(c *clusterv3.Cluster, name string, o *anypb.Any) {
	if c.TypedExtensionProtocolOptions == nil {
		c.TypedExtensionProtocolOptions = map[string]*anypb.Any{}
	}
	c.TypedExtensionProtocolOptions[name] = o
}
