package service

import "fmt"

// apply writes a plan and stops at the first error.
func (t *tables) apply(p Plan) error {
	for _, s := range p.steps {
		if err := t.write(s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

func (t *tables) write(s step) error {
	switch s.action {
	case putMember:
		return t.members.Put(member{s.svc.ID, s.backend}, 1)
	case putBackend:
		return t.backends.Put(slot{s.svc.ID, s.index}, s.backend)
	case putService:
		return t.services.Put(s.vip, s.svc)
	case deleteService:
		return t.services.Delete(s.vip)
	case deleteBackend:
		return t.backends.Delete(slot{s.svc.ID, s.index})
	case deleteMember:
		return t.members.Delete(member{s.svc.ID, s.backend})
	}
	panic("unknown action")
}

// contents are what an earlier process left in the tables.
type contents struct {
	entries map[vip]*entry
	stray   Plan // removes what no entry needs
	lastID  uint32
}

// read adopts the tables. An entry whose slots are not exactly 0..count-1 was
// being written when its writer died: it is marked dirty.
func (t *tables) read() (*contents, error) {
	c := &contents{entries: map[vip]*entry{}}
	byID := map[uint32]*entry{}
	count := map[uint32]uint32{}
	err := t.services.Range(func(v vip, s svc) bool {
		e := &entry{id: s.ID, affinity: s.Affinity, slots: make([]backend, s.Count)}
		c.entries[v], byID[s.ID], count[s.ID] = e, e, s.Count
		c.lastID = max(c.lastID, s.ID)
		return true
	})
	if err != nil {
		return nil, err
	}
	if err := t.readBackends(c, byID, count); err != nil {
		return nil, err
	}
	return c, t.readMembers(c, byID)
}

func (t *tables) readBackends(c *contents, byID map[uint32]*entry, left map[uint32]uint32) error {
	err := t.backends.Range(func(s slot, b backend) bool {
		c.lastID = max(c.lastID, s.Svc)
		e := byID[s.Svc]
		if e == nil || s.Index >= uint32(len(e.slots)) {
			c.stray.steps = append(c.stray.steps, step{action: deleteBackend, svc: svc{ID: s.Svc}, index: s.Index})
			return true
		}
		e.slots[s.Index] = b
		left[s.Svc]--
		return true
	})
	for id, n := range left {
		if n != 0 {
			byID[id].dirty = true
		}
	}
	return err
}

func (t *tables) readMembers(c *contents, byID map[uint32]*entry) error {
	found := map[uint32]map[backend]bool{}
	err := t.members.Range(func(m member, _ uint32) bool {
		if byID[m.Svc] == nil {
			c.stray.steps = append(c.stray.steps, step{action: deleteMember, svc: svc{ID: m.Svc}, backend: m.Backend})
			return true
		}
		if found[m.Svc] == nil {
			found[m.Svc] = map[backend]bool{}
		}
		found[m.Svc][m.Backend] = true
		return true
	})
	for id, set := range found {
		e := byID[id]
		e.remember = true
		for _, b := range e.slots {
			if !set[b] {
				e.dirty = true
			}
			delete(set, b)
		}
		for b := range set {
			c.stray.steps = append(c.stray.steps, step{action: deleteMember, svc: svc{ID: id}, backend: b})
		}
	}
	return err
}
