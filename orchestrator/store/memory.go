package store

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
)

// Memory is a Store in this process, for tests and simulations. It forgets
// everything with the process and keeps all history until Compact.
type Memory struct {
	mu        sync.RWMutex
	rev       int64
	compacted int64
	keys      map[string]Entry
	history   []Event
	changed   chan struct{} // closed and replaced with every change
}

// NewMemory makes an empty Store. Its first change has revision 2, as in etcd.
func NewMemory() *Memory {
	return &Memory{rev: 1, keys: map[string]Entry{}, changed: make(chan struct{})}
}

// Get reads the newest version of a key.
func (m *Memory) Get(ctx context.Context, key string) (Entry, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	e, ok := m.keys[key]
	if !ok {
		return Entry{}, fmt.Errorf("get %s: %w", key, ErrNotFound)
	}
	return e, nil
}

// List reads every key under prefix as of one revision.
func (m *Memory) List(ctx context.Context, prefix string, each func(Entry) error) (int64, error) {
	m.mu.RLock()
	var found []Entry
	for k, e := range m.keys {
		if strings.HasPrefix(k, prefix) {
			found = append(found, e)
		}
	}
	rev := m.rev
	m.mu.RUnlock()
	sort.Slice(found, func(i, j int) bool { return found[i].Key < found[j].Key })
	for _, e := range found {
		if err := each(e); err != nil {
			return 0, err
		}
	}
	return rev, nil
}

// Create stores a key that does not exist.
func (m *Memory) Create(ctx context.Context, key string, value []byte) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.keys[key]; ok {
		return 0, fmt.Errorf("create %s: %w", key, ErrExists)
	}
	return m.put(key, value, true)
}

// Update replaces the version expect.
func (m *Memory) Update(ctx context.Context, key string, value []byte, expect int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(key, expect); err != nil {
		return 0, err
	}
	return m.put(key, value, false)
}

// Delete removes the version expect.
func (m *Memory) Delete(ctx context.Context, key string, expect int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(key, expect); err != nil {
		return 0, err
	}
	delete(m.keys, key)
	return m.record(Event{Entry: Entry{Key: key, Revision: m.rev + 1}, Deleted: true}), nil
}

func (m *Memory) check(key string, expect int64) error {
	e, ok := m.keys[key]
	switch {
	case !ok:
		return &ConflictError{Key: key, Expect: expect}
	case e.Revision != expect:
		return &ConflictError{Key: key, Expect: expect, Current: &e}
	}
	return nil
}

func (m *Memory) put(key string, value []byte, created bool) (int64, error) {
	if len(value) > maxRequest-1024 {
		return 0, fmt.Errorf("write %s: %w", key, ErrTooLarge)
	}
	e := Entry{Key: key, Value: value, Revision: m.rev + 1}
	m.keys[key] = e
	return m.record(Event{Entry: e, Created: created}), nil
}

func (m *Memory) record(ev Event) int64 {
	m.rev = ev.Revision
	m.history = append(m.history, ev)
	close(m.changed)
	m.changed = make(chan struct{})
	return m.rev
}

// Current is the newest revision.
func (m *Memory) Current(ctx context.Context) (int64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.rev, nil
}

// Compact drops all history before rev.
func (m *Memory) Compact(ctx context.Context, rev int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if rev <= m.compacted {
		return fmt.Errorf("compact: %w", ErrCompacted)
	}
	i := sort.Search(len(m.history), func(i int) bool { return m.history[i].Revision > rev })
	m.history, m.compacted = append([]Event(nil), m.history[i:]...), rev
	return nil
}

// Watch sends all changes under prefix after revision.
func (m *Memory) Watch(ctx context.Context, prefix string, revision int64) *Stream {
	out := make(chan Batch, 64)
	s := &Stream{C: out}
	go func() {
		defer close(out)
		s.err = m.follow(ctx, prefix, revision, out)
	}()
	return s
}

func (m *Memory) follow(ctx context.Context, prefix string, after int64, out chan<- Batch) error {
	for {
		b, changed, err := m.since(prefix, after)
		if err != nil {
			return err
		}
		if b.Revision > after {
			after = b.Revision
			select {
			case out <- b:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// since collects what happened after a revision.
func (m *Memory) since(prefix string, after int64) (Batch, <-chan struct{}, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	// A watch that starts at the compacted revision misses nothing after it.
	if after < m.compacted {
		return Batch{}, nil, fmt.Errorf("watch %s from %d: %w", prefix, after, ErrCompacted)
	}
	b := Batch{Revision: m.rev}
	i := sort.Search(len(m.history), func(i int) bool { return m.history[i].Revision > after })
	for _, ev := range m.history[i:] {
		if strings.HasPrefix(ev.Key, prefix) {
			b.Events = append(b.Events, ev)
		}
	}
	return b, m.changed, nil
}
