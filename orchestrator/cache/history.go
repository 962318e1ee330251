package cache

import (
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/watch"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// entry is one event in a resource's history, a list that watchers walk at
// their own pace without a lock.
type entry struct {
	rv    uint64
	at    int64 // nanoseconds, when it was applied
	event *Event

	next atomic.Pointer[entry]
	cut  atomic.Bool // dropped from the history: who still stands here was too slow

	mu     sync.Mutex
	others []*Event // the same event for selectors and faces that see it differently
}

// history is a resource's recent entries.
type history struct {
	entries []*entry // oldest first
	tail    *entry   // the newest, or a stand-in for all that is forgotten
	oldest  uint64   // every event after this revision is known
	bytes   int
}

// init forgets everything up to rv.
func (h *history) init(rv uint64) {
	for _, e := range h.entries {
		e.cut.Store(true)
		e.next.Store(nil)
	}
	if h.tail != nil {
		h.tail.cut.Store(true)
	}
	h.entries, h.bytes, h.oldest = nil, 0, rv
	h.tail = &entry{rv: rv}
}

func (h *history) add(e *entry, now int64) {
	e.at = now
	h.tail.next.Store(e)
	h.tail = e
	h.entries = append(h.entries, e)
	h.bytes += e.size()
}

func (e *entry) size() int { return e.event.Object.size + 256 }

// trim keeps the history within its budgets. The newest entry stays.
func (h *history) trim(cfg *Config, now int64) {
	n := 0
	for n < len(h.entries)-1 {
		e := h.entries[n]
		if len(h.entries)-n <= cfg.HistoryEvents && h.bytes <= cfg.HistoryBytes && now-e.at <= int64(cfg.HistoryAge) {
			break
		}
		h.oldest = e.rv
		h.bytes -= e.size()
		e.cut.Store(true)
		e.next.Store(nil)
		h.entries[n] = nil
		n++
	}
	h.entries = h.entries[n:]
}

// after is the entry behind which a watch that has seen rv goes on; nil if that
// is too long ago.
func (h *history) after(rv uint64) *entry {
	if rv < h.oldest {
		return nil
	}
	lo, hi := 0, len(h.entries)
	for lo < hi {
		if m := (lo + hi) / 2; h.entries[m].rv <= rv {
			lo = m + 1
		} else {
			hi = m
		}
	}
	switch {
	case lo == len(h.entries):
		return h.tail
	case lo > 0:
		return h.entries[lo-1]
	}
	base := &entry{rv: h.oldest}
	base.next.Store(h.entries[0])
	return base
}

// rewind undoes every event after rv.
func (h *history) rewind(s *state, rv uint64) *state {
	old := &state{rv: rv, objects: s.objects}
	for i := len(h.entries) - 1; i >= 0 && h.entries[i].rv > rv; i-- {
		ev := h.entries[i].event
		if ev.Old == nil {
			old.objects, _ = old.objects.del(ev.Object.Key)
		} else {
			old.objects, _ = old.objects.set(ev.Old.Key, ev.Old)
		}
	}
	return old
}

// as is the event as a watcher sees it whose selector matched the old version,
// the new one, or both, in terms of kind; nil if it sees nothing.
func (e *entry) as(kind *resource.Kind, before, after bool) (*Event, error) {
	ev := e.event
	typ := ev.Type
	switch {
	case !before && !after:
		return nil, nil
	case before && !after:
		typ = watch.Deleted
	case !before && after && typ == watch.Modified:
		typ = watch.Added
	}
	if typ == ev.Type && sameKind(kind, ev.Object.Kind) {
		return ev, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, o := range e.others {
		if o.Type == typ && sameKind(kind, o.Object.Kind) {
			return o, nil
		}
	}
	o, err := e.derive(kind, typ)
	if err == nil {
		e.others = append(e.others, o)
	}
	return o, err
}

func (e *entry) derive(kind *resource.Kind, typ watch.EventType) (o *Event, err error) {
	o = &Event{Type: typ, Object: e.event.Object, Old: e.event.Old}
	if typ == watch.Deleted && e.event.Type != watch.Deleted {
		o.Object = o.Old.at(e.rv) // it left the selection: as it was while inside
	}
	if o.Object, err = o.Object.As(kind); err != nil {
		return nil, err
	}
	if o.Old != nil {
		o.Old, err = o.Old.As(kind)
	}
	return o, err
}
