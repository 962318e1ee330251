package model

import (
	"slices"
	"strings"

	"github.com/xebec-mesh/xebec/galley/config"
)

// Kind is what a Key names.
type Kind uint8

const (
	KindService         Kind = iota + 1 // by host
	KindEndpoints                       // by host
	KindIdentities                      // by host: who serves it
	KindVirtualService                  // by host as written, wildcards included
	KindDestinationRule                 // by host as written
	KindPeerAuth                        // by namespace
	KindSidecar                         // by namespace
	KindNamespace                       // the set of services in a namespace
	KindWorkload                        // by namespace/name
	KindLabelKeys                       // which labels of callers matter
)

func (k Kind) String() string {
	return [...]string{"", "service", "endpoints", "identities", "virtualservice", "destinationrule",
		"peerauthentication", "sidecar", "namespace", "workload", "labelkeys"}[k]
}

// Key names one fact of a Mesh that can change by itself.
type Key struct {
	Kind Kind
	Name string
}

func (k Key) String() string { return k.Kind.String() + "/" + k.Name }

// Settings hold for the whole mesh and never change while the process runs.
type Settings struct {
	TrustDomain    string          // default cluster.local
	ClusterDomain  string          // default cluster.local
	RootNamespaces Tuple[string]   // where configuration is mesh-wide; default istio-system, xebec-system
	AgentCluster   string          // Envoy's static cluster to the node agent; default xebec-agent
	AgentHosts     Tuple[string]   // services of the node agent: calls go over the pod's socket; default otel.xebec-system
	Sampling       float64         // percent of requests that are traced; NewSettings: 100
	AccessLog      bool            // access logs to the agent; NewSettings: true
	OutboundPort   uint32          // default 15001
	InboundPort    uint32          // default 15006
	SourceAddress  string          // from which the sidecar calls its application; default 127.0.0.6
	SourceAddress6 string          // the same for IPv6; default ::1
	IPv6           bool            // pods may speak IPv6: listen on it too; NewSettings: true
	Sniffing       SniffingTimeout // how long to wait for a client that may be silent
}

// SniffingTimeout is in milliseconds.
type SniffingTimeout uint32

// NewSettings returns the defaults.
func NewSettings() Settings {
	return Settings{
		TrustDomain:    "cluster.local",
		ClusterDomain:  "cluster.local",
		RootNamespaces: TupleOf("istio-system", "xebec-system"),
		AgentCluster:   "xebec-agent",
		AgentHosts:     TupleOf("otel.xebec-system.svc.cluster.local"),
		Sampling:       100,
		AccessLog:      true,
		OutboundPort:   15001,
		InboundPort:    15006,
		SourceAddress:  "127.0.0.6",
		SourceAddress6: "::1",
		IPv6:           true,
		Sniffing:       5000,
	}
}

// Mesh is a snapshot of all that the data plane is made from.
type Mesh struct {
	Settings *Settings
	Revision uint64 // grows with every change

	services   Map[*Service]
	endpoints  Map[*Endpoints]
	namespaces Map[*Namespace]
	workloads  Map[*Workload]
	virtuals   Map[Tuple[*config.VirtualService]]
	rules      Map[Tuple[*config.DestinationRule]]
	peers      Map[Tuple[*config.PeerAuthentication]]
	sidecars   Map[Tuple[*config.Sidecar]]
	labelKeys  *LabelKeys
}

// Namespace holds what belongs to one namespace.
type Namespace struct {
	Services  Map[*Service]        // by host
	selecting Map[Tuple[*Service]] // by one label of their selectors
}

// LabelKeys are the keys of callers' labels on which configuration depends.
type LabelKeys struct{ Keys map[string]bool }

// Empty returns a mesh with nothing in it.
func Empty(s Settings) *Mesh {
	return &Mesh{Settings: &s, labelKeys: &LabelKeys{}}
}

// Hosts yields every host that is a service or has a VirtualService.
func (m *Mesh) Hosts(yield func(host string) bool) {
	for h := range m.services.All() {
		if !yield(h) {
			return
		}
	}
	for h := range m.virtuals.All() {
		if _, dup := m.services.Get(h); !dup && !config.IsDelegateKey(h) && !yield(h) {
			return
		}
	}
}

// Workload returns a pod, or nil.
func (m *Mesh) Workload(key string) *Workload { w, _ := m.workloads.Get(key); return w }

// CallerLabels are the keys of callers' labels on which configuration depends.
func (m *Mesh) CallerLabels() *LabelKeys { return m.labelKeys }

// Size counts services and endpoints sets, for progress and debugging.
func (m *Mesh) Size() (services, virtualServices int) { return m.services.Len(), m.virtuals.Len() }

// Reader reads a Mesh and remembers what was asked for, including what was not
// there. So whatever is computed through a Reader knows exactly when it is out of date.
type Reader struct {
	Mesh *Mesh
	Deps map[Key]struct{} // nil: do not remember
}

// Read returns a Reader that remembers.
func (m *Mesh) Read() *Reader { return &Reader{Mesh: m, Deps: map[Key]struct{}{}} }

func (r *Reader) note(k Kind, name string) {
	if r.Deps != nil {
		r.Deps[Key{k, name}] = struct{}{}
	}
}

// Service returns the service of a host, or nil.
func (r *Reader) Service(host string) *Service {
	r.note(KindService, host)
	s, _ := r.Mesh.services.Get(host)
	return s
}

// Endpoints returns where a host answers, or nil.
func (r *Reader) Endpoints(host string) *Endpoints {
	r.note(KindEndpoints, host)
	e, _ := r.Mesh.endpoints.Get(host)
	return e
}

// Identities returns the service accounts behind a host.
func (r *Reader) Identities(host string) Tuple[string] {
	r.note(KindIdentities, host)
	e, _ := r.Mesh.endpoints.Get(host)
	if e == nil {
		return Tuple[string]{}
	}
	return e.Identities
}

// Selecting returns the services of a namespace whose selectors fit labels, in the
// order of their hosts.
func (r *Reader) Selecting(namespace string, labels Labels) []*Service {
	r.note(KindNamespace, namespace)
	n, ok := r.Mesh.namespaces.Get(namespace)
	if !ok {
		return nil
	}
	var out []*Service
	for _, l := range labels.t.All() {
		services, _ := n.selecting.Get(l.key + "=" + l.value)
		for _, s := range services.All() {
			if labels.covers(s.Selector) {
				out = append(out, s)
			}
		}
	}
	slices.SortFunc(out, func(a, b *Service) int { return strings.Compare(a.Host, b.Host) })
	return out
}

// Workload returns a pod, or nil.
func (r *Reader) Workload(key string) *Workload {
	r.note(KindWorkload, key)
	return r.Mesh.Workload(key)
}

// VirtualServices returns those written for exactly this host, oldest first.
func (r *Reader) VirtualServices(host string) Tuple[*config.VirtualService] {
	r.note(KindVirtualService, host)
	t, _ := r.Mesh.virtuals.Get(host)
	return t
}

// DestinationRules returns those written for exactly this host, oldest first.
func (r *Reader) DestinationRules(host string) Tuple[*config.DestinationRule] {
	r.note(KindDestinationRule, host)
	t, _ := r.Mesh.rules.Get(host)
	return t
}

// PeerAuthentications returns those of a namespace, oldest first.
func (r *Reader) PeerAuthentications(namespace string) Tuple[*config.PeerAuthentication] {
	r.note(KindPeerAuth, namespace)
	t, _ := r.Mesh.peers.Get(namespace)
	return t
}

// Sidecars returns those of a namespace, oldest first.
func (r *Reader) Sidecars(namespace string) Tuple[*config.Sidecar] {
	r.note(KindSidecar, namespace)
	t, _ := r.Mesh.sidecars.Get(namespace)
	return t
}
