package listener

import (
	"strings"
	"time"

	accesslog "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	state "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	httpstate "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	httpinspector "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	tlsinspector "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	setstate "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	tcpproxy "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/envoy/route"
	"github.com/xebec-mesh/xebec/pilot/model"
)

const logFlush = time.Second

func networkFilter(name string, m proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: envoy.MustAny(m)}}
}

func listenerFilter(name string, m proto.Message) *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{Name: name, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: envoy.MustAny(m)}}
}

func tlsInspector() *listenerv3.ListenerFilter {
	return listenerFilter("envoy.filters.listener.tls_inspector", &tlsinspector.TlsInspector{})
}

func httpInspector() *listenerv3.ListenerFilter {
	return listenerFilter("envoy.filters.listener.http_inspector", &httpinspector.HttpInspector{})
}

func httpFilter(name string, m proto.Message) *hcm.HttpFilter {
	return &hcm.HttpFilter{Name: name, ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: envoy.MustAny(m)}}
}

func routerFilter() *hcm.HttpFilter {
	return httpFilter("envoy.filters.http.router", &router.Router{})
}

// manager is what both sides' HTTP has in common.
func manager(s *model.Settings, prefix string, at side) *hcm.HttpConnectionManager {
	return &hcm.HttpConnectionManager{
		StatPrefix:                 prefix,
		UseRemoteAddress:           wrapperspb.Bool(false),
		GenerateRequestId:          wrapperspb.Bool(true),
		NormalizePath:              wrapperspb.Bool(true),
		StreamIdleTimeout:          durationpb.New(0), // a stream may be silent for as long as its ends like
		ServerHeaderTransformation: hcm.HttpConnectionManager_PASS_THROUGH,
		HttpProtocolOptions:        &core.Http1ProtocolOptions{AcceptHttp_10: true},
		UpgradeConfigs:             []*hcm.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
		Tracing:                    tracing(s),
		AccessLog:                  requestLog(s, at),
	}
}

// outboundHTTP routes requests by a table. Where the cluster serves connections of any
// protocol, alpn says on this one that it carries HTTP, so that the callee treats it so.
func outboundHTTP(s *model.Settings, prefix, table string, alpn []string) *listenerv3.Filter {
	m := manager(s, prefix, source)
	m.RouteSpecifier = &hcm.HttpConnectionManager_Rds{Rds: &hcm.Rds{ConfigSource: envoy.ADS(), RouteConfigName: table}}
	m.HttpFilters = []*hcm.HttpFilter{
		httpFilter(route.FaultFilter, &faultv3.HTTPFault{}),
		httpFilter(route.CorsFilter, &corsv3.Cors{}),
	}
	if alpn != nil {
		m.HttpFilters = append(m.HttpFilters, httpFilter("envoy.filters.http.set_filter_state", &httpstate.Config{
			OnRequestHeaders: []*state.FilterStateValue{filterState("envoy.network.application_protocols", strings.Join(alpn, ","), true)},
		}))
	}
	m.HttpFilters = append(m.HttpFilters, routerFilter())
	return networkFilter(hcmName, m)
}

const hcmName = "envoy.filters.network.http_connection_manager"

// inboundHTTP tells the application who calls (x-forwarded-client-cert holds the
// caller's SPIFFE ID, and nothing that the caller claims), and tells the caller's
// sidecar which requests the application has not seen.
func inboundHTTP(s *model.Settings, port uint32, host string) *listenerv3.Filter {
	m := manager(s, route.Own(port, host).GetName(), destination)
	m.RouteSpecifier = &hcm.HttpConnectionManager_RouteConfig{RouteConfig: route.Own(port, host)}
	m.ForwardClientCertDetails = hcm.HttpConnectionManager_SANITIZE_SET
	m.SetCurrentClientCertDetails = &hcm.HttpConnectionManager_SetCurrentClientCertDetails{
		Subject: wrapperspb.Bool(true), Uri: true, Dns: true,
	}
	m.LocalReplyConfig = &hcm.LocalReplyConfig{Mappers: []*hcm.ResponseMapper{{
		Filter: &accesslog.AccessLogFilter{FilterSpecifier: &accesslog.AccessLogFilter_ResponseFlagFilter{
			ResponseFlagFilter: &accesslog.ResponseFlagFilter{Flags: []string{"UF"}},
		}},
		HeadersToAdd: []*core.HeaderValueOption{{Header: &core.HeaderValue{Key: route.NotDelivered, Value: "connect-failure"}}},
	}}}
	m.HttpFilters = []*hcm.HttpFilter{routerFilter()}
	return networkFilter(hcmName, m)
}

// Share is a cluster's part of the connections.
type Share struct {
	Cluster string
	Weight  uint32
}

func tcp(s *model.Settings, at side, prefix string, to []Share) *listenerv3.Filter {
	p := &tcpproxy.TcpProxy{StatPrefix: prefix, AccessLog: connectionLog(s, at)}
	if len(to) == 1 {
		p.ClusterSpecifier = &tcpproxy.TcpProxy_Cluster{Cluster: to[0].Cluster}
	} else {
		w := &tcpproxy.TcpProxy_WeightedCluster{}
		for _, t := range to {
			if t.Weight > 0 {
				w.Clusters = append(w.Clusters, &tcpproxy.TcpProxy_WeightedCluster_ClusterWeight{Name: t.Cluster, Weight: t.Weight})
			}
		}
		p.ClusterSpecifier = &tcpproxy.TcpProxy_WeightedClusters{WeightedClusters: w}
	}
	return networkFilter("envoy.filters.network.tcp_proxy", p)
}

// keepDestination remembers where an incoming connection was going. Interception
// leaves that as the socket's own address, which Envoy's ORIGINAL_DST clusters do not
// take for an original destination unless told so.
func keepDestination() *listenerv3.Filter {
	return networkFilter("envoy.filters.network.set_filter_state", &setstate.Config{
		OnNewConnection: []*state.FilterStateValue{
			filterState("envoy.network.transport_socket.original_dst_address", "%DOWNSTREAM_LOCAL_ADDRESS%", false),
		},
	})
}

func filterState(key, format string, upstream bool) *state.FilterStateValue {
	v := &state.FilterStateValue{
		Key: &state.FilterStateValue_ObjectKey{ObjectKey: key},
		Value: &state.FilterStateValue_FormatString{FormatString: &core.SubstitutionFormatString{
			Format: &core.SubstitutionFormatString_TextFormatSource{TextFormatSource: &core.DataSource{
				Specifier: &core.DataSource_InlineString{InlineString: format},
			}},
		}},
	}
	if upstream {
		v.SharedWithUpstream = state.FilterStateValue_ONCE
	}
	return v
}
