package cluster

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	http "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/model"
)

// OwnInput is all that a cluster towards the application beside the sidecar, or
// towards wherever a connection was going anyway, is made from.
type OwnInput struct {
	Settings *model.Settings
	Name     string
	Inbound  bool // to the application, from the loopback source that interception lets pass
}

// Own makes them. They go to the address that the connection was addressed to, so
// that they are the same in every pod.
var Own = envoy.Generator[OwnInput]{Type: envoy.ClusterType, Name: func(in OwnInput) string { return in.Name }, Make: func(in OwnInput) (proto.Message, []config.Ref) {
	c := &clusterv3.Cluster{
		Name:                 in.Name,
		ConnectTimeout:       durationpb.New(connectTimeout),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		LbPolicy:             clusterv3.Cluster_CLUSTER_PROVIDED,
		CircuitBreakers:      &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{unlimited()}},
	}
	option(c, httpOptions, envoy.MustAny(&http.HttpProtocolOptions{
		UpstreamProtocolOptions: clientsOwn(&core.Http2ProtocolOptions{}),
	}))
	if in.Name == BlackHole {
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		c.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
	}
	if in.Inbound {
		c.UpstreamBindConfig = loopback(in.Settings)
	}
	return c, nil
}}

// loopback binds the connection to the application to a loopback address: it is how
// interception tells the sidecar's own calls from everybody else's.
func loopback(s *model.Settings) *core.BindConfig {
	return &core.BindConfig{
		SourceAddress: envoy.SocketAddress(s.SourceAddress, 0),
		ExtraSourceAddresses: []*core.ExtraSourceAddress{
			{Address: envoy.SocketAddress(s.SourceAddress6, 0)},
		},
	}
}
