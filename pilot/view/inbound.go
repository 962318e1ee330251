package view

import (
	"strconv"

	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/envoy/cluster"
	"github.com/xebec-mesh/xebec/pilot/envoy/listener"
	"github.com/xebec-mesh/xebec/pilot/model"
	"github.com/xebec-mesh/xebec/pilot/policy"
)

// Inbound is the view of what may call one workload.
type Inbound struct {
	Key      string          // of the workload in the model
	Fallback *model.Workload // until the model knows it
}

// NewInbound returns the view. Update fills it.
func NewInbound(i Inbound) *View { return newView(i) }

func (i Inbound) initial(*model.Mesh) []string  { return []string{unitBase} }
func (i Inbound) concerned(model.Key) []string  { return nil }
func (i Inbound) gone(*model.Mesh, string) bool { return false }

func (i Inbound) compute(r *model.Reader, c *envoy.Cache, _ string) []*envoy.Resource {
	w := r.Workload(i.Key)
	if w == nil {
		w = i.Fallback
	}
	b := &builder{r: r, c: c, s: r.Mesh.Settings}
	peers := policy.PeersOf(r, w.Namespace)
	ports := ownPorts(r, w, peers)
	add(b, listener.Incoming, listener.InboundInput{
		Settings: b.s, Ports: ports, Rest: peers.Mode(w.Labels, 0),
		Origins: model.TupleOf(peers.Origins(w.Labels)...),
	})
	for _, p := range ports.All() {
		add(b, cluster.Own, cluster.OwnInput{Settings: b.s, Name: cluster.Inbound(p.Number), Inbound: true})
	}
	add(b, cluster.Own, cluster.OwnInput{Settings: b.s, Name: cluster.InboundPassthrough, Inbound: true})
	return b.out
}

// ownPorts lists the ports on which services reach the workload, and those that it
// declares itself. What a service says about the protocol counts; of two that
// disagree, the first by name.
func ownPorts(r *model.Reader, w *model.Workload, peers policy.Peers) model.Tuple[listener.OwnPort] {
	seen := map[uint32]bool{}
	var out []listener.OwnPort
	put := func(n uint32, p model.Protocol, host string) {
		if n == 0 || p == model.UDP || seen[n] || reserved(r.Mesh.Settings, n) {
			return
		}
		seen[n] = true
		out = append(out, listener.OwnPort{Number: n, Protocol: p, Host: host, Mode: peers.Mode(w.Labels, n)})
	}
	for _, s := range r.Selecting(w.Namespace, w.Labels) {
		for _, p := range s.Ports.All() {
			put(target(w, p), p.Protocol, s.Host+":"+strconv.FormatUint(uint64(p.Number), 10))
		}
	}
	for _, p := range w.Ports.All() {
		put(p.Number, model.ProtocolOf(p.Name, nil, ""), w.Name+"."+w.Namespace+":"+strconv.FormatUint(uint64(p.Number), 10))
	}
	return model.TupleOf(out...)
}

func target(w *model.Workload, p model.Port) uint32 {
	if p.TargetName == "" {
		if p.Target == 0 {
			return p.Number
		}
		return p.Target
	}
	for _, c := range w.Ports.All() {
		if c.Name == p.TargetName {
			return c.Number
		}
	}
	return 0
}

func reserved(s *model.Settings, port uint32) bool {
	return port == s.InboundPort || port == s.OutboundPort
}
