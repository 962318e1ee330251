package cache

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// Watcher is one watch: a reader of the resource's history. It is used by one
// goroutine, except for Stop.
//
//	            entry concerns it
//	asleep  ─────────────────────▶  awake
//	   ▲                              │
//	   └── walked to the newest entry ┘
//
// Asleep it holds no place in the history and cannot fall behind. Awake it holds
// one; if the history forgets that place, the watch ends with 410 Gone.
type Watcher struct {
	r        *Resource
	q        Query
	initial  []*Object // still to be sent as Added
	initEnd  bool      // then send the bookmark that ends the initial events
	startRV  uint64
	bookmark bool
	due      time.Time // of the next bookmark

	out     []*Event
	wake    chan struct{} // buffered, one
	ended   atomic.Pointer[error]
	trigger string

	// Under r.mu while asleep, else the reader's own.
	cursor *entry // the last entry that was read; nil while asleep
	asleep bool
}

// WatchOptions are a Query with what only watches have.
type WatchOptions struct {
	Query
	// Initial sends all that is there as Added first, in the state that RV and
	// Match say; otherwise the watch begins after RV (with Match Any or Newest:
	// after what is there).
	Initial bool
	// Bookmarks sends bookmarks, and with Initial and MarkInitial one that says
	// that the initial events are complete.
	Bookmarks   bool
	MarkInitial bool
}

const (
	batchMost   = 256 // events that Next returns at most
	initialMost = 500
)

// Watch begins a watch.
func (r *Resource) Watch(ctx context.Context, o WatchOptions) (*Watcher, error) {
	q := o.Query
	if q.Kind == nil {
		q.Kind = r.Kind()
	}
	w := &Watcher{r: r, q: q, bookmark: o.Bookmarks, wake: make(chan struct{}, 1)}
	w.due = time.Now().Add(r.hub.cfg.BookmarkEvery)
	w.trigger = triggerOf(&q)
	var err error
	switch {
	case q.Match == Newest:
		_, err = r.hub.Fresh(ctx)
	case q.Match == NotOlder || q.Match == Exact:
		err = r.WaitFor(ctx, q.RV)
	}
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return nil, ErrStopped
	}
	if !o.Initial && q.Match != Any && q.Match != Newest {
		if w.cursor = r.history.after(q.RV); w.cursor == nil {
			return nil, errWatchGone(q.RV, r.history.oldest)
		}
		w.startRV = q.RV
		r.watchers.add(w)
		return w, nil
	}
	s, rv := r.now()
	w.cursor, w.startRV = r.history.tail, rv
	if o.Initial {
		var l List
		r.fillList(&l, s, &q, q.prefix())
		w.initial, w.initEnd = l.Items, o.MarkInitial && o.Bookmarks
	}
	r.watchers.add(w)
	return w, nil
}

// Next waits for events and returns at least one, in order, as many as are
// there. It ends with ctx's error, with ErrStopped, or with an error of
// k8s.io/apimachinery/pkg/api/errors: 410 Gone when the watcher was too slow.
// The slice is valid until the next call.
func (w *Watcher) Next(ctx context.Context) ([]*Event, error) {
	w.out = w.out[:0]
	for {
		if err := w.ended.Load(); err != nil {
			return nil, *err
		}
		if err := w.collect(); err != nil {
			w.end(err)
			return nil, err
		}
		if len(w.out) > 0 {
			return w.out, nil
		}
		if err := w.sleep(ctx); err != nil {
			return nil, err
		}
	}
}

// collect takes what there is without waiting.
func (w *Watcher) collect() error {
	if len(w.initial) > 0 || w.initEnd {
		return w.collectInitial()
	}
	for w.cursor != nil && len(w.out) < batchMost {
		next := w.cursor.next.Load()
		if next == nil {
			if w.cursor.cut.Load() {
				return errSlow()
			}
			return nil
		}
		w.cursor = next
		ev, err := next.as(w.q.Kind, w.saw(next), w.sees(next))
		if err != nil {
			return err
		}
		if ev != nil {
			w.out = append(w.out, ev)
		}
	}
	return nil
}

// sees says whether the watcher's selection has the object after the event.
func (w *Watcher) sees(e *entry) bool {
	return e.event.Type != watch.Deleted && w.q.selects(e.event.Object)
}

// saw says whether it had the object before.
func (w *Watcher) saw(e *entry) bool {
	return e.event.Old != nil && w.q.selects(e.event.Old)
}

func (w *Watcher) collectInitial() error {
	n := min(len(w.initial), initialMost)
	for _, o := range w.initial[:n] {
		o, err := o.As(w.q.Kind)
		if err != nil {
			return err
		}
		w.out = append(w.out, &Event{Type: watch.Added, Object: o})
	}
	w.initial = w.initial[n:]
	if len(w.initial) == 0 {
		w.initial = nil
		if w.initEnd {
			w.initEnd = false
			w.out = append(w.out, w.mark(w.startRV, true))
		}
	}
	return nil
}

// sleep waits until there is something for this watcher. It may return early.
func (w *Watcher) sleep(ctx context.Context) error {
	if !w.fallAsleep() {
		return nil
	}
	var due <-chan time.Time
	if w.bookmark {
		t := time.NewTimer(time.Until(w.due))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-w.wake:
	case <-due:
		w.markProgress()
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// fallAsleep is false if there is an entry to read first.
func (w *Watcher) fallAsleep() bool {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	if w.asleep {
		return true
	}
	if w.cursor.next.Load() != nil || w.cursor.cut.Load() {
		return false
	}
	w.cursor, w.asleep = nil, true
	w.r.watchers.sleeps(w)
	return true
}

// markProgress makes a bookmark, unless there are events, which say it as well.
func (w *Watcher) markProgress() {
	w.due = time.Now().Add(w.r.hub.cfg.BookmarkEvery)
	// Read before the state is looked at: all up to it is in the history.
	rv := max(w.r.hub.Progress(), w.startRV)
	w.r.mu.Lock()
	asleep := w.asleep
	w.r.mu.Unlock()
	if asleep {
		w.out = append(w.out, w.mark(rv, false))
	}
}

// mark is a bookmark at rv.
func (w *Watcher) mark(rv uint64, initialEnd bool) *Event {
	obj := w.q.Kind.New()
	obj.SetResourceVersion(strconv.FormatUint(rv, 10))
	if initialEnd {
		obj.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return &Event{Type: watch.Bookmark, Object: &Object{Kind: w.q.Kind, RV: rv, Obj: obj}}
}

// Stop ends the watch; a Next that waits returns. It must be called once the
// watch is not needed, after an error of Next too.
func (w *Watcher) Stop() {
	w.end(ErrStopped)
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	w.r.watchers.remove(w)
}

// expire ends the watch because the history has a gap.
func (w *Watcher) expire() { w.end(errSlow()) }

func (w *Watcher) end(err error) {
	w.ended.CompareAndSwap(nil, &err)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// watchers are all watchers of a resource, and those asleep by what wakes them.
type watchers struct {
	all    map[*Watcher]struct{}
	asleep map[string]map[*Watcher]struct{} // by trigger; "" is woken by everything
}

func (ws *watchers) init() {
	ws.all = map[*Watcher]struct{}{}
	ws.asleep = map[string]map[*Watcher]struct{}{}
}

func (ws *watchers) add(w *Watcher) { ws.all[w] = struct{}{} }

func (ws *watchers) sleeps(w *Watcher) {
	m := ws.asleep[w.trigger]
	if m == nil {
		m = map[*Watcher]struct{}{}
		ws.asleep[w.trigger] = m
	}
	m[w] = struct{}{}
}

func (ws *watchers) remove(w *Watcher) {
	delete(ws.all, w)
	if m := ws.asleep[w.trigger]; m != nil {
		delete(m, w)
		if len(m) == 0 {
			delete(ws.asleep, w.trigger)
		}
	}
}

// wake wakes who sleeps and may be concerned by an entry; prev is the one before it.
func (ws *watchers) wake(kind *resource.Kind, e, prev *entry) {
	if len(ws.asleep) == 0 {
		return
	}
	ws.rouse("", prev)
	o := e.event.Object
	ws.rouse("name="+o.Key, prev)
	if ns := o.Namespace(); ns != "" {
		ws.rouse("namespace="+ns, prev)
	}
	if len(kind.FieldNames) == 0 || len(ws.asleep) == 0 {
		return
	}
	ws.rouse("node="+o.Fields()["spec.nodeName"], prev)
	if e.event.Old != nil {
		ws.rouse("node="+e.event.Old.Fields()["spec.nodeName"], prev)
	}
}

func (ws *watchers) rouse(trigger string, prev *entry) {
	for w := range ws.asleep[trigger] {
		w.cursor, w.asleep = prev, false
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	delete(ws.asleep, trigger)
}

// triggerOf is the narrowest thing that can concern a query.
func triggerOf(q *Query) string {
	if key, ok := q.one(); ok {
		return "name=" + key
	}
	if q.Fields != nil {
		if v, ok := q.Fields.RequiresExactMatch("spec.nodeName"); ok {
			return "node=" + v
		}
	}
	if q.Namespace != "" {
		return "namespace=" + q.Namespace
	}
	return ""
}
