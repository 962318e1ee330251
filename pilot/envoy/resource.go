package envoy

import (
	"encoding/hex"
	"hash/fnv"
	"sync/atomic"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-mesh/xebec/galley/config"
)

// Type URLs in the order in which they must reach a proxy: what is referred to
// comes before what refers to it.
const (
	ClusterType     = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointType    = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	ListenerType    = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType       = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	VirtualHostType = "type.googleapis.com/envoy.config.route.v3.VirtualHost"
)

// Types lists them in that order.
var Types = [...]string{ClusterType, EndpointType, ListenerType, RouteType, VirtualHostType}

// TypeIndex is the place of a type in Types, or -1.
func TypeIndex(url string) int {
	for i, t := range Types {
		if t == url {
			return i
		}
	}
	return -1
}

// Resource is one encoded xDS resource. It is immutable but for what proxies said
// about it.
type Resource struct {
	Type    string
	Name    string
	Version string // of the content; the same in every process
	Body    []byte // the message, encoded
	Origins []config.Ref
	Invalid error // it breaks its own schema: it must not be sent

	accepted atomic.Bool
	rejected atomic.Pointer[string]
}

// Accepted says whether some proxy has put it into force.
func (r *Resource) Accepted() bool { return r.accepted.Load() }

// Accept records that a proxy has put it into force.
func (r *Resource) Accept() {
	if !r.accepted.Load() {
		r.accepted.Store(true)
	}
}

// Reject records why a proxy refused it, and says whether that was news.
func (r *Resource) Reject(detail string) bool { return r.rejected.CompareAndSwap(nil, &detail) }

// Rejected returns why it must not be sent, or "".
func (r *Resource) Rejected() string {
	if r.Invalid != nil {
		return r.Invalid.Error()
	}
	if d := r.rejected.Load(); d != nil {
		return *d
	}
	return ""
}

// Any returns the message as it goes into a response.
func (r *Resource) Any() *anypb.Any { return &anypb.Any{TypeUrl: r.Type, Value: r.Body} }

// Wire returns the resource as it goes into a delta response.
func (r *Resource) Wire() *discovery.Resource {
	return &discovery.Resource{Name: r.Name, Version: r.Version, Resource: r.Any()}
}

// validator is what protoc-gen-validate gives to every Envoy message.
type validator interface{ ValidateAll() error }

var marshal = proto.MarshalOptions{Deterministic: true}

func encode(url, name string, m proto.Message, origins []config.Ref) *Resource {
	body, err := marshal.Marshal(m)
	r := &Resource{Type: url, Name: name, Body: body, Origins: origins, Invalid: err}
	if v, ok := m.(validator); ok && err == nil {
		r.Invalid = v.ValidateAll()
	}
	h := fnv.New128a()
	h.Write(body)
	r.Version = hex.EncodeToString(h.Sum(nil))
	return r
}

// MustAny packs a message whose encoding cannot fail.
func MustAny(m proto.Message) *anypb.Any {
	b, err := marshal.Marshal(m)
	if err != nil {
		panic("encode " + string(m.ProtoReflect().Descriptor().FullName()) + ": " + err.Error())
	}
	return &anypb.Any{TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: b}
}
