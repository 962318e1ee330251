// Package policy decides what security and traffic policy holds for one workload
// or one destination.
//
//	in:   PeerAuthentications and DestinationRules, as the model lists them
//	out:  the mTLS mode of a port; the rules that a caller applies to a host
//
// Everything here is pure, and what it returns can be compared with ==.
package policy

import (
	security "istio.io/api/security/v1beta1"

	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/pilot/model"
)

// Mode is what a port accepts.
type Mode uint8

const (
	Permissive Mode = iota // mTLS and plaintext
	Strict                 // mTLS only
	Disable                // plaintext only
)

func (m Mode) String() string { return [...]string{"PERMISSIVE", "STRICT", "DISABLE"}[m] }

// Peers are the PeerAuthentications that can concern the workloads of one namespace.
type Peers struct {
	Root      model.Tuple[*config.PeerAuthentication]
	Namespace model.Tuple[*config.PeerAuthentication]
}

// PeersOf reads those of a namespace.
func PeersOf(r *model.Reader, namespace string) Peers {
	var p Peers
	var root []*config.PeerAuthentication
	for _, ns := range r.Mesh.Settings.RootNamespaces.All() {
		if ns == namespace {
			continue
		}
		root = append(root, r.PeerAuthentications(ns).Slice()...)
	}
	p.Root = model.TupleOf(root...)
	p.Namespace = r.PeerAuthentications(namespace)
	return p
}

// Mode returns what holds for a port of a workload with these labels. The narrowest
// wins: port, workload, namespace, mesh; UNSET means what the wider one says, and
// PERMISSIVE if nobody says anything. Of two equally narrow the older wins.
func (p Peers) Mode(labels model.Labels, port uint32) Mode {
	mode := Permissive
	for _, level := range []*config.PeerAuthentication{wide(p.Root), wide(p.Namespace)} {
		if level != nil {
			mode = or(level.Spec.GetMtls(), mode)
		}
	}
	if w := narrow(p.Namespace, labels); w != nil {
		mode = or(w.Spec.GetMtls(), mode)
		mode = or(w.Spec.GetPortLevelMtls()[port], mode)
	}
	return mode
}

// Origins are the objects that decide about a workload with these labels.
func (p Peers) Origins(labels model.Labels) []config.Ref {
	var out []config.Ref
	for _, c := range []*config.PeerAuthentication{wide(p.Root), wide(p.Namespace), narrow(p.Namespace, labels)} {
		if c != nil {
			out = append(out, c.Ref)
		}
	}
	return out
}

func wide(t model.Tuple[*config.PeerAuthentication]) *config.PeerAuthentication {
	for _, c := range t.All() {
		if len(c.Spec.GetSelector().GetMatchLabels()) == 0 {
			return c
		}
	}
	return nil
}

func narrow(t model.Tuple[*config.PeerAuthentication], labels model.Labels) *config.PeerAuthentication {
	for _, c := range t.All() {
		sel := c.Spec.GetSelector().GetMatchLabels()
		if len(sel) > 0 && labels.Contain(sel) {
			return c
		}
	}
	return nil
}

func or(m *security.PeerAuthentication_MutualTLS, otherwise Mode) Mode {
	switch m.GetMode() {
	case security.PeerAuthentication_MutualTLS_STRICT:
		return Strict
	case security.PeerAuthentication_MutualTLS_PERMISSIVE:
		return Permissive
	case security.PeerAuthentication_MutualTLS_DISABLE:
		return Disable
	}
	return otherwise
}
