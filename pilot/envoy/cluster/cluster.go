// Package cluster makes Envoy clusters: who can be called, and how.
//
//	in:   Input: one port of one service, one subset, the rules and identities that concern it
//	out:  cluster.v3.Cluster under Istio's name for it
package cluster

import (
	"math"
	"strconv"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	networking "istio.io/api/networking/v1alpha3"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/model"
	"github.com/xebec-mesh/xebec/pilot/policy"
)

// Names of clusters that are not a service.
const (
	Passthrough        = "PassthroughCluster"
	BlackHole          = "BlackHoleCluster"
	InboundPassthrough = "InboundPassthroughCluster"
)

// Outbound is Istio's name for a port and subset of a host.
func Outbound(port uint32, subset, host string) string {
	return "outbound|" + strconv.FormatUint(uint64(port), 10) + "|" + subset + "|" + host
}

// SNI is the server name that a sidecar sends for it.
func SNI(port uint32, subset, host string) string {
	return "outbound_." + strconv.FormatUint(uint64(port), 10) + "_." + subset + "_." + host
}

// Inbound is the name for a port of the application beside the sidecar.
func Inbound(port uint32) string {
	return "inbound|" + strconv.FormatUint(uint64(port), 10) + "||"
}

const connectTimeout = 10 * time.Second // Istio's default

// Input is all that an outbound cluster is made from.
type Input struct {
	Settings   *model.Settings
	Service    *model.Service
	Port       model.Port
	Subset     string
	Rules      policy.Rules
	Identities model.Tuple[string] // "namespace/service account" of those that may answer
	AllMeshed  bool                // every endpoint has a sidecar that takes mTLS
	Endpoints  *model.Endpoints    // only for those that are resolved by name; else nil
}

// Generator makes outbound clusters.
var Generator = envoy.Generator[Input]{Type: envoy.ClusterType, Name: Input.name, Make: build}

func (in Input) name() string { return Outbound(in.Port.Number, in.Subset, in.Service.Host) }

func build(in Input) (proto.Message, []config.Ref) {
	c := &clusterv3.Cluster{
		Name:           in.name(),
		ConnectTimeout: durationpb.New(connectTimeout),
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{},
	}
	t := policy.TrafficOf(in.Rules, in.Subset, in.Port.Number)
	discover(c, in)
	balance(c, t.LoadBalancer)
	pool(c, t.ConnectionPool)
	eject(c, t.OutlierDetection)
	speak(c, in.Port.Protocol, t.ConnectionPool)
	secure(c, in, t.TLS)
	return c, append([]config.Ref{in.Service.Ref}, policy.Origins(in.Rules)...)
}

func discover(c *clusterv3.Cluster, in Input) {
	switch in.Service.Resolution {
	case model.Headless:
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST}
		c.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
	case model.DNS:
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS}
		c.DnsLookupFamily = clusterv3.Cluster_ALL
		c.RespectDnsTtl = true
		c.DnsRefreshRate = durationpb.New(time.Minute)
		c.LoadAssignment = named(c.Name, in)
	default:
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
		c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: envoy.ADS(), ServiceName: c.Name}
	}
}

// named lists the names that Envoy is to resolve.
func named(name string, in Input) *endpointv3.ClusterLoadAssignment {
	var eps []*endpointv3.LbEndpoint
	if in.Endpoints != nil {
		for _, e := range in.Endpoints.ByPort[in.Port.Name] {
			eps = append(eps, address(e.Address, e.Port))
		}
	}
	if len(eps) == 0 {
		eps = append(eps, address(in.Service.Host, in.Port.Number))
	}
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: name,
		Endpoints:   []*endpointv3.LocalityLbEndpoints{{LbEndpoints: eps}},
	}
}

func address(host string, port uint32) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
		Address: envoy.Address(host, port),
	}}}
}

// unlimited lifts Envoy's own limits, as Istio does: limits are what users set.
func unlimited() *clusterv3.CircuitBreakers_Thresholds {
	most := wrapperspb.UInt32(math.MaxUint32)
	return &clusterv3.CircuitBreakers_Thresholds{
		MaxConnections: most, MaxPendingRequests: most, MaxRequests: most, MaxRetries: most, TrackRemaining: true,
	}
}

func pool(c *clusterv3.Cluster, p *networking.ConnectionPoolSettings) {
	limits := unlimited()
	c.CircuitBreakers = &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{limits}}
	limit(&limits.MaxConnections, p.GetTcp().GetMaxConnections())
	limit(&limits.MaxPendingRequests, p.GetHttp().GetHttp1MaxPendingRequests())
	limit(&limits.MaxRequests, p.GetHttp().GetHttp2MaxRequests())
	limit(&limits.MaxRetries, p.GetHttp().GetMaxRetries())
	if t := p.GetTcp().GetConnectTimeout(); t != nil {
		c.ConnectTimeout = t
	}
	if k := p.GetTcp().GetTcpKeepalive(); k != nil {
		keep := &core.TcpKeepalive{}
		if k.GetProbes() > 0 {
			keep.KeepaliveProbes = wrapperspb.UInt32(k.GetProbes())
		}
		if k.GetTime() != nil {
			keep.KeepaliveTime = wrapperspb.UInt32(uint32(k.GetTime().GetSeconds()))
		}
		if k.GetInterval() != nil {
			keep.KeepaliveInterval = wrapperspb.UInt32(uint32(k.GetInterval().GetSeconds()))
		}
		c.UpstreamConnectionOptions = &clusterv3.UpstreamConnectionOptions{TcpKeepalive: keep}
	}
}

func limit(dst **wrapperspb.UInt32Value, n int32) {
	if n > 0 {
		*dst = wrapperspb.UInt32(uint32(n))
	}
}
