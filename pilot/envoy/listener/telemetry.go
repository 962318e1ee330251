package listener

import (
	accesslog "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	trace "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	otelog "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	detectors "github.com/envoyproxy/go-control-plane/envoy/extensions/tracers/opentelemetry/resource_detectors/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/model"
)

// side says which end of a call a listener is.
type side struct {
	reporter string // source or destination
	peer     string // the other side's identity
	asked    string // whom the caller meant
}

var (
	source      = side{"source", "%UPSTREAM_PEER_URI_SAN%", "%REQ(:AUTHORITY)%"}
	destination = side{"destination", "%DOWNSTREAM_PEER_URI_SAN%", "%REQUESTED_SERVER_NAME%"}
)

// tracing reports a span for every sampled request to the node agent. The service's
// name is in the sidecar's environment, so that listeners are the same in all pods.
func tracing(s *model.Settings) *hcm.HttpConnectionManager_Tracing {
	if s.Sampling <= 0 {
		return nil
	}
	return &hcm.HttpConnectionManager_Tracing{
		RandomSampling: &typev3.Percent{Value: s.Sampling},
		Provider: &trace.Tracing_Http{
			Name: "envoy.tracers.opentelemetry",
			ConfigType: &trace.Tracing_Http_TypedConfig{TypedConfig: envoy.MustAny(&trace.OpenTelemetryConfig{
				GrpcService: envoy.AgentService(s.AgentCluster),
				ResourceDetectors: []*core.TypedExtensionConfig{{
					Name:        "envoy.tracers.opentelemetry.resource_detectors.environment",
					TypedConfig: envoy.MustAny(&detectors.EnvironmentResourceDetectorConfig{}),
				}},
			})},
		},
	}
}

func requestLog(s *model.Settings, at side) []*accesslog.AccessLog {
	return otlpLog(s, "xebec-http", [][2]string{
		{"reporter", at.reporter},
		{"method", "%REQ(:METHOD)%"},
		{"path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"},
		{"authority", "%REQ(:AUTHORITY)%"},
		{"protocol", "%PROTOCOL%"},
		{"response_code", "%RESPONSE_CODE%"},
		{"response_code_details", "%RESPONSE_CODE_DETAILS%"},
		{"response_flags", "%RESPONSE_FLAGS%"},
		{"grpc_status", "%GRPC_STATUS_NUMBER%"},
		{"duration_ms", "%DURATION%"},
		{"bytes_received", "%BYTES_RECEIVED%"},
		{"bytes_sent", "%BYTES_SENT%"},
		{"upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"},
		{"upstream_host", "%UPSTREAM_HOST%"},
		{"downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"},
		{"peer_uri", at.peer},
		{"trace_id", "%TRACE_ID%"},
		{"request_id", "%REQ(X-REQUEST-ID)%"},
		{"route", "%ROUTE_NAME%"},
		{"requested_host", at.asked},
		{"user_agent", "%REQ(USER-AGENT)%"},
		{"attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"},
	})
}

func connectionLog(s *model.Settings, at side) []*accesslog.AccessLog {
	asked := at.asked
	if at.reporter == source.reporter {
		asked = "%DOWNSTREAM_LOCAL_ADDRESS%"
	}
	return otlpLog(s, "xebec-tcp", [][2]string{
		{"reporter", at.reporter},
		{"protocol", "tcp"},
		{"response_flags", "%RESPONSE_FLAGS%"},
		{"duration_ms", "%DURATION%"},
		{"bytes_received", "%BYTES_RECEIVED%"},
		{"bytes_sent", "%BYTES_SENT%"},
		{"upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"},
		{"upstream_host", "%UPSTREAM_HOST%"},
		{"downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"},
		{"peer_uri", at.peer},
		{"requested_host", asked},
	})
}

func otlpLog(s *model.Settings, name string, attributes [][2]string) []*accesslog.AccessLog {
	if !s.AccessLog {
		return nil
	}
	list := &commonv1.KeyValueList{}
	for _, a := range attributes {
		list.Values = append(list.Values, &commonv1.KeyValue{Key: a[0], Value: text(a[1])})
	}
	return []*accesslog.AccessLog{{
		Name: "envoy.access_loggers.open_telemetry",
		ConfigType: &accesslog.AccessLog_TypedConfig{TypedConfig: envoy.MustAny(&otelog.OpenTelemetryAccessLogConfig{
			GrpcService:         envoy.AgentService(s.AgentCluster),
			LogName:             name,
			StatPrefix:          name,
			BufferFlushInterval: durationpb.New(logFlush),
			Attributes:          list,
		})},
	}}
}

func text(s string) *commonv1.AnyValue {
	return &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: s}}
}
