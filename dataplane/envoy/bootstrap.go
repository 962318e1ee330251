package envoy

import (
	"fmt"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	downstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	heapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	otelsinkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/stat_sinks/open_telemetry/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// AgentCluster is the cluster in every sidecar that leads to the node agent: ADS,
// SDS and OTLP are fetched from and sent to it.
const AgentCluster = "xebec-agent"

// Bootstrap describes one sidecar.
type Bootstrap struct {
	ID        string // node.id, such as sidecar~10.244.0.5~web-0.default~default.svc.cluster.local
	Cluster   string // node.cluster: canonical service and namespace, web.default
	Region    string
	Zone      string
	SubZone   string
	Metadata  map[string]any // node.metadata
	Socket    string         // agent socket inside the pod; default /var/run/xebec/mesh/agent.sock
	IPv6      bool           // answer readiness on the IPv6 addresses too
	ReadyPort uint16         // /healthz/ready; default 15021
	AdminPort uint16         // on loopback; default 15000
	StatsOTLP bool           // push stats to the agent's OTLP receiver
	Stats     []string       // prefixes of further stats to keep; by default few are, for memory
	MaxHeap   uint64         // bytes at which requests are shed; 0: never
}

// builder collects the first error of packing messages.
type builder struct {
	Bootstrap
	err error
}

// Proto is the bootstrap as Envoy's own type.
func (b Bootstrap) Proto() (*bootstrapv3.Bootstrap, error) {
	if b.ID == "" || b.Cluster == "" {
		return nil, fmt.Errorf("make bootstrap: id %q and cluster %q must be set", b.ID, b.Cluster)
	}
	if b.Socket == "" {
		b.Socket = "/var/run/xebec/mesh/agent.sock"
	}
	if b.ReadyPort == 0 {
		b.ReadyPort = 15021
	}
	if b.AdminPort == 0 {
		b.AdminPort = 15000
	}
	m := &builder{Bootstrap: b}
	out := m.bootstrap()
	if m.err != nil {
		return nil, fmt.Errorf("make bootstrap of %s: %w", b.ID, m.err)
	}
	return out, nil
}

// JSON is the bootstrap as a file for envoy -c. Its bytes may differ between
// builds of this program: compare what they mean.
func (b Bootstrap) JSON() ([]byte, error) {
	p, err := b.Proto()
	if err != nil {
		return nil, err
	}
	data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode bootstrap of %s: %w", b.ID, err)
	}
	return data, nil
}

func (b *builder) pack(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil && b.err == nil {
		b.err = err
	}
	return a
}

func (b *builder) bootstrap() *bootstrapv3.Bootstrap {
	return &bootstrapv3.Bootstrap{
		Node:             b.node(),
		Admin:            &bootstrapv3.Admin{Address: address("127.0.0.1", b.AdminPort), AccessLog: []*accesslogv3.AccessLog{}},
		DynamicResources: dynamicResources(),
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Clusters:  []*clusterv3.Cluster{b.agent(), b.admin()},
			Listeners: []*listenerv3.Listener{b.ready()},
		},
		StatsConfig:        b.statsConfig(),
		StatsFlushInterval: durationpb.New(10 * time.Second),
		StatsSinks:         b.statsSinks(),
		OverloadManager:    b.overload(),
		LayeredRuntime:     b.runtime(),
		MemoryAllocatorManager: &bootstrapv3.MemoryAllocatorManager{
			BytesToRelease: 4 << 20, MemoryReleaseInterval: durationpb.New(2 * time.Second),
		},
	}
}

func (b *builder) node() *corev3.Node {
	metadata, err := structpb.NewStruct(b.Metadata)
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("node metadata: %w", err)
	}
	return &corev3.Node{
		Id: b.ID, Cluster: b.Cluster, Metadata: metadata,
		Locality: &corev3.Locality{Region: b.Region, Zone: b.Zone, SubZone: b.SubZone},
	}
}

// dynamicResources fetches everything over one delta stream. There is no time
// after which Envoy goes on without an answer: it is ready when it has been told
// its listeners, and not before.
func dynamicResources() *bootstrapv3.Bootstrap_DynamicResources {
	ads := &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   durationpb.New(0),
	}
	// A restarted agent is found again within a second or so.
	retry := &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
		BaseInterval: durationpb.New(50 * time.Millisecond), MaxInterval: durationpb.New(time.Second),
	}}
	return &bootstrapv3.Bootstrap_DynamicResources{
		LdsConfig: ads,
		CdsConfig: ads,
		AdsConfig: &corev3.ApiConfigSource{
			ApiType:                   corev3.ApiConfigSource_DELTA_GRPC,
			TransportApiVersion:       corev3.ApiVersion_V3,
			SetNodeOnFirstMessageOnly: true,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: AgentCluster, RetryPolicy: retry},
			}}},
		},
	}
}

// agent is the node agent's socket: the pod's identity.
func (b *builder) agent() *clusterv3.Cluster {
	c := static(AgentCluster, &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: b.Socket}}})
	c.TypedExtensionProtocolOptions = map[string]*anypb.Any{
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": b.pack(&httpv3.HttpProtocolOptions{
			UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
				ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
					ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
						Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
					},
				},
			},
		}),
	}
	return c
}

func (b *builder) admin() *clusterv3.Cluster {
	return static("xebec-admin", address("127.0.0.1", b.AdminPort))
}

func static(name string, addr *corev3.Address) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(time.Second),
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: addr}},
			}}}},
		},
	}
}

func address(ip string, port uint16) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: ip, Ipv4Compat: ip == "::",
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

// ready answers /healthz/ready with what the admin interface says of /ready, and
// nothing else of it.
func (b *builder) ready() *listenerv3.Listener {
	wildcard := "0.0.0.0"
	if b.IPv6 {
		wildcard = "::"
	}
	route := &routev3.Route{
		Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: "/healthz/ready"}},
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: "xebec-admin"},
			PrefixRewrite:    "/ready",
		}},
	}
	hcm := &hcmv3.HttpConnectionManager{
		StatPrefix: "ready",
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			VirtualHosts: []*routev3.VirtualHost{{Name: "ready", Domains: []string{"*"}, Routes: []*routev3.Route{route}}},
		}},
		HttpFilters: []*hcmv3.HttpFilter{{
			Name:       "envoy.filters.http.router",
			ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: b.pack(&routerv3.Router{})},
		}},
	}
	return &listenerv3.Listener{
		Name:    "ready",
		Address: address(wildcard, b.ReadyPort),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name:       "envoy.filters.network.http_connection_manager",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: b.pack(hcm)},
		}}}},
	}
}

// keptStats are what debugging and the dashboard need. Envoy would keep a few
// hundred for each cluster; requests are counted from access logs instead.
var keptStats = []string{"server.", "cluster_manager.", "listener_manager.", "control_plane.", "cluster.xebec-agent.", "runtime."}

func (b *builder) statsConfig() *metricsv3.StatsConfig {
	list := &matcherv3.ListStringMatcher{}
	for _, prefix := range append(keptStats, b.Stats...) {
		list.Patterns = append(list.Patterns, &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix},
		})
	}
	for _, suffix := range []string{".ejections_active", ".upstream_cx_active", ".ssl.handshake", ".ssl.connection_error"} {
		list.Patterns = append(list.Patterns, &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: suffix},
		})
	}
	return &metricsv3.StatsConfig{StatsMatcher: &metricsv3.StatsMatcher{
		StatsMatcher: &metricsv3.StatsMatcher_InclusionList{InclusionList: list},
	}}
}

func (b *builder) statsSinks() []*metricsv3.StatsSink {
	if !b.StatsOTLP {
		return nil
	}
	return []*metricsv3.StatsSink{{
		Name: "envoy.stat_sinks.open_telemetry",
		ConfigType: &metricsv3.StatsSink_TypedConfig{TypedConfig: b.pack(&otelsinkv3.SinkConfig{
			ProtocolSpecifier: &otelsinkv3.SinkConfig_GrpcService{GrpcService: &corev3.GrpcService{
				TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
					EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: AgentCluster},
				},
			}},
		})},
	}}
}

// overload bounds connections always, and memory if it has a limit.
func (b *builder) overload() *overloadv3.OverloadManager {
	m := &overloadv3.OverloadManager{
		RefreshInterval: durationpb.New(250 * time.Millisecond),
		ResourceMonitors: []*overloadv3.ResourceMonitor{{
			Name: "envoy.resource_monitors.global_downstream_max_connections",
			ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: b.pack(&downstreamv3.DownstreamConnectionsConfig{
				MaxActiveDownstreamConnections: 100000,
			})},
		}},
	}
	if b.MaxHeap == 0 {
		return m
	}
	const heap = "envoy.resource_monitors.fixed_heap"
	m.ResourceMonitors = append(m.ResourceMonitors, &overloadv3.ResourceMonitor{
		Name:       heap,
		ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: b.pack(&heapv3.FixedHeapConfig{MaxHeapSizeBytes: b.MaxHeap})},
	})
	for _, a := range []struct {
		name string
		at   float64
	}{{"envoy.overload_actions.shrink_heap", 0.9}, {"envoy.overload_actions.stop_accepting_requests", 0.98}} {
		m.Actions = append(m.Actions, &overloadv3.OverloadAction{
			Name: a.name,
			Triggers: []*overloadv3.Trigger{{
				Name:         heap,
				TriggerOneof: &overloadv3.Trigger_Threshold{Threshold: &overloadv3.ThresholdTrigger{Value: a.at}},
			}},
		})
	}
	return m
}

// runtime lets users' regular expressions be as large as RE2 takes them, spans
// leave within a second even when there are few, and the admin interface override
// values while debugging.
func (b *builder) runtime() *bootstrapv3.LayeredRuntime {
	values, err := structpb.NewStruct(map[string]any{
		"re2.max_program_size.error_level": 32768,
		"re2.max_program_size.warn_level":  8192,

		"tracing.opentelemetry.flush_interval_ms": 1000,
		"tracing.opentelemetry.min_flush_spans":   16,
	})
	if err != nil && b.err == nil {
		b.err = err
	}
	return &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{
		{Name: "static", LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: values}},
		{Name: "admin", LayerSpecifier: &bootstrapv3.RuntimeLayer_AdminLayer_{AdminLayer: &bootstrapv3.RuntimeLayer_AdminLayer{}}},
	}}
}
