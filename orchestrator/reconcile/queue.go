// Package reconcile is the machinery that every level-triggered reconciler shares.
//
//	in:   informer events, mapped to keys
//	out:  one call of a reconcile function for each key that may have changed
//
// Queue calls it, never twice at a time for one key, with per-key back-off after
// an error. Writes lets a reconciler read its own writes before its informer shows
// them. Election runs something on one server of many. Recorder tells users.
//
// A key is forgotten as soon as it has been reconciled without error: memory grows
// with what is pending, not with what exists.
package reconcile

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// Config says how a Queue works.
type Config struct {
	Name    string // in logs and metrics
	Workers int    // keys reconciled at the same time; default 1

	// Watch is what the reconciler depends on. Run follows it, and reconciles
	// nothing before every source has delivered its first list.
	Watch []Watch

	// Reconcile brings one key to its desired state. It is called again after
	// requeueAfter if that is positive, after a back-off if err is not nil, and
	// whenever the key is added. A Conflict is retried without being logged.
	Reconcile func(ctx context.Context, key types.NamespacedName) (requeueAfter time.Duration, err error)

	MinBackoff time.Duration // after the first error; default 5 ms, doubled for each further one
	MaxBackoff time.Duration // default 30 s
	Log        *slog.Logger
}

// Watch says which keys an informer's event concerns.
type Watch struct {
	Informer client.Informer
	Keys     func(client.Event) []types.NamespacedName
}

// Queue holds the keys that are due.
//
//	Add ─▶ ready ─▶ running ─▶ (gone)
//	         ▲         │ error, requeueAfter, or added meanwhile
//	         └─ delayed ◀┘
type Queue struct {
	cfg   Config
	stats stats

	mu      sync.Mutex
	changed sync.Cond // ready has grown, or a run has ended
	ready   fifo
	delayed delays
	keys    map[types.NamespacedName]*entry
	timer   *time.Timer
	stopped bool
}

// entry is one key's place in the queue; it is removed when nothing is pending.
type entry struct {
	key      types.NamespacedName
	queued   bool // in ready
	running  bool
	again    bool // added while running
	failures int
	since    time.Time // added to ready
	due      time.Time // in delayed when index >= 0
	index    int
}

// New checks the configuration.
func New(cfg Config) (*Queue, error) {
	if cfg.Reconcile == nil {
		return nil, fmt.Errorf("queue %q: no reconcile function", cfg.Name)
	}
	if cfg.Workers <= 0 {
		cfg.Workers = 1
	}
	if cfg.MinBackoff <= 0 {
		cfg.MinBackoff = 5 * time.Millisecond
	}
	if cfg.MaxBackoff <= 0 {
		cfg.MaxBackoff = 30 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Log = cfg.Log.With("controller", cfg.Name)
	q := &Queue{cfg: cfg, keys: map[types.NamespacedName]*entry{}}
	q.changed.L = &q.mu
	return q, nil
}

// Add makes a key due now. Adding it again before it is reconciled changes nothing;
// adding it while it is being reconciled makes it due once more afterwards.
func (q *Queue) Add(key types.NamespacedName) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stats.adds++
	q.push(q.entry(key))
}

// AddAfter makes a key due in d, or sooner if it is due sooner already.
func (q *Queue) AddAfter(key types.NamespacedName, d time.Duration) {
	if d <= 0 {
		q.Add(key)
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.delay(q.entry(key), time.Now().Add(d))
}

// Run follows Config.Watch and reconciles until ctx ends and every running call
// has returned. It may be called again afterwards. It returns ctx's error.
func (q *Queue) Run(ctx context.Context) error {
	q.mu.Lock()
	q.stopped = false
	q.mu.Unlock()
	stop := context.AfterFunc(ctx, q.stop)
	defer stop()
	for _, w := range q.cfg.Watch {
		defer Enqueue(q, w.Informer, w.Keys)()
	}
	for _, w := range q.cfg.Watch {
		if err := client.WaitSynced(ctx, w.Informer); err != nil {
			return err
		}
	}
	var workers sync.WaitGroup
	for range q.cfg.Workers {
		workers.Go(func() { q.work(ctx) })
	}
	workers.Wait()
	return ctx.Err()
}

// Enqueue adds the keys of every event of an informer until cancel is called.
func Enqueue(q *Queue, informer client.Informer, keys func(client.Event) []types.NamespacedName) (cancel func()) {
	return informer.Subscribe(func(ev client.Event) {
		if ev.Type == client.Synced {
			return
		}
		for _, key := range keys(ev) {
			q.Add(key)
		}
	})
}

func (q *Queue) work(ctx context.Context) {
	for {
		e := q.next()
		if e == nil {
			return
		}
		start := time.Now()
		after, err := q.call(ctx, e.key)
		q.done(e, start, after, err)
		if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) {
			q.cfg.Log.Warn("reconcile", "key", e.key.String(), "failures", e.failures, "err", err)
		}
	}
}

// call reconciles one key; a panic is that key's error and no one else's.
func (q *Queue) call(ctx context.Context, key types.NamespacedName) (after time.Duration, err error) {
	defer func() {
		if r := recover(); r != nil {
			q.cfg.Log.Error("reconcile panicked", "key", key.String(), "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("reconcile %s: panic: %v", key, r)
		}
	}()
	return q.cfg.Reconcile(ctx, key)
}

// next waits for a key that is due; nil when the queue has stopped.
func (q *Queue) next() *entry {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.ready.len() == 0 && !q.stopped {
		q.changed.Wait()
	}
	if q.stopped {
		return nil
	}
	e := q.ready.pop()
	e.queued, e.running = false, true
	q.stats.waited.add(time.Since(e.since))
	return e
}

func (q *Queue) done(e *entry, start time.Time, after time.Duration, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stats.worked.add(time.Since(start))
	e.running = false
	again := e.again
	e.again = false
	switch {
	case err != nil && !errors.Is(err, context.Canceled):
		e.failures++
		q.stats.retries++
		q.delay(e, time.Now().Add(q.backoff(e.failures)))
	case err == nil:
		e.failures = 0
		if after > 0 {
			q.delay(e, time.Now().Add(after))
		}
	}
	if again { // a fresh event does not wait for the back-off: it may be the cure
		q.push(e)
	}
	q.forget(e)
}

func (q *Queue) backoff(failures int) time.Duration {
	d := q.cfg.MinBackoff
	for i := 1; i < failures && d < q.cfg.MaxBackoff; i++ {
		d *= 2
	}
	return min(d, q.cfg.MaxBackoff)
}

func (q *Queue) entry(key types.NamespacedName) *entry {
	e := q.keys[key]
	if e == nil {
		e = &entry{key: key, index: -1}
		q.keys[key] = e
	}
	return e
}

func (q *Queue) forget(e *entry) {
	if !e.queued && !e.running && e.index < 0 && e.failures == 0 {
		delete(q.keys, e.key)
	}
}

// push makes an entry due. The mutex is held.
func (q *Queue) push(e *entry) {
	switch {
	case e.running:
		e.again = true
	case !e.queued:
		if e.index >= 0 {
			heap.Remove(&q.delayed, e.index)
		}
		e.queued, e.since = true, time.Now()
		q.ready.push(e)
		q.changed.Signal()
	}
}

// delay makes an entry due later. The mutex is held.
func (q *Queue) delay(e *entry, due time.Time) {
	if e.queued {
		return
	}
	switch {
	case e.index < 0:
		e.due = due
		heap.Push(&q.delayed, e)
	case due.Before(e.due):
		e.due = due
		heap.Fix(&q.delayed, e.index)
	}
	q.arm()
}

// arm sets the one timer to the entry that is due first.
func (q *Queue) arm() {
	if len(q.delayed) == 0 || q.stopped {
		return
	}
	d := max(time.Until(q.delayed[0].due), 0)
	if q.timer == nil {
		q.timer = time.AfterFunc(d, q.fire)
		return
	}
	q.timer.Reset(d)
}

func (q *Queue) fire() {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	for len(q.delayed) > 0 && !q.delayed[0].due.After(now) {
		e := q.delayed[0]
		heap.Remove(&q.delayed, 0)
		q.push(e)
	}
	q.arm()
}

func (q *Queue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	if q.timer != nil {
		q.timer.Stop()
	}
	q.changed.Broadcast()
}

// fifo is a queue of entries without allocation in the steady state.
type fifo struct {
	items []*entry
	head  int
}

func (f *fifo) len() int { return len(f.items) - f.head }

func (f *fifo) push(e *entry) { f.items = append(f.items, e) }

func (f *fifo) pop() *entry {
	e := f.items[f.head]
	f.items[f.head] = nil
	f.head++
	if f.head == len(f.items) {
		f.items, f.head = f.items[:0], 0
	} else if f.head > 1024 && f.head > len(f.items)/2 {
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	return e
}

// delays is a heap by due time.
type delays []*entry

func (d delays) Len() int           { return len(d) }
func (d delays) Less(i, j int) bool { return d[i].due.Before(d[j].due) }
func (d delays) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].index, d[j].index = i, j
}

func (d *delays) Push(x any) {
	e := x.(*entry)
	e.index = len(*d)
	*d = append(*d, e)
}

func (d *delays) Pop() any {
	old := *d
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	e.index = -1
	return e
}
