package envoy

import (
	"errors"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
)

// Bootstrap describes one sidecar.
type Bootstrap struct {
	ID        string // node.id, such as sidecar~10.244.0.5~web-0.default~default.svc.cluster.local
	Cluster   string // node.cluster: canonical service and namespace, web.default
	Region    string
	Zone      string
	Metadata  map[string]any // node.metadata
	Socket    string         // agent socket inside the pod; default /var/run/xebec/mesh/agent.sock
	IPv6      bool           // listen on the IPv6 addresses too
	ReadyPort uint16         // /healthz/ready; default 15021
	AdminPort uint16         // on loopback; default 15000
	StatsOTLP bool           // push stats to the agent's OTLP receiver
	MaxHeap   uint64         // bytes; 0: no overload manager for memory
}

// Proto is the bootstrap as Envoy's own type.
func (b Bootstrap) Proto() (*bootstrapv3.Bootstrap, error) { return nil, errors.ErrUnsupported }

// JSON is the bootstrap as a file for envoy -c.
func (b Bootstrap) JSON() ([]byte, error) { return nil, errors.ErrUnsupported }
