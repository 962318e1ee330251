package service

import (
	"net/netip"
	"time"
)

// Protocol is an IP protocol number that Services know.
type Protocol uint8

const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// String is the protocol's name in the Kubernetes API.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	}
	return "unknown"
}

// Service is one Service as this node should serve it. A headless Service has
// no Addrs and takes no part. Its zero value has nothing to serve.
type Service struct {
	Name  string       // namespace/name, unique
	Addrs []netip.Addr // cluster IPs of either family; external IPs too
	Ports []Port

	LocalOnly bool          // internalTrafficPolicy: Local
	Affinity  time.Duration // sessionAffinity ClientIP and its timeout; 0: none
}

// Port is one port of a Service with the endpoints behind it.
type Port struct {
	Name      string
	Protocol  Protocol
	Port      uint16
	Endpoints []Endpoint
}

// Endpoint is one address and port from an EndpointSlice with its conditions.
// A frontend uses the endpoints of its own address family only.
type Endpoint struct {
	Addr        netip.AddrPort
	Ready       bool // receives traffic
	Serving     bool // could receive traffic, though it may be terminating
	Terminating bool
	Local       bool // on this node
}
