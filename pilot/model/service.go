package model

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/galley/config"
)

// Protocol is what is spoken on a port, as far as routing cares.
type Protocol uint8

const (
	Sniff Protocol = iota // undeclared: the proxy looks at the first bytes
	TCP
	TLS // TLS that the application does itself; routed by SNI, never opened
	HTTP
	HTTP2 // HTTP/2 without TLS, and gRPC
	UDP   // not handled by the mesh
)

// IsHTTP says whether requests on the port are routed one by one.
func (p Protocol) IsHTTP() bool { return p == HTTP || p == HTTP2 }

func (p Protocol) String() string {
	return [...]string{"sniff", "tcp", "tls", "http", "http2", "udp"}[p]
}

// ProtocolOf derives the protocol as Istio does: appProtocol first, then the prefix
// of the port's name, else sniffing.
// See https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/
func ProtocolOf(name string, appProtocol *string, transport corev1.Protocol) Protocol {
	if transport != "" && transport != corev1.ProtocolTCP {
		return UDP
	}
	word, _, _ := strings.Cut(name, "-")
	if appProtocol != nil {
		word = *appProtocol
	}
	switch strings.ToLower(word) {
	case "http", "kubernetes.io/ws":
		return HTTP
	case "http2", "grpc", "kubernetes.io/h2c":
		return HTTP2
	case "https", "tls", "kubernetes.io/wss":
		return TLS
	case "tcp", "mongo", "mysql", "redis", "postgres":
		return TCP
	}
	if strings.HasPrefix(strings.ToLower(name), "grpc-web") {
		return HTTP
	}
	return Sniff
}

// Resolution says how a service's address becomes an endpoint's.
type Resolution uint8

const (
	ClusterIP Resolution = iota // endpoints from the registry, behind virtual addresses
	Headless                    // the client chooses an endpoint's own address
	DNS                         // endpoints are names that the proxy resolves
)

// Service is one host that can be called, with its ports.
type Service struct {
	Host       string // fully qualified
	Name       string
	Namespace  string
	Addresses  Tuple[string] // virtual addresses; empty if headless
	Resolution Resolution
	Ports      Tuple[Port]
	Selector   Labels // of the pods behind it; empty if endpoints are made by hand
	External   bool   // outside of the mesh: from a ServiceEntry or an ExternalName
	Ref        config.Ref
}

// Port is one port of a Service.
type Port struct {
	Name       string
	Number     uint32
	Protocol   Protocol
	Target     uint32 // number on the pod; 0 if named
	TargetName string // name on the pod, if not a number
}

// PortNumbered finds a port.
func (s *Service) PortNumbered(n uint32) (Port, bool) {
	for _, p := range s.Ports.All() {
		if p.Number == n {
			return p, true
		}
	}
	return Port{}, false
}

// Endpoints are all places where one service answers.
type Endpoints struct {
	Host       string
	ByPort     map[string][]Endpoint // by the service port's name
	Identities Tuple[string]         // "namespace/service account" behind it, in order
}

// Endpoint is one address of a service. One that terminates or is not ready is not listed.
type Endpoint struct {
	Address  string
	Port     uint32
	Workload *Workload // nil: not a pod that we know
	Labels   Labels    // the workload's, or given by hand
	Zone     string
	Weight   uint32 // 0 is 1
}

// Workload is one pod.
type Workload struct {
	Namespace      string
	Name           string
	Labels         Labels
	ServiceAccount string
	Meshed         bool // it has a sidecar
	Ports          Tuple[ContainerPort]
	Addresses      Tuple[string]
}

// Key is namespace/name.
func (w *Workload) Key() string { return w.Namespace + "/" + w.Name }

// ContainerPort is a port that a pod declares.
type ContainerPort struct {
	Name   string
	Number uint32
}
