package service

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/xebec-mesh/xebec/dataplane/bpf"
)

// frontend is what one vip should do. remember says that the kernel remembers
// backends of it (session affinity, UDP flows) and must be able to tell one that
// is gone.
type frontend struct {
	vip      vip
	affinity uint32 // seconds
	remember bool
	backends []backend // sorted, unique
}

// frontends returns what s asks for: every address with every port.
func frontends(s Service) []frontend {
	out := make([]frontend, 0, len(s.Addrs)*len(s.Ports))
	for _, a := range s.Addrs {
		for _, p := range s.Ports {
			if p.Protocol != TCP && p.Protocol != UDP {
				continue
			}
			out = append(out, frontend{
				vip:      vip{Addr: bpf.FromAddr(a), Port: bpf.FromPort(p.Port), Proto: p.Protocol},
				affinity: seconds(s.Affinity),
				remember: p.Protocol == UDP || s.Affinity > 0,
				backends: usable(p.Endpoints, a.Is4(), s.LocalOnly),
			})
		}
	}
	return out
}

func seconds(d time.Duration) uint32 {
	if d <= 0 {
		return 0
	}
	return uint32(max(1, d/time.Second))
}

// usable are the endpoints that get traffic: the ready ones; if there are none,
// those that still serve while they terminate, so that the last pod of a rollout
// is not cut off (KEP-1669).
func usable(endpoints []Endpoint, v4, localOnly bool) []backend {
	var ready, fallback []backend
	for _, e := range endpoints {
		switch {
		case e.Addr.Addr().Unmap().Is4() != v4, localOnly && !e.Local:
		case e.Ready:
			ready = append(ready, makeBackend(e.Addr))
		case e.Serving && e.Terminating:
			fallback = append(fallback, makeBackend(e.Addr))
		}
	}
	if len(ready) == 0 {
		ready = fallback
	}
	slices.SortFunc(ready, compareBackends)
	return slices.Compact(ready)
}

// entry is what the tables hold for one vip.
type entry struct {
	id       uint32
	affinity uint32
	remember bool
	slots    []backend
	dirty    bool // a write failed or an earlier process died amid writes: write all of it
}

// action is one write to one table.
type action uint8

const (
	putMember action = iota + 1
	putBackend
	putService
	deleteService
	deleteBackend
	deleteMember
)

// step is one write. Which fields mean something depends on the action.
type step struct {
	action  action
	vip     vip
	svc     svc
	index   uint32
	backend backend
}

// Plan is the writes that make the tables match, in an order in which no lookup
// of the programs fails between two of them. The zero Plan means converged.
type Plan struct{ steps []step }

// Len is the number of map entries that the plan writes.
func (p Plan) Len() int { return len(p.steps) }

// String prints one line a write.
func (p Plan) String() string {
	var b strings.Builder
	for _, s := range p.steps {
		b.WriteString(s.String())
		b.WriteByte('\n')
	}
	return b.String()
}

func (s step) String() string {
	switch s.action {
	case putMember:
		return fmt.Sprintf("put member %d %s", s.svc.ID, s.backend.addrPort())
	case putBackend:
		return fmt.Sprintf("put backend %d[%d] %s", s.svc.ID, s.index, s.backend.addrPort())
	case putService:
		line := fmt.Sprintf("put service %s/%s id=%d backends=%d", s.vip.addrPort(), s.vip.Proto, s.svc.ID, s.svc.Count)
		if s.svc.Affinity > 0 {
			line += fmt.Sprintf(" affinity=%ds", s.svc.Affinity)
		}
		return line
	case deleteService:
		return fmt.Sprintf("delete service %s/%s", s.vip.addrPort(), s.vip.Proto)
	case deleteBackend:
		return fmt.Sprintf("delete backend %d[%d]", s.svc.ID, s.index)
	case deleteMember:
		return fmt.Sprintf("delete member %d %s", s.svc.ID, s.backend.addrPort())
	}
	return "unknown"
}

// compute says what turns have into want, and what the tables hold then. have is
// nil for a new vip; id is its id then.
func compute(have *entry, want *frontend, id uint32) (Plan, *entry) {
	if have == nil {
		have = &entry{id: id, dirty: true}
	}
	d := newDiff(have, want)
	d.place()
	d.shrink()
	d.service()
	return Plan{append(append(d.before, d.swap...), d.after...)}, &entry{
		id: have.id, affinity: want.affinity, remember: want.remember, slots: d.slots,
	}
}

// remove takes a vip and all that belongs to it out of the tables.
func remove(v vip, have *entry) Plan {
	steps := []step{{action: deleteService, vip: v}}
	for i, b := range have.slots {
		steps = append(steps, step{action: deleteBackend, svc: svc{ID: have.id}, index: uint32(i)})
		if have.remember || have.dirty {
			steps = append(steps, step{action: deleteMember, svc: svc{ID: have.id}, backend: b})
		}
	}
	return Plan{steps}
}

// diff is the work of compute. Slots of removed backends are given to added ones
// or filled from the end, so that one changed endpoint costs a few writes
// whatever the size of the Service.
type diff struct {
	have  *entry
	want  *frontend
	slots []backend

	added   []backend
	removed []backend
	free    []int // slots of removed backends, ascending

	before, swap, after []step
}

func newDiff(have *entry, want *frontend) *diff {
	d := &diff{have: have, want: want, slots: slices.Clone(have.slots)}
	wanted := make(map[backend]bool, len(want.backends))
	for _, b := range want.backends {
		wanted[b] = true
	}
	for i, b := range have.slots {
		if wanted[b] {
			delete(wanted, b) // a second slot with the same backend is removed
			continue
		}
		d.removed = append(d.removed, b)
		d.free = append(d.free, i)
	}
	for _, b := range want.backends {
		if wanted[b] {
			d.added = append(d.added, b)
		}
	}
	return d
}

// place puts added backends into free slots, then at the end.
func (d *diff) place() {
	id := svc{ID: d.have.id}
	changed := map[int]bool{}
	for _, b := range d.added {
		i := len(d.slots)
		if len(d.free) > 0 {
			i, d.free = d.free[0], d.free[1:]
			d.slots[i] = b
		} else {
			d.slots = append(d.slots, b)
		}
		changed[i] = true
	}
	for len(d.free) > 0 { // fill holes from the end
		last := len(d.slots) - 1
		hole := d.free[0]
		if d.free[len(d.free)-1] == last { // the last one is itself a hole
			d.free = d.free[:len(d.free)-1]
		} else {
			d.slots[hole] = d.slots[last]
			changed[hole] = true
			d.free = d.free[1:]
		}
		delete(changed, last)
		d.slots = d.slots[:last]
	}
	for i, b := range d.slots {
		if d.want.remember && (d.have.dirty || !d.have.remember || changed[i] && slices.Contains(d.added, b)) {
			d.before = append(d.before, step{action: putMember, svc: id, backend: b})
		}
		if changed[i] || d.have.dirty {
			d.before = append(d.before, step{action: putBackend, svc: id, index: uint32(i), backend: b})
		}
	}
}

// shrink removes slots beyond the end and members that are none any more.
func (d *diff) shrink() {
	id := svc{ID: d.have.id}
	for i := len(d.slots); i < len(d.have.slots); i++ {
		d.after = append(d.after, step{action: deleteBackend, svc: id, index: uint32(i)})
	}
	if !d.have.remember && !d.have.dirty {
		return
	}
	gone := d.removed
	if !d.want.remember {
		gone = d.have.slots
	}
	for _, b := range gone {
		if d.want.remember && slices.Contains(d.slots, b) {
			continue // it was there twice
		}
		d.after = append(d.after, step{action: deleteMember, svc: id, backend: b})
	}
}

// service writes the entry that the programs find first, if it changes.
func (d *diff) service() {
	if !d.have.dirty && len(d.slots) == len(d.have.slots) && d.want.affinity == d.have.affinity {
		return
	}
	d.swap = append(d.swap, step{action: putService, vip: d.want.vip, svc: svc{
		ID: d.have.id, Count: uint32(len(d.slots)), Affinity: d.want.affinity,
	}})
}
