package xds

import (
	"maps"
	"slices"
	"strings"

	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/view"
)

// watch is what one stream knows about one type.
type watch struct {
	kind     int // index in envoy.Types
	open     bool
	wildcard bool
	names    map[string]struct{} // asked for one by one
	sent     [2]view.Set         // what has been sent, from each source
	known    map[string]string   // name → version that the client had when it came; nil once compared
	force    map[string]struct{} // to be sent whether it changed or not
	tables   *watch              // for virtual hosts: they belong to the tables that the client asked for
	linger   map[string]struct{} // clusters that nobody refers to any more, but not yet removed
	flight   *flight             // sent and not yet answered
	again    [][]*envoy.Resource // parts of a refused response, to find out which is to blame
}

type flight struct {
	nonce     string
	resources []*envoy.Resource
}

// wants says whether the client asked for a resource.
func (w *watch) wants(name string) bool {
	if w.wildcard {
		return true
	}
	if w.tables != nil {
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			if _, ok := w.tables.names[name[:i]]; ok {
				return true
			}
		}
	}
	_, ok := w.names[name]
	return ok
}

// subscribe takes a request's names and reports those that are to be sent in any case.
func (w *watch) subscribe(names, dropped []string, first bool) {
	if w.names == nil {
		w.names, w.force = map[string]struct{}{}, map[string]struct{}{}
	}
	if first && len(names) == 0 && w.tables == nil {
		w.wildcard = true
	}
	for _, n := range names {
		if n == "*" {
			w.wildcard = true
			continue
		}
		w.names[n] = struct{}{}
		w.force[n] = struct{}{}
	}
	for _, n := range dropped {
		if n == "*" {
			w.wildcard = false
			continue
		}
		delete(w.names, n)
		delete(w.force, n)
	}
}

// batch is one response in the making.
type batch struct {
	resources []*envoy.Resource
	shared    [][]byte // encoded parts that hold a share of resources
	own       []*envoy.Resource
	removed   []string
}

func (b *batch) empty() bool { return len(b.resources) == 0 && len(b.removed) == 0 }

func (b *batch) wire() []byte {
	var out []byte
	if len(b.own) > 0 || len(b.removed) > 0 {
		out = encode(b.own, b.removed)
	}
	if len(b.shared) == 1 && out == nil {
		return b.shared[0]
	}
	size := len(out)
	for _, s := range b.shared {
		size += len(s)
	}
	out = slices.Grow(out, size-len(out))
	for _, s := range b.shared { // fields of a message may be given in parts
		out = append(out, s...)
	}
	return out
}

// next gathers what brings the client from what it was sent to the target.
func (w *watch) next(t *target) *batch {
	b := &batch{}
	done := map[string]bool{}
	for i := range w.sent {
		w.step(b, t, i, done)
	}
	for _, name := range slices.Sorted(maps.Keys(w.force)) { // the same change, the same response
		w.forced(b, t, name, done)
	}
	if len(w.force) > 0 {
		w.force = map[string]struct{}{}
	}
	if w.known != nil {
		for name := range w.known {
			if w.kind != endpoints && !in(t, w.kind, name) {
				b.removed = append(b.removed, name)
			}
		}
		w.known = nil
	}
	return b
}

func (w *watch) step(b *batch, t *target, i int, done map[string]bool) {
	to := t.sources[i].Sets[w.kind]
	if w.sent[i].Same(to) {
		return
	}
	d := t.memos[i].between(w.sent[i], to)
	w.sent[i] = to
	whole := true
	var some []*envoy.Resource
	for _, r := range d.changed {
		if v, had := w.known[r.Name]; !w.wants(r.Name) || had && v == r.Version {
			whole = false
			continue
		}
		some = append(some, r)
		if len(w.force) > 0 {
			done[r.Name] = true
		}
	}
	b.resources = append(b.resources, some...)
	if whole && len(some) > 0 {
		b.shared = append(b.shared, d.encoded())
	} else {
		b.own = append(b.own, some...)
	}
	if w.kind == endpoints {
		return // they end with their cluster, which goes when nothing refers to it
	}
	for _, name := range d.removed {
		if w.wants(name) && !in(t, w.kind, name) {
			b.removed = append(b.removed, name)
		}
	}
}

// forced adds what was asked for now, even if it was sent before.
func (w *watch) forced(b *batch, t *target, name string, done map[string]bool) {
	put := func(r *envoy.Resource) {
		if v, had := w.known[r.Name]; r.Rejected() != "" || done[r.Name] || had && v == r.Version {
			return
		}
		b.resources, b.own = append(b.resources, r), append(b.own, r)
	}
	found := false
	for _, s := range t.sources {
		if r, ok := s.Sets[w.kind].Get(name); ok {
			found = true
			put(r)
		}
		if w.kind == hosts {
			for host, r := range s.Sets[w.kind].All() {
				if len(host) > len(name) && host[len(name)] == '/' && strings.HasPrefix(host, name) && strings.LastIndexByte(host, '/') == len(name) {
					found = true
					put(r)
				}
			}
		}
	}
	if !found && w.kind != endpoints && w.kind != hosts {
		b.removed = append(b.removed, name)
	}
}

func in(t *target, kind int, name string) bool {
	for _, s := range t.sources {
		if _, ok := s.Sets[kind].Get(name); ok {
			return true
		}
	}
	return false
}

// settled says whether the client has what the target says.
func (w *watch) settled(t *target) bool {
	if !w.open {
		return true
	}
	if w.flight != nil || len(w.again) > 0 || len(w.force) > 0 || w.known != nil {
		return false
	}
	for i, s := range t.sources {
		if !w.sent[i].Same(s.Sets[w.kind]) {
			return false
		}
	}
	return true
}
