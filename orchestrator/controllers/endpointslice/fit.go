package endpointslice

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
)

// Max is how many endpoints one slice holds at most.
const Max = 100

// Group is endpoints of one address family that have the same ports.
type Group struct {
	AddressType discoveryv1.AddressType
	Ports       []discoveryv1.EndpointPort
	Endpoints   []discoveryv1.Endpoint // each with one address
}

// Plan says which slices to write. The zero Plan means converged.
type Plan struct {
	Create, Update []*discoveryv1.EndpointSlice
	Delete         []pods.Ref
}

// Fit changes as few slices as it can so that they hold exactly the groups: an
// endpoint stays where it is, a new one goes to the fullest slice that has room, and
// slices that have become empty go. meta is what every slice is labelled with.
func Fit(have []*discoveryv1.EndpointSlice, want []Group, meta Meta) Plan {
	var p Plan
	have = slices.SortedFunc(slices.Values(have), func(a, b *discoveryv1.EndpointSlice) int { return strings.Compare(a.Name, b.Name) })
	left := map[string][]*discoveryv1.EndpointSlice{}
	for _, s := range have {
		if s.DeletionTimestamp == nil {
			left[groupKey(s.AddressType, s.Ports)] = append(left[groupKey(s.AddressType, s.Ports)], s)
		}
	}
	for _, g := range want {
		key := groupKey(g.AddressType, g.Ports)
		p.fit(left[key], g, meta)
		delete(left, key)
	}
	for _, key := range slices.Sorted(maps.Keys(left)) {
		for _, s := range left[key] {
			p.Delete = append(p.Delete, pods.RefOf(s))
		}
	}
	return p
}

// fit places one group into the slices that have its ports.
func (p *Plan) fit(have []*discoveryv1.EndpointSlice, g Group, meta Meta) {
	missing := make(map[identity]*discoveryv1.Endpoint, len(g.Endpoints))
	for i := range g.Endpoints {
		missing[identityOf(&g.Endpoints[i])] = &g.Endpoints[i]
	}
	next := make([]*discoveryv1.EndpointSlice, len(have))
	for i, s := range have {
		next[i] = keep(s, missing, meta)
	}
	order := slices.SortedFunc(maps.Keys(missing), identity.compare)
	fill := func(s *discoveryv1.EndpointSlice) {
		for len(s.Endpoints) < Max && len(order) > 0 {
			s.Endpoints = append(s.Endpoints, *missing[order[0]])
			order = order[1:]
		}
	}
	fullest := slices.SortedStableFunc(slices.Values(next), func(a, b *discoveryv1.EndpointSlice) int {
		return cmp.Compare(len(b.Endpoints), len(a.Endpoints))
	})
	for _, s := range fullest {
		fill(s)
	}
	created := 0
	for len(order) > 0 || len(next)+created == 0 { // a Service without endpoints has one empty slice
		s := meta.newSlice(g)
		fill(s)
		p.Create = append(p.Create, s)
		created++
	}
	p.changed(have, next, len(g.Endpoints) == 0)
}

// keep returns a copy of a slice with those of its endpoints that are still wanted,
// in their order and newest state, and takes these out of missing.
func keep(s *discoveryv1.EndpointSlice, missing map[identity]*discoveryv1.Endpoint, meta Meta) *discoveryv1.EndpointSlice {
	out := *s // its slices and maps are replaced, not changed
	out.Endpoints = make([]discoveryv1.Endpoint, 0, len(s.Endpoints))
	for i := range s.Endpoints {
		id := identityOf(&s.Endpoints[i])
		if e, ok := missing[id]; ok {
			out.Endpoints = append(out.Endpoints, *e)
			delete(missing, id)
		}
	}
	out.Labels = meta.Labels
	if meta.Owner != nil {
		out.OwnerReferences = []metav1.OwnerReference{*meta.Owner}
	}
	return &out
}

// changed lists slices to update and, beside the one that stands for "none", to delete.
func (p *Plan) changed(have, next []*discoveryv1.EndpointSlice, none bool) {
	for i, s := range next {
		if len(s.Endpoints) == 0 && !(none && i == 0) {
			p.Delete = append(p.Delete, pods.RefOf(s))
		} else if !same(s, have[i]) {
			p.Update = append(p.Update, s)
		}
	}
}

// same compares what keep may have changed. A Service of a thousand pods is compared
// at each pod's change, so this is not left to reflection.
func same(a, b *discoveryv1.EndpointSlice) bool {
	return maps.Equal(a.Labels, b.Labels) &&
		equality.Semantic.DeepEqual(a.OwnerReferences, b.OwnerReferences) &&
		slices.EqualFunc(a.Endpoints, b.Endpoints, sameEndpoint)
}

func sameEndpoint(a, b discoveryv1.Endpoint) bool {
	return slices.Equal(a.Addresses, b.Addresses) &&
		equal(a.Conditions.Ready, b.Conditions.Ready) &&
		equal(a.Conditions.Serving, b.Conditions.Serving) &&
		equal(a.Conditions.Terminating, b.Conditions.Terminating) &&
		equal(a.NodeName, b.NodeName) && equal(a.Zone, b.Zone) && equal(a.Hostname, b.Hostname) &&
		equal(a.TargetRef, b.TargetRef) &&
		len(a.DeprecatedTopology)+len(b.DeprecatedTopology) == 0 && a.Hints == nil && b.Hints == nil
}

func equal[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// identity tells endpoints apart: an address that goes to another pod is another
// endpoint.
type identity struct {
	address string
	target  types.UID
}

func (a identity) compare(b identity) int {
	return cmp.Or(cmp.Compare(a.address, b.address), cmp.Compare(a.target, b.target))
}

func identityOf(e *discoveryv1.Endpoint) identity {
	var id identity
	if len(e.Addresses) > 0 {
		id.address = e.Addresses[0]
	}
	if e.TargetRef != nil {
		id.target = e.TargetRef.UID
	}
	return id
}

func groupKey(t discoveryv1.AddressType, ports []discoveryv1.EndpointPort) string {
	all := make([]string, len(ports))
	for i, p := range ports {
		all[i] = portKey(p)
	}
	slices.Sort(all)
	return string(t) + " " + strings.Join(all, ",")
}

func portKey(p discoveryv1.EndpointPort) string {
	str := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	port, protocol := int32(0), corev1.Protocol("")
	if p.Port != nil {
		port = *p.Port
	}
	if p.Protocol != nil {
		protocol = *p.Protocol
	}
	return fmt.Sprintf("%s:%d/%s/%s", str(p.Name), port, protocol, str(p.AppProtocol))
}

// String prints one line an action.
func (p Plan) String() string {
	var b strings.Builder
	line := func(verb, name string, s *discoveryv1.EndpointSlice) {
		fmt.Fprintf(&b, "%s slice %s %s with %d endpoints\n", verb, name, groupKey(s.AddressType, s.Ports), len(s.Endpoints))
	}
	for _, s := range p.Create {
		line("create", s.GenerateName+"*", s)
	}
	for _, s := range p.Update {
		line("update", s.Name, s)
	}
	for _, ref := range p.Delete {
		fmt.Fprintf(&b, "delete slice %s\n", ref.Name)
	}
	return b.String()
}

// Meta is what all slices of one Service have in common.
type Meta struct {
	Namespace, Service string
	Labels             map[string]string
	Owner              *metav1.OwnerReference // nil: as it is
}

// newSlice returns a slice without endpoints. With none at all its ports are not
// known, and left out.
func (m Meta) newSlice(g Group) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: m.Namespace, GenerateName: m.Service + "-", Labels: m.Labels},
		AddressType: g.AddressType, Ports: g.Ports, Endpoints: []discoveryv1.Endpoint{},
	}
	if m.Owner != nil {
		s.OwnerReferences = []metav1.OwnerReference{*m.Owner}
	}
	return s
}
