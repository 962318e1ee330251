// Package endpoint makes Envoy's endpoint lists: where a cluster's answers come from.
//
//	in:   Input: the endpoints of one service, the labels of one subset, and what
//	      mTLS mode its workloads are in
//	out:  endpoint.v3.ClusterLoadAssignment with the name of its cluster
package endpoint

import (
	"cmp"
	"slices"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/envoy/cluster"
	"github.com/xebec-mesh/xebec/pilot/model"
	"github.com/xebec-mesh/xebec/pilot/policy"
)

// Input is all that an endpoint list is made from.
type Input struct {
	Cluster   string
	Port      string // the service port's name
	Subset    model.Labels
	Endpoints *model.Endpoints // nil: nobody answers
	Peers     policy.Peers     // of the namespace in which the endpoints are
}

// Generator makes endpoint lists.
var Generator = envoy.Generator[Input]{Type: envoy.EndpointType, Name: func(in Input) string { return in.Cluster }, Make: build}

func build(in Input) (proto.Message, []config.Ref) {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: in.Cluster}
	if in.Endpoints == nil {
		return out, nil
	}
	zones := map[string][]*endpointv3.LbEndpoint{}
	var names []string
	for _, e := range sorted(in.Endpoints.ByPort[in.Port]) {
		if in.Subset.Len() > 0 && !e.Labels.Contain(in.Subset.Map()) {
			continue
		}
		if _, ok := zones[e.Zone]; !ok {
			names = append(names, e.Zone)
		}
		zones[e.Zone] = append(zones[e.Zone], endpoint(e, in.Peers))
	}
	slices.Sort(names)
	for _, z := range names {
		group := &endpointv3.LocalityLbEndpoints{LbEndpoints: zones[z]}
		if z != "" {
			group.Locality = &core.Locality{Zone: z}
		}
		out.Endpoints = append(out.Endpoints, group)
	}
	return out, nil
}

func sorted(eps []model.Endpoint) []model.Endpoint {
	return slices.SortedFunc(slices.Values(eps), func(a, b model.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Address, b.Address), cmp.Compare(a.Port, b.Port))
	})
}

func endpoint(e model.Endpoint, peers policy.Peers) *endpointv3.LbEndpoint {
	ep := &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
		Address: envoy.Address(e.Address, e.Port),
	}}}
	if e.Weight > 1 {
		ep.LoadBalancingWeight = wrapperspb.UInt32(e.Weight)
	}
	if Mutual(e, peers) {
		ep.Metadata = &core.Metadata{FilterMetadata: map[string]*structpb.Struct{
			"envoy.transport_socket_match": {Fields: map[string]*structpb.Value{
				cluster.TLSMode: structpb.NewStringValue(cluster.MeshMode),
			}},
		}}
	}
	return ep
}

// Mutual says whether an endpoint takes the mesh's mutual TLS.
func Mutual(e model.Endpoint, peers policy.Peers) bool {
	return e.Workload != nil && e.Workload.Meshed && peers.Mode(e.Workload.Labels, e.Port) != policy.Disable
}
