package model

import (
	"cmp"
	"slices"

	"github.com/xebec-mesh/xebec/galley/config"
)

// Edit makes the next Mesh out of one. Setting a nil pointer or an empty tuple deletes.
type Edit struct {
	next    Mesh
	touched map[Key]struct{}
}

// Edit begins.
func (m *Mesh) Edit() *Edit {
	return &Edit{next: *m, touched: map[Key]struct{}{}}
}

// Done returns the next Mesh and what differs, in order. Without a difference it
// returns the old one.
func (e *Edit) Done(old *Mesh) (*Mesh, []Key) {
	if len(e.touched) == 0 {
		return old, nil
	}
	keys := make([]Key, 0, len(e.touched))
	for k := range e.touched {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b Key) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	e.next.Revision++
	return &e.next, keys
}

func (e *Edit) touch(k Kind, name string) { e.touched[Key{k, name}] = struct{}{} }

// put sets or deletes and says whether anything changed.
func put[V comparable](m *Map[V], key string, v V) bool {
	var none V
	old, had := m.Get(key)
	switch {
	case v == none && had:
		*m = m.Without(key)
	case v == none, had && old == v:
		return false
	default:
		*m = m.With(key, v)
	}
	return true
}

// Service sets the service of a host.
func (e *Edit) Service(host string, s *Service) {
	old, _ := e.next.services.Get(host)
	if !put(&e.next.services, host, s) {
		return
	}
	e.touch(KindService, host)
	if old != nil {
		e.inNamespace(old.Namespace, host, nil)
	}
	if s != nil {
		e.inNamespace(s.Namespace, host, s)
	}
}

func (e *Edit) inNamespace(name, host string, s *Service) {
	n := &Namespace{}
	if old, ok := e.next.namespaces.Get(name); ok {
		*n = *old
	}
	old, _ := n.Services.Get(host)
	if !put(&n.Services, host, s) {
		return
	}
	n.unselect(old)
	n.selects(s)
	if n.Services.Len() == 0 {
		n = nil
	}
	put(&e.next.namespaces, name, n)
	e.touch(KindNamespace, name)
}

// selector is the label under which a service is found; "" for one that selects nothing.
func selector(s *Service) string {
	if s == nil {
		return ""
	}
	for _, l := range s.Selector.t.All() {
		return l.key + "=" + l.value
	}
	return ""
}

func (n *Namespace) selects(s *Service) {
	if k := selector(s); k != "" {
		t, _ := n.selecting.Get(k)
		put(&n.selecting, k, TupleOf(append(t.Slice(), s)...))
	}
}

func (n *Namespace) unselect(s *Service) {
	if k := selector(s); k != "" {
		t, _ := n.selecting.Get(k)
		put(&n.selecting, k, TupleOf(slices.DeleteFunc(t.Slice(), func(o *Service) bool { return o == s })...))
	}
}

// Endpoints sets where a host answers.
func (e *Edit) Endpoints(host string, eps *Endpoints) {
	old, _ := e.next.endpoints.Get(host)
	if !put(&e.next.endpoints, host, eps) {
		return
	}
	e.touch(KindEndpoints, host)
	if old == nil || eps == nil || old.Identities != eps.Identities {
		e.touch(KindIdentities, host)
	}
}

// Workload sets a pod.
func (e *Edit) Workload(key string, w *Workload) {
	if put(&e.next.workloads, key, w) {
		e.touch(KindWorkload, key)
	}
}

// VirtualServices sets those for one host.
func (e *Edit) VirtualServices(host string, t Tuple[*config.VirtualService]) {
	if put(&e.next.virtuals, host, t) {
		e.touch(KindVirtualService, host)
	}
}

// DestinationRules sets those for one host.
func (e *Edit) DestinationRules(host string, t Tuple[*config.DestinationRule]) {
	if put(&e.next.rules, host, t) {
		e.touch(KindDestinationRule, host)
	}
}

// PeerAuthentications sets those of one namespace.
func (e *Edit) PeerAuthentications(namespace string, t Tuple[*config.PeerAuthentication]) {
	if put(&e.next.peers, namespace, t) {
		e.touch(KindPeerAuth, namespace)
	}
}

// Sidecars sets those of one namespace.
func (e *Edit) Sidecars(namespace string, t Tuple[*config.Sidecar]) {
	if put(&e.next.sidecars, namespace, t) {
		e.touch(KindSidecar, namespace)
	}
}

// LabelKeys sets which labels of callers matter.
func (e *Edit) LabelKeys(k *LabelKeys) {
	e.next.labelKeys = k
	e.touch(KindLabelKeys, "")
}

// CurrentWorkload returns a pod as edited so far, or nil.
func (e *Edit) CurrentWorkload(key string) *Workload { w, _ := e.next.workloads.Get(key); return w }

// CurrentEndpoints returns where a host answers as edited so far, or nil.
func (e *Edit) CurrentEndpoints(host string) *Endpoints {
	eps, _ := e.next.endpoints.Get(host)
	return eps
}

// CurrentService returns a service as edited so far, or nil.
func (e *Edit) CurrentService(host string) *Service { s, _ := e.next.services.Get(host); return s }
