package xds

import (
	"slices"
	"strings"
	"sync"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/view"
)

// delta is the way from one set to another.
type delta struct {
	changed []*envoy.Resource // in order of their names
	removed []string

	once sync.Once
	wire []byte
}

// encoded returns the delta as the fields of a DeltaDiscoveryResponse. It is encoded
// once and shared by all streams that make the same step.
func (d *delta) encoded() []byte {
	d.once.Do(func() { d.wire = encode(d.changed, nil) })
	return d.wire
}

func encode(resources []*envoy.Resource, removed []string) []byte {
	m := &discovery.DeltaDiscoveryResponse{RemovedResources: removed}
	for _, r := range resources {
		m.Resources = append(m.Resources, r.Wire())
	}
	b, err := proto.Marshal(m)
	if err != nil {
		panic("encode resources that were encoded before: " + err.Error())
	}
	return b
}

// memo remembers the last steps between sets of one view. Its proxies are mostly in
// the same state, so one computes and encodes a step and the others take it.
type memo struct {
	mu    sync.Mutex
	steps []step // newest last
}

type step struct {
	from, to view.Set
	d        *delta
}

const remembered = 12 // a few steps for each type

// between returns the step from one set to another.
func (m *memo) between(from, to view.Set) *delta {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.steps {
		if s.from.Same(from) && s.to.Same(to) {
			return s.d
		}
	}
	d := diff(from, to)
	if len(m.steps) == remembered {
		m.steps = append(m.steps[:0], m.steps[1:]...)
	}
	m.steps = append(m.steps, step{from, to, d})
	return d
}

// diff leaves out what was refused, and what only came about in another way.
func diff(from, to view.Set) *delta {
	d := &delta{}
	from.Diff(to, func(name string, r *envoy.Resource) {
		if r.Rejected() != "" {
			return
		}
		if old, ok := from.Get(name); ok && old.Version == r.Version && old.Rejected() == "" {
			return
		}
		d.changed = append(d.changed, r)
	}, func(name string, _ *envoy.Resource) {
		d.removed = append(d.removed, name)
	})
	slices.SortFunc(d.changed, func(a, b *envoy.Resource) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(d.removed)
	return d
}
