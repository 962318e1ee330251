package cache

import (
	"context"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/watch"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
	"github.com/xebec-mesh/xebec/orchestrator/store"
)

// Resource is the cache of one stored kind. Reading takes the state by one
// atomic load; writing is the Hub's work.
type Resource struct {
	hub    *Hub
	kind   atomic.Pointer[resource.Kind]
	prefix string // of its keys in the store
	state  atomic.Pointer[state]

	mu       sync.Mutex // everything below, and storing state
	filled   bool
	backlog  []store.Event // what came while it was being filled
	history  history
	watchers watchers
	stopped  bool

	pendMu  sync.Mutex
	pending map[string][]*Pending // by key, oldest first: written, and not yet seen as events

	pageMu sync.Mutex
	pages  []page // states that a continue token names, oldest first

	wanted sync.Map // label key → *int32: how often a selector could have used an index
}

// state is all objects at one moment. It is immutable.
type state struct {
	rv      uint64 // revision of the last event that was applied
	objects tree
	indexes map[string]tree // by index name; keys are value + "\x00" + key
}

func newResource(h *Hub, kind *resource.Kind) *Resource {
	r := &Resource{
		hub:     h,
		prefix:  h.cfg.Prefix + idOf(kind.GroupResource()) + "/",
		pending: map[string][]*Pending{},
	}
	r.kind.Store(kind)
	r.state.Store(&state{indexes: firstIndexes(kind)})
	r.history.init(0)
	r.watchers.init()
	return r
}

// Kind is the stored kind.
func (r *Resource) Kind() *resource.Kind { return r.kind.Load() }

// StoreKey is an object's key in the store.
func (r *Resource) StoreKey(key string) string { return r.prefix + key }

// Len is the number of objects.
func (r *Resource) Len() int { return r.state.Load().objects.len() }

// Get returns an object as the cache has it now, or nil.
func (r *Resource) Get(key string) *Object { return r.state.Load().objects.get(key) }

// Latest is Get, except that it never misses what a Pending of this process has
// stored already.
func (r *Resource) Latest(key string) *Object {
	r.pendMu.Lock()
	defer r.pendMu.Unlock()
	// A Pending leaves the list after the state shows it, so looking at both under
	// the lock misses nothing.
	o := r.Get(key)
	for _, p := range r.pending[key] {
		if n := p.result.Load(); n != nil && (o == nil || n.RV > o.RV) {
			o = n
		}
	}
	return o
}

// decode makes an Object of stored bytes. What cannot be decoded is reported and
// left out: one bad object must not hide the others.
func (r *Resource) decode(e store.Entry) *Object {
	kind := r.Kind()
	obj, err := Decode(kind, e.Value)
	if err != nil {
		r.hub.cfg.Log.Error("stored object cannot be decoded and is not served", "key", e.Key, "err", err)
		return nil
	}
	obj.SetResourceVersion(strconv.FormatInt(e.Revision, 10))
	return &Object{Kind: kind, Key: e.Key[len(r.prefix):], RV: uint64(e.Revision), Obj: obj, size: len(e.Value)}
}

// fillAlone fills a resource that was added while the Hub runs.
func (r *Resource) fillAlone(ctx context.Context) error {
	var items []item
	rev, err := r.hub.cfg.Store.List(ctx, r.prefix, func(e store.Entry) error {
		if o := r.decode(e); o != nil {
			items = append(items, item{o.Key, o})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("fill watch cache of %s: %w", r.prefix, err)
	}
	r.fill(items, uint64(rev))
	return r.hub.Wait(ctx, uint64(rev))
}

// refill reads a resource anew whose kind has changed. Until that is done readers
// have the old state, and what happens meanwhile waits.
func (r *Resource) refill(ctx context.Context) error {
	r.mu.Lock()
	r.filled = false
	r.mu.Unlock()
	err := r.fillAlone(ctx)
	if err == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.filled {
		r.filled = true
		r.applyLocked(r.backlog)
		r.backlog = nil
	}
	return err
}

// fill makes the state exactly items as of rev. Watches that there are end with
// 410 Gone.
func (r *Resource) fill(items []item, rev uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sort.Slice(items, func(i, j int) bool { return items[i].key < items[j].key })
	old := r.state.Load()
	next := &state{rv: rev, objects: buildTree(items), indexes: map[string]tree{}}
	for name := range old.indexes {
		next.indexes[name] = buildIndex(r.Kind(), name, items)
	}
	r.state.Store(next)
	r.filled = true
	// What happened between the two states is unknown: nobody may go on from there.
	for w := range r.watchers.all {
		w.expire()
	}
	r.history.init(rev)
	backlog := r.backlog
	r.backlog = nil
	r.applyLocked(backlog)
}

// apply takes over events of this resource, in order.
func (r *Resource) apply(events []store.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.filled {
		r.backlog = append(r.backlog, events...)
		return
	}
	r.applyLocked(events)
}

func (r *Resource) applyLocked(events []store.Event) {
	s := r.state.Load()
	var added []*entry
	for _, ev := range events {
		if uint64(ev.Revision) <= s.rv {
			continue // filled with it already
		}
		next, en := r.step(s, ev)
		s = next
		if en != nil {
			added = append(added, en)
		}
	}
	r.state.Store(s) // before anybody is told: a handler must find what it hears of
	for _, ev := range events {
		r.seen(ev)
	}
	now := time.Now().UnixNano()
	for _, en := range added {
		prev := r.history.tail
		r.history.add(en, now)
		r.watchers.wake(r.Kind(), en, prev)
	}
	r.history.trim(&r.hub.cfg, now)
}

// step is the state after one event, and what to tell watchers.
func (r *Resource) step(s *state, ev store.Event) (*state, *entry) {
	key := ev.Key[len(r.prefix):]
	next := &state{rv: uint64(ev.Revision), indexes: s.indexes}
	if ev.Deleted {
		var old *Object
		next.objects, old = s.objects.del(key)
		if old == nil {
			return next, nil
		}
		next.indexes = reindex(s.indexes, r.Kind(), old, nil)
		gone := old.at(uint64(ev.Revision))
		return next, &entry{rv: gone.RV, event: &Event{Type: watch.Deleted, Object: gone, Old: old}}
	}
	obj := r.settle(key, ev)
	if obj == nil {
		obj = r.decode(ev.Entry)
	}
	if obj == nil {
		next.objects = s.objects
		return next, nil
	}
	var old *Object
	next.objects, old = s.objects.set(key, obj)
	next.indexes = reindex(s.indexes, r.Kind(), old, obj)
	e := &Event{Type: watch.Added, Object: obj}
	if old != nil {
		e.Type, e.Old = watch.Modified, old
	}
	return next, &entry{rv: obj.RV, event: e}
}

// stop ends all watches.
func (r *Resource) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	for w := range r.watchers.all {
		w.end(ErrStopped)
	}
}

// tidy drops old history, old pages, unused indexes and, with sweep, encodings
// that nobody reads.
func (r *Resource) tidy(now time.Time, sweep bool) {
	r.mu.Lock()
	r.history.trim(&r.hub.cfg, now.UnixNano())
	r.mu.Unlock()
	r.dropPages(now)
	if sweep {
		r.state.Load().objects.ascend("", func(it item) bool {
			if !it.obj.dropEncodings(r.hub.cfg.Verify) {
				r.hub.cfg.Log.Error("a shared object has been changed in place: this is a bug", "resource", r.prefix, "key", it.key)
			}
			return true
		})
	}
}

// at is the object with another resource version, as a deletion shows it.
func (o *Object) at(rv uint64) *Object {
	obj := Shallow(o.Obj)
	obj.SetResourceVersion(strconv.FormatUint(rv, 10))
	return &Object{Kind: o.Kind, Key: o.Key, RV: rv, Obj: obj, size: o.size}
}

// Namespace is the object's namespace.
func (o *Object) Namespace() string {
	if i := strings.IndexByte(o.Key, '/'); i >= 0 {
		return o.Key[:i]
	}
	return ""
}
