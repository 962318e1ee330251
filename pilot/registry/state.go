package registry

import (
	"maps"
	"reflect"
	"slices"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/pilot/model"
)

// State is what the registry knows, with the indexes that keep an event's cost to
// what it touches. It belongs to one goroutine.
type State struct {
	mesh     *model.Mesh
	edit     *model.Edit
	services map[string]*model.Service                        // by namespace/name
	slices   map[string]map[string]*discoveryv1.EndpointSlice // by service, by slice
	served   map[string]map[string]struct{}                   // pod → services whose slices name it
	dirty    map[string]struct{}                              // services whose endpoints must be gathered again
	entries  map[string][]string                              // ServiceEntry → hosts
	virtuals byKey[*config.VirtualService]
	rules    byKey[*config.DestinationRule]
	peers    byKey[*config.PeerAuthentication]
	sidecars byKey[*config.Sidecar]
	labels   map[string]int // how many objects ask for a label of callers
	relabel  bool
}

// NewState returns a state of nothing.
func NewState(s model.Settings) *State {
	st := &State{
		mesh:     model.Empty(s),
		services: map[string]*model.Service{},
		slices:   map[string]map[string]*discoveryv1.EndpointSlice{},
		served:   map[string]map[string]struct{}{},
		dirty:    map[string]struct{}{},
		entries:  map[string][]string{},
		labels:   map[string]int{},
	}
	st.virtuals.init()
	st.rules.init()
	st.peers.init()
	st.sidecars.init()
	st.edit = st.mesh.Edit()
	return st
}

// Apply takes one event.
func (s *State) Apply(e client.Event) {
	gone := e.Type == client.Deleted
	switch o := e.Object.(type) {
	case *corev1.Service:
		s.service(o, gone)
	case *discoveryv1.EndpointSlice:
		s.slice(o, gone)
	case *corev1.Pod:
		s.pod(o, gone || model.Ended(o))
	case *networkingv1.VirtualService:
		s.virtual(o, gone)
	case *networkingv1.DestinationRule:
		s.rule(o, gone)
	case *securityv1.PeerAuthentication:
		s.peer(o, gone)
	case *networkingv1.Sidecar:
		s.sidecar(o, gone)
	case *networkingv1.ServiceEntry:
		s.entry(o, gone)
	}
}

// Commit returns the mesh after the events since the last Commit, and what changed.
func (s *State) Commit() (*model.Mesh, []model.Key) {
	for key := range s.dirty {
		s.gather(key)
	}
	clear(s.dirty)
	if s.relabel {
		s.relabel = false
		keys := map[string]bool{}
		for k := range s.labels {
			keys[k] = true
		}
		s.edit.LabelKeys(&model.LabelKeys{Keys: keys})
	}
	var touched []model.Key
	s.mesh, touched = s.edit.Done(s.mesh)
	s.edit = s.mesh.Edit()
	return s.mesh, touched
}

func (s *State) domain() string { return s.mesh.Settings.ClusterDomain }

func (s *State) service(o *corev1.Service, gone bool) {
	key := o.Namespace + "/" + o.Name
	host := o.Name + "." + o.Namespace + ".svc." + s.domain()
	if gone || o.Spec.Type == corev1.ServiceTypeExternalName {
		delete(s.services, key)
		s.edit.Service(host, nil)
		s.edit.Endpoints(host, nil)
		return
	}
	next := serviceOf(o, host)
	if old := s.services[key]; old != nil && *old == *next {
		return
	}
	s.services[key] = next
	s.edit.Service(host, next)
	s.dirty[key] = struct{}{}
}

func (s *State) slice(o *discoveryv1.EndpointSlice, gone bool) {
	name := o.Labels[discoveryv1.LabelServiceName]
	if name == "" {
		return
	}
	key := o.Namespace + "/" + name
	group := s.slices[key]
	if group == nil {
		group = map[string]*discoveryv1.EndpointSlice{}
		s.slices[key] = group
	}
	if old := group[o.Name]; old != nil {
		for _, p := range podsOf(old) {
			delete(s.served[p], key)
			if len(s.served[p]) == 0 {
				delete(s.served, p)
			}
		}
	}
	if gone {
		delete(group, o.Name)
	} else {
		group[o.Name] = o
	}
	for _, other := range group { // another slice may still name the pod
		for _, p := range podsOf(other) {
			if s.served[p] == nil {
				s.served[p] = map[string]struct{}{}
			}
			s.served[p][key] = struct{}{}
		}
	}
	if len(group) == 0 {
		delete(s.slices, key)
	}
	s.dirty[key] = struct{}{}
}

func podsOf(o *discoveryv1.EndpointSlice) []string {
	var out []string
	for _, e := range o.Endpoints {
		if e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
			out = append(out, o.Namespace+"/"+e.TargetRef.Name)
		}
	}
	return out
}

func (s *State) pod(o *corev1.Pod, gone bool) {
	key := o.Namespace + "/" + o.Name
	if gone {
		s.edit.Workload(key, nil)
	} else {
		next := model.WorkloadOf(o)
		if old := s.edit.CurrentWorkload(key); old != nil && *old == *next {
			return
		}
		s.edit.Workload(key, next)
	}
	for svc := range s.served[key] {
		s.dirty[svc] = struct{}{}
	}
}

// gather makes the endpoints of a service from its slices.
func (s *State) gather(key string) {
	svc := s.services[key]
	if svc == nil {
		return
	}
	next := endpointsOf(svc.Host, slices.Collect(maps.Values(s.slices[key])), s.edit.CurrentWorkload)
	if old := s.edit.CurrentEndpoints(svc.Host); old != nil && reflect.DeepEqual(old, next) {
		return
	}
	s.edit.Endpoints(svc.Host, next)
}

func (s *State) virtual(o *networkingv1.VirtualService, gone bool) {
	var next *config.VirtualService
	if !gone {
		next = config.FromVirtualService(o, s.domain())
	}
	old := s.virtuals.objects[o.Namespace+"/"+o.Name]
	if old != nil && next != nil && old.Generation == next.Generation && proto.Equal(old.Spec, next.Spec) {
		return
	}
	s.count(callersOf(old), -1)
	s.count(callersOf(next), +1)
	for _, host := range s.virtuals.replace(o.Namespace+"/"+o.Name, old, next, (*config.VirtualService).Keys) {
		s.edit.VirtualServices(host, s.virtuals.group(host, func(a, b *config.VirtualService) int { return a.Older(b.Meta) }))
	}
}

func (s *State) rule(o *networkingv1.DestinationRule, gone bool) {
	var next *config.DestinationRule
	if !gone {
		next = config.FromDestinationRule(o, s.domain())
	}
	old := s.rules.objects[o.Namespace+"/"+o.Name]
	if old != nil && next != nil && old.Generation == next.Generation && proto.Equal(old.Spec, next.Spec) {
		return
	}
	s.count(selectorOf(old), -1)
	s.count(selectorOf(next), +1)
	for _, host := range s.rules.replace(o.Namespace+"/"+o.Name, old, next, func(d *config.DestinationRule) []string { return []string{d.Host} }) {
		s.edit.DestinationRules(host, s.rules.group(host, func(a, b *config.DestinationRule) int { return a.Older(b.Meta) }))
	}
}

func (s *State) peer(o *securityv1.PeerAuthentication, gone bool) {
	var next *config.PeerAuthentication
	if !gone {
		next = config.FromPeerAuthentication(o)
	}
	old := s.peers.objects[o.Namespace+"/"+o.Name]
	if old != nil && next != nil && old.Generation == next.Generation && proto.Equal(old.Spec, next.Spec) {
		return
	}
	for _, ns := range s.peers.replace(o.Namespace+"/"+o.Name, old, next, func(p *config.PeerAuthentication) []string { return []string{p.Namespace} }) {
		s.edit.PeerAuthentications(ns, s.peers.group(ns, func(a, b *config.PeerAuthentication) int { return a.Older(b.Meta) }))
	}
}

func (s *State) sidecar(o *networkingv1.Sidecar, gone bool) {
	var next *config.Sidecar
	if !gone {
		next = config.FromSidecar(o)
	}
	old := s.sidecars.objects[o.Namespace+"/"+o.Name]
	if old != nil && next != nil && old.Generation == next.Generation && proto.Equal(old.Spec, next.Spec) {
		return
	}
	for _, ns := range s.sidecars.replace(o.Namespace+"/"+o.Name, old, next, func(p *config.Sidecar) []string { return []string{p.Namespace} }) {
		s.edit.Sidecars(ns, s.sidecars.group(ns, func(a, b *config.Sidecar) int { return a.Older(b.Meta) }))
	}
}

// callersOf lists the labels of callers that a VirtualService asks for.
func callersOf(v *config.VirtualService) []string {
	if v == nil {
		return nil
	}
	var out []string
	for _, h := range v.Spec.GetHttp() {
		for _, m := range h.GetMatch() {
			out = slices.AppendSeq(out, maps.Keys(m.GetSourceLabels()))
		}
	}
	for _, t := range v.Spec.GetTcp() {
		for _, m := range t.GetMatch() {
			out = slices.AppendSeq(out, maps.Keys(m.GetSourceLabels()))
		}
	}
	for _, t := range v.Spec.GetTls() {
		for _, m := range t.GetMatch() {
			out = slices.AppendSeq(out, maps.Keys(m.GetSourceLabels()))
		}
	}
	return out
}

func selectorOf(d *config.DestinationRule) []string {
	if d == nil {
		return nil
	}
	return slices.Collect(maps.Keys(d.Spec.GetWorkloadSelector().GetMatchLabels()))
}

func (s *State) count(keys []string, by int) {
	for _, k := range keys {
		before := s.labels[k]
		if s.labels[k] = before + by; s.labels[k] == 0 {
			delete(s.labels, k)
		}
		if (before == 0) != (before+by == 0) {
			s.relabel = true
		}
	}
}

// byKey holds objects with an index of theirs.
type byKey[T comparable] struct {
	objects map[string]T
	index   map[string]map[string]T // value → object's key → object
}

func (b *byKey[T]) init() {
	b.objects, b.index = map[string]T{}, map[string]map[string]T{}
}

// replace puts next in the place of old, either of which may be nothing, and returns
// the values under which that makes a difference.
func (b *byKey[T]) replace(key string, old, next T, values func(T) []string) []string {
	var none T
	touched := map[string]struct{}{}
	if old != none {
		for _, v := range values(old) {
			touched[v] = struct{}{}
			delete(b.index[v], key)
			if len(b.index[v]) == 0 {
				delete(b.index, v)
			}
		}
		delete(b.objects, key)
	}
	if next != none {
		b.objects[key] = next
		for _, v := range values(next) {
			touched[v] = struct{}{}
			if b.index[v] == nil {
				b.index[v] = map[string]T{}
			}
			b.index[v][key] = next
		}
	}
	return slices.Collect(maps.Keys(touched))
}

func (b *byKey[T]) group(value string, order func(a, c T) int) model.Tuple[T] {
	return model.TupleOf(slices.SortedFunc(maps.Values(b.index[value]), order)...)
}
