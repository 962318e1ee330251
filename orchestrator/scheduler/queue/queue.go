// Package queue orders the pods that wait for a node.
//
//	in:   pods, what became of an attempt, and time
//	out:  the next pod to try
//
//	            Add                    Pop
//	  (pod) ──────────▶ active ──────────────▶ an attempt ──▶ bound: Delete
//	                      ▲  ▲                    │     │
//	          time passes │  │ Move: something    │     │
//	                      │  │ changed that may   │     │ nothing fits
//	                   backoff◀─ help ── parked ◀─┼─────┘ Park
//	                      ▲                       │ error
//	                      └───────────────────────┘ Backoff
//
// A parked pod waits for a change that may let it fit, and is tried again anyway
// after five minutes. It belongs to one goroutine.
package queue

import (
	"container/heap"
	"time"

	"github.com/xebec-mesh/xebec/orchestrator/scheduler/snapshot"
)

// Backoff after failed attempts doubles from firstBackoff to mostBackoff.
const (
	firstBackoff = time.Second
	mostBackoff  = 10 * time.Second
	parkedAtMost = 5 * time.Minute
)

// Item is a pod that waits.
type Item struct {
	Pod      *snapshot.Pod
	Attempts int
	Rejected []string // names of the filters that refused it, in the last attempt

	since time.Time // in active: when it came; in backoff and parked: until when it waits
	where place
	index int
}

type place uint8

const (
	nowhere place = iota // being tried
	inActive
	inBackoff
	inParked
)

// Queue holds every pod that has no node.
type Queue struct {
	items   map[string]*Item
	active  items
	backoff items
	parked  items
}

// New returns an empty queue.
func New() *Queue {
	return &Queue{
		items:   map[string]*Item{},
		active:  items{less: first},
		backoff: items{less: sooner},
		parked:  items{less: sooner},
	}
}

// first orders by priority, then by how long a pod has waited.
func first(a, b *Item) bool {
	if pa, pb := priority(a), priority(b); pa != pb {
		return pa > pb
	}
	if !a.since.Equal(b.since) {
		return a.since.Before(b.since)
	}
	return a.Pod.Key < b.Pod.Key
}

func priority(i *Item) int32 {
	if i.Pod.Spec.Priority == nil {
		return 0
	}
	return *i.Pod.Spec.Priority
}

func sooner(a, b *Item) bool { return a.since.Before(b.since) }

// Add makes a pod wait for its turn. A pod that waits already is replaced; it is
// tried again at once if its spec or labels may matter to the outcome.
func (q *Queue) Add(pod *snapshot.Pod, changed bool, now time.Time) {
	i := q.items[pod.Key]
	if i == nil {
		i = &Item{Pod: pod}
		q.items[pod.Key] = i
		q.put(i, inActive, now)
		return
	}
	i.Pod = pod
	switch {
	case i.where == inActive:
		heap.Fix(&q.active, i.index)
	case changed && i.where != nowhere:
		q.take(i)
		q.put(i, inActive, now)
	}
}

// Delete forgets a pod: it is gone, or has a node.
func (q *Queue) Delete(key string) {
	if i := q.items[key]; i != nil {
		q.take(i)
		delete(q.items, key)
	}
}

// Has says whether a pod waits or is being tried.
func (q *Queue) Has(key string) bool { return q.items[key] != nil }

// Pop returns the next pod to try, or nil.
func (q *Queue) Pop() *Item {
	if len(q.active.list) == 0 {
		return nil
	}
	i := q.active.list[0]
	q.take(i)
	i.Attempts++
	i.Rejected = nil
	return i
}

// Backoff returns a pod whose attempt failed by an error.
func (q *Queue) Backoff(i *Item, now time.Time) {
	if q.items[i.Pod.Key] == i {
		q.put(i, inBackoff, now.Add(pause(i.Attempts)))
	}
}

// Park returns a pod that fits nowhere.
func (q *Queue) Park(i *Item, now time.Time) {
	if q.items[i.Pod.Key] == i {
		q.put(i, inParked, now.Add(parkedAtMost))
	}
}

// Move lets the parked pods for which helps is true be tried again, after their back-off.
func (q *Queue) Move(now time.Time, helps func(*Item) bool) {
	var moved []*Item
	for _, i := range q.parked.list {
		if helps(i) {
			moved = append(moved, i)
		}
	}
	for _, i := range moved {
		parkedAt := i.since.Add(-parkedAtMost)
		q.take(i)
		if until := parkedAt.Add(pause(i.Attempts)); until.After(now) {
			q.put(i, inBackoff, until)
		} else {
			q.put(i, inActive, now)
		}
	}
}

// Advance moves what has waited long enough to active, and returns when the next
// one will have; the zero time is never.
func (q *Queue) Advance(now time.Time) (next time.Time) {
	for _, from := range []*items{&q.backoff, &q.parked} {
		for len(from.list) > 0 && !from.list[0].since.After(now) {
			i := from.list[0]
			q.take(i)
			q.put(i, inActive, now)
		}
		if len(from.list) > 0 && (next.IsZero() || from.list[0].since.Before(next)) {
			next = from.list[0].since
		}
	}
	return next
}

// Len counts the pods that wait, by place.
func (q *Queue) Len() (active, backoff, parked int) {
	return len(q.active.list), len(q.backoff.list), len(q.parked.list)
}

func pause(attempts int) time.Duration {
	d := firstBackoff
	for n := 1; n < attempts && d < mostBackoff; n++ {
		d *= 2
	}
	return min(d, mostBackoff)
}

func (q *Queue) list(p place) *items {
	switch p {
	case inActive:
		return &q.active
	case inBackoff:
		return &q.backoff
	case inParked:
		return &q.parked
	}
	return nil
}

func (q *Queue) put(i *Item, p place, since time.Time) {
	i.where, i.since = p, since
	heap.Push(q.list(p), i)
}

func (q *Queue) take(i *Item) {
	if l := q.list(i.where); l != nil {
		heap.Remove(l, i.index)
	}
	i.where = nowhere
}

// items is a heap.Interface.
type items struct {
	list []*Item
	less func(a, b *Item) bool
}

func (h *items) Len() int           { return len(h.list) }
func (h *items) Less(a, b int) bool { return h.less(h.list[a], h.list[b]) }
func (h *items) Swap(a, b int) {
	h.list[a], h.list[b] = h.list[b], h.list[a]
	h.list[a].index, h.list[b].index = a, b
}
func (h *items) Push(x any) {
	i := x.(*Item)
	i.index = len(h.list)
	h.list = append(h.list, i)
}
func (h *items) Pop() any {
	last := h.list[len(h.list)-1]
	h.list[len(h.list)-1] = nil
	h.list = h.list[:len(h.list)-1]
	return last
}
