package reconcile

import (
	"strconv"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// forgetWrites bounds how long a write that the informer never shows is believed:
// an object created and deleted again between two lists of a broken watch.
const forgetWrites = 30 * time.Second

// Writes lets a reconciler read its own writes.
//
//	in:   the informer's objects; what this process created, updated and deleted
//	out:  the informer's objects as they will look once it has caught up
//
// Without it a reconciler that runs again before its informer shows the pods it has
// just created would create them twice. Kubernetes' controllers wait until as many
// events have come as they expect; laying the writes over the snapshot needs no
// waiting, and forgets each write by itself when the informer shows that version
// or a later one.
//
// Resource versions are compared as numbers, as the API allows since v1.35:
// https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
type Writes struct {
	mu      sync.Mutex
	byOwner map[types.NamespacedName]map[types.UID]write
	seen    uint64 // newest version that the informer has shown
}

type write struct {
	obj     client.Object // nil: deleted
	version uint64        // that the informer has to show first
	at      time.Time
}

// NewWrites returns an empty memory.
func NewWrites() *Writes {
	return &Writes{byOwner: map[types.NamespacedName]map[types.UID]write{}}
}

// Keys wraps a mapping of events to keys so that w notes what the informer shows
// before any key is due because of it. One informer for one Writes.
func (w *Writes) Keys(keys func(client.Event) []types.NamespacedName) func(client.Event) []types.NamespacedName {
	return func(ev client.Event) []types.NamespacedName {
		v := version(ev.Object)
		w.mu.Lock()
		w.seen = max(w.seen, v)
		w.mu.Unlock()
		return keys(ev)
	}
}

// Settle returns when to look again in case the informer never shows what was
// written for an owner; 0 if nothing is pending.
func (w *Writes) Settle(owner types.NamespacedName) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.byOwner[owner]) == 0 {
		return 0
	}
	return forgetWrites + time.Second
}

// Sooner returns the shorter of two delays, of which 0 means never.
func Sooner(a, b time.Duration) time.Duration {
	if a <= 0 || (b > 0 && b < a) {
		return b
	}
	return a
}

// Wrote remembers what a create, update or patch on an owner's behalf returned.
func (w *Writes) Wrote(owner types.NamespacedName, obj client.Object) {
	w.put(owner, obj.GetUID(), write{obj: obj, version: version(obj), at: time.Now()})
}

// Deleted remembers that an owner's object was asked to go.
func (w *Writes) Deleted(owner types.NamespacedName, uid types.UID) {
	w.put(owner, uid, write{at: time.Now()})
}

func (w *Writes) put(owner types.NamespacedName, uid types.UID, x write) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byOwner[owner] == nil {
		w.byOwner[owner] = map[types.UID]write{}
	}
	if x.obj == nil { // it may still have to appear before it can be seen to go
		x.version = w.byOwner[owner][uid].version
	}
	w.byOwner[owner][uid] = x
}

// Forget drops everything about an owner that no longer exists.
func (w *Writes) Forget(owner types.NamespacedName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.byOwner, owner)
}

// Over lays an owner's pending writes over the objects that the informer gave.
// Written objects are added or replaced; deleted ones carry a deletionTimestamp.
// list itself is not changed.
func Over[T client.Object](w *Writes, owner types.NamespacedName, list []T) []T {
	w.mu.Lock()
	defer w.mu.Unlock()
	pending := w.byOwner[owner]
	if len(pending) == 0 {
		return list
	}
	out := make([]T, 0, len(list)+len(pending))
	shown := map[types.UID]bool{}
	for _, o := range list {
		shown[o.GetUID()] = true
		out = append(out, over(pending, o))
	}
	for uid, x := range pending {
		if shown[uid] {
			continue
		}
		if w.seen >= x.version || time.Since(x.at) > forgetWrites {
			delete(pending, uid)
		} else if x.obj == nil {
			continue
		} else if o, ok := x.obj.(T); ok {
			out = append(out, o)
		}
	}
	if len(pending) == 0 {
		delete(w.byOwner, owner)
	}
	return out
}

// Newest returns obj, or what this process has made of it since.
func Newest[T client.Object](w *Writes, owner types.NamespacedName, obj T) T {
	w.mu.Lock()
	defer w.mu.Unlock()
	if pending := w.byOwner[owner]; pending != nil {
		return over(pending, obj)
	}
	return obj
}

// over returns the newer of an object and the write pending for it, and forgets
// the write if the informer has caught up with it.
func over[T client.Object](pending map[types.UID]write, o T) T {
	x, ok := pending[o.GetUID()]
	switch {
	case !ok:
		return o
	case time.Since(x.at) > forgetWrites:
		delete(pending, o.GetUID())
		return o
	case x.obj == nil:
		if o.GetDeletionTimestamp() != nil {
			delete(pending, o.GetUID())
			return o
		}
		gone := o.DeepCopyObject().(T)
		gone.SetDeletionTimestamp(&metav1.Time{Time: x.at})
		return gone
	case version(o) >= x.version:
		delete(pending, o.GetUID())
		return o
	}
	if newer, ok := x.obj.(T); ok {
		return newer
	}
	return o
}

// version is an object's resource version as a number; 0 if it has none.
func version(o metav1.Object) uint64 {
	v, err := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	if err != nil {
		return 0
	}
	return v
}
