// Package view says which resources one proxy sees.
//
//	in:   a model.Mesh, and who the proxy is
//	out:  Snapshot: for each type, the resources by name; immutable
//
// A View is made of units, each the resources of one host, one host's endpoints or
// one workload. A unit is computed through a model.Reader, which remembers what it
// read; when some of that changes the unit is computed again, and nothing else is.
// Proxies for which the same holds share a View, and Views share resources.
//
// A resource that a proxy refused is replaced by the last one that was accepted
// under its name; if there was none, it stays in the Snapshot as refused, so that it is
// neither sent to anybody nor taken from those who have an older one.
package view

import (
	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/model"
)

// Set is the resources of one type by name.
type Set = model.Map[*envoy.Resource]

// Snapshot is what a view showed at one time.
type Snapshot struct {
	Revision uint64 // of the mesh
	Sets     [len(envoy.Types)]Set
}

// scope computes the units of a view.
type scope interface {
	// compute returns the resources of a unit as the reader's mesh has them.
	compute(r *model.Reader, c *envoy.Cache, unit string) []*envoy.Resource
	// initial lists all units of a mesh.
	initial(m *model.Mesh) []string
	// concerned lists the units that a change may have brought into being.
	concerned(k model.Key) []string
	// gone says whether a unit that computes to nothing can be forgotten.
	gone(m *model.Mesh, unit string) bool
}

// View follows a mesh. It belongs to one goroutine; its Snapshots are for all.
type View struct {
	scope  scope
	units  map[string]*unit
	watch  map[model.Key]map[string]struct{} // which units read a fact
	claims map[id]*claim
	good   map[id]*envoy.Resource // accepted before the present one
	now    Snapshot
	last   *Snapshot
}

type unit struct {
	deps map[model.Key]struct{}
	made []*envoy.Resource
}

type id struct {
	kind int // index in envoy.Types
	name string
}

// claim is who wants a resource under one name. Usually one unit; a port's listener
// is wanted by all hosts that have the port. If units differ, the first by name wins.
type claim struct {
	by map[string]*envoy.Resource
}

func newView(s scope) *View {
	return &View{
		scope:  s,
		units:  map[string]*unit{},
		watch:  map[model.Key]map[string]struct{}{},
		claims: map[id]*claim{},
		good:   map[id]*envoy.Resource{},
	}
}

// Snapshot returns the present state.
func (v *View) Snapshot() *Snapshot { return v.last }

// Update follows the mesh, of which touched has changed, and says whether anything
// in the view did. The first call computes everything.
func (v *View) Update(m *model.Mesh, touched []model.Key, c *envoy.Cache) bool {
	stale := map[string]struct{}{}
	if v.last == nil {
		for _, u := range v.scope.initial(m) {
			stale[u] = struct{}{}
		}
	}
	for _, k := range touched {
		for u := range v.watch[k] {
			stale[u] = struct{}{}
		}
		if v.last != nil {
			for _, u := range v.scope.concerned(k) {
				if _, known := v.units[u]; !known {
					stale[u] = struct{}{}
				}
			}
		}
	}
	dirty := map[id]struct{}{}
	for name := range stale {
		v.recompute(m, c, name, dirty)
	}
	return v.settle(m.Revision, dirty)
}

// recompute replaces what a unit claims and notes which names that concerns.
func (v *View) recompute(m *model.Mesh, c *envoy.Cache, name string, dirty map[id]struct{}) {
	r := m.Read()
	made := v.scope.compute(r, c, name)
	old := v.units[name]
	if old == nil {
		old = &unit{}
	}
	for k := range old.deps {
		if _, still := r.Deps[k]; !still {
			v.unwatch(k, name)
		}
	}
	fresh := map[id]bool{}
	for _, res := range made {
		i := id{envoy.TypeIndex(res.Type), res.Name}
		fresh[i] = true
		if v.claim(i, name, res) {
			dirty[i] = struct{}{}
		}
	}
	for _, res := range old.made {
		if i := (id{envoy.TypeIndex(res.Type), res.Name}); !fresh[i] {
			v.disclaim(i, name)
			dirty[i] = struct{}{}
		}
	}
	if len(made) == 0 && v.scope.gone(m, name) {
		for k := range r.Deps {
			v.unwatch(k, name)
		}
		delete(v.units, name)
		return
	}
	for k := range r.Deps {
		if v.watch[k] == nil {
			v.watch[k] = map[string]struct{}{}
		}
		v.watch[k][name] = struct{}{}
	}
	v.units[name] = &unit{deps: r.Deps, made: made}
}

func (v *View) unwatch(k model.Key, unit string) {
	delete(v.watch[k], unit)
	if len(v.watch[k]) == 0 {
		delete(v.watch, k)
	}
}

func (v *View) claim(i id, unit string, r *envoy.Resource) bool {
	c := v.claims[i]
	if c == nil {
		c = &claim{by: make(map[string]*envoy.Resource, 1)}
		v.claims[i] = c
	}
	if c.by[unit] == r {
		return false
	}
	c.by[unit] = r
	return true
}

func (v *View) disclaim(i id, unit string) {
	if c := v.claims[i]; c != nil {
		if delete(c.by, unit); len(c.by) == 0 {
			delete(v.claims, i)
		}
	}
}

// winner is the resource of the first unit by name.
func (c *claim) winner() *envoy.Resource {
	first := ""
	var r *envoy.Resource
	for u, res := range c.by {
		if r == nil || u < first {
			first, r = u, res
		}
	}
	return r
}

// settle brings the sets in line with the claims for the names given.
func (v *View) settle(rev uint64, dirty map[id]struct{}) bool {
	edits := [len(envoy.Types)]*model.Builder[*envoy.Resource]{}
	changed := v.last == nil
	for i := range dirty {
		set := &v.now.Sets[i.kind]
		old, had := set.Get(i.name)
		next := v.effective(i, old)
		if next == old && had == (next != nil) {
			continue
		}
		if edits[i.kind] == nil {
			edits[i.kind] = set.Edit()
		}
		changed = true
		if next == nil {
			edits[i.kind].Delete(i.name)
			delete(v.good, i)
		} else {
			edits[i.kind].Set(i.name, next)
		}
	}
	for k, e := range edits {
		if e != nil {
			v.now.Sets[k] = e.Map()
		}
	}
	v.now.Revision = rev
	if changed {
		s := v.now
		v.last = &s
	}
	return changed
}

// effective is the resource to show under a name: the wanted one or, if that was
// refused, the last that was accepted.
func (v *View) effective(i id, old *envoy.Resource) *envoy.Resource {
	c := v.claims[i]
	if c == nil {
		return nil
	}
	want := c.winner()
	if old != nil && old != want && old.Accepted() && old.Rejected() == "" {
		v.good[i] = old
	}
	if want.Rejected() != "" {
		if g := v.good[i]; g != nil {
			return g
		}
	}
	return want
}

// Refused must be called when a resource that the view may show was refused.
func (v *View) Refused(r *envoy.Resource) bool {
	i := id{envoy.TypeIndex(r.Type), r.Name}
	if shown, _ := v.now.Sets[i.kind].Get(i.name); shown != r {
		return false
	}
	return v.settle(v.now.Revision, map[id]struct{}{i: {}})
}

// Holds calls keep for every resource that the view shows or may go back to.
func (v *View) Holds(keep func(*envoy.Resource)) {
	for _, u := range v.units {
		for _, r := range u.made {
			keep(r)
		}
	}
	for _, r := range v.good {
		keep(r)
	}
}

// Wants says whether the view would show a resource if it were not refused.
func (v *View) Wants(r *envoy.Resource) bool {
	c := v.claims[id{envoy.TypeIndex(r.Type), r.Name}]
	return c != nil && c.winner() == r
}
