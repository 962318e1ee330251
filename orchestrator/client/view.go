package client

import (
	"context"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// MemoryView is an Informer that somebody else feeds: Replace with a complete
// list, then Apply with each change. It is safe for concurrent use, but the
// feeding is one goroutine's work.
type MemoryView struct {
	mu      sync.RWMutex
	objects map[types.NamespacedName]Object
	indexes map[string]*index
	subs    map[*subscription]struct{}
	synced  chan struct{}
}

type index struct {
	values  func(Object) []string
	objects map[string]map[types.NamespacedName]Object
}

// namespaceIndex serves List of one namespace.
const namespaceIndex = "\x00namespace"

// NewMemoryView returns an empty view that is not synced.
func NewMemoryView() *MemoryView {
	v := &MemoryView{
		objects: map[types.NamespacedName]Object{},
		indexes: map[string]*index{},
		subs:    map[*subscription]struct{}{},
		synced:  make(chan struct{}),
	}
	v.AddIndex(namespaceIndex, func(o Object) []string { return []string{o.GetNamespace()} })
	return v
}

// Replace makes the view hold exactly objects; subscribers see the difference.
func (v *MemoryView) Replace(objects []Object) {
	v.mu.Lock()
	defer v.mu.Unlock()
	next := make(map[types.NamespacedName]struct{}, len(objects))
	for _, o := range objects {
		next[Key(o)] = struct{}{}
		v.set(o)
	}
	for key := range v.objects {
		if _, ok := next[key]; !ok {
			v.remove(key, nil)
		}
	}
	select {
	case <-v.synced:
	default:
		close(v.synced)
		v.send(Event{Type: Synced})
	}
}

// Apply adds, replaces or removes one object.
func (v *MemoryView) Apply(t watch.EventType, o Object) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if t == watch.Deleted {
		v.remove(Key(o), o)
		return
	}
	v.set(o)
}

func (v *MemoryView) set(o Object) {
	key := Key(o)
	old, exists := v.objects[key]
	if exists && old.GetResourceVersion() == o.GetResourceVersion() && old.GetUID() == o.GetUID() {
		return
	}
	if exists && old.GetUID() != o.GetUID() {
		v.remove(key, nil)
		exists = false
	}
	v.objects[key] = o
	for _, ix := range v.indexes {
		if exists {
			ix.drop(key, old)
		}
		ix.put(key, o)
	}
	if exists {
		v.send(Event{Type: Modified, Old: old, Object: o})
	} else {
		v.send(Event{Type: Added, Object: o})
	}
}

func (v *MemoryView) remove(key types.NamespacedName, last Object) {
	old, exists := v.objects[key]
	if !exists {
		return
	}
	delete(v.objects, key)
	for _, ix := range v.indexes {
		ix.drop(key, old)
	}
	if last == nil {
		last = old
	}
	v.send(Event{Type: Deleted, Object: last})
}

func (v *MemoryView) send(e Event) {
	for s := range v.subs {
		s.put(e)
	}
}

// Synced is closed when the first list is complete.
func (v *MemoryView) Synced() <-chan struct{} { return v.synced }

// Get returns an object, or nil.
func (v *MemoryView) Get(key types.NamespacedName) Object {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.objects[key]
}

// List returns the objects of a namespace, of all with "".
func (v *MemoryView) List(namespace string) []Object {
	if namespace != "" {
		return v.ByIndex(namespaceIndex, namespace)
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	return values(v.objects)
}

// AddIndex makes objects findable by computed values.
func (v *MemoryView) AddIndex(name string, compute func(Object) []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.indexes[name]; ok {
		return
	}
	ix := &index{values: compute, objects: map[string]map[types.NamespacedName]Object{}}
	for key, o := range v.objects {
		ix.put(key, o)
	}
	v.indexes[name] = ix
}

// ByIndex returns the objects for which the index gives value.
func (v *MemoryView) ByIndex(name, value string) []Object {
	v.mu.RLock()
	defer v.mu.RUnlock()
	ix := v.indexes[name]
	if ix == nil {
		return nil
	}
	return values(ix.objects[value])
}

// Subscribe delivers what is there, Synced, and then every change.
func (v *MemoryView) Subscribe(handle func(Event)) (cancel func()) {
	s := &subscription{wake: make(chan struct{}, 1), done: make(chan struct{})}
	v.mu.Lock()
	for _, o := range v.objects {
		s.put(Event{Type: Added, Object: o})
	}
	select {
	case <-v.synced:
		s.put(Event{Type: Synced})
	default:
	}
	v.subs[s] = struct{}{}
	v.mu.Unlock()
	go s.run(handle)
	return sync.OnceFunc(func() {
		v.mu.Lock()
		delete(v.subs, s)
		v.mu.Unlock()
		close(s.done)
	})
}

func (ix *index) put(key types.NamespacedName, o Object) {
	for _, value := range ix.values(o) {
		m := ix.objects[value]
		if m == nil {
			m = map[types.NamespacedName]Object{}
			ix.objects[value] = m
		}
		m[key] = o
	}
}

func (ix *index) drop(key types.NamespacedName, o Object) {
	for _, value := range ix.values(o) {
		m := ix.objects[value]
		delete(m, key)
		if len(m) == 0 {
			delete(ix.objects, value)
		}
	}
}

func values(m map[types.NamespacedName]Object) []Object {
	out := make([]Object, 0, len(m))
	for _, o := range m {
		out = append(out, o)
	}
	return out
}

// subscription is an unbounded queue between the feeder and one handler.
type subscription struct {
	mu    sync.Mutex
	queue []Event
	wake  chan struct{}
	done  chan struct{}
}

func (s *subscription) put(e Event) {
	s.mu.Lock()
	s.queue = append(s.queue, e)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *subscription) run(handle func(Event)) {
	for {
		select {
		case <-s.done:
			return
		case <-s.wake:
		}
		s.mu.Lock()
		batch := s.queue
		s.queue = nil
		s.mu.Unlock()
		for _, e := range batch {
			select {
			case <-s.done:
				return
			default:
				handle(e)
			}
		}
	}
}

// Follow feeds v from c by list and watch until ctx ends, and starts over with a
// growing pause, at most 5 s, when the server goes away or forgets the version.
func Follow(ctx context.Context, c Interface, r Resource, opts ListOptions, v *MemoryView, log *slog.Logger) {
	const first, most = 50 * time.Millisecond, 5 * time.Second
	pause := first
	for ctx.Err() == nil {
		started := time.Now()
		if err := follow(ctx, c, r, opts, v); err != nil && ctx.Err() == nil {
			log.Debug("follow", "resource", r.Resource, "err", err)
		}
		if time.Since(started) > most {
			pause = first
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
			pause = min(2*pause, most)
		}
	}
}

func follow(ctx context.Context, c Interface, r Resource, opts ListOptions, v *MemoryView) error {
	items, rv, err := c.List(ctx, r, opts)
	if err != nil {
		return err
	}
	v.Replace(items)
	for ctx.Err() == nil {
		w, err := c.Watch(ctx, r, opts, rv)
		if err != nil {
			return err
		}
		if rv, err = drain(w, v, rv); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// drain applies a watch until it closes and returns the last version seen.
func drain(w watch.Interface, v *MemoryView, rv string) (string, error) {
	defer w.Stop()
	for e := range w.ResultChan() {
		if e.Type == watch.Error {
			return rv, apierrors.FromObject(e.Object)
		}
		o, ok := e.Object.(Object)
		if !ok {
			continue
		}
		rv = o.GetResourceVersion()
		if e.Type != watch.Bookmark {
			v.Apply(e.Type, o)
		}
	}
	return rv, nil
}
