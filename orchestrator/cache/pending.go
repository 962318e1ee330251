package cache

import (
	"bytes"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
	"github.com/xebec-mesh/xebec/orchestrator/store"
)

// Pending is a write of this process that is under way. Whichever comes first,
// the store's answer or its event, makes the Object; so the written object is
// never decoded again, and writer and readers share one Object.
type Pending struct {
	r      *Resource
	key    string
	value  []byte
	obj    resource.Object
	once   sync.Once
	result atomic.Pointer[Object]
}

// Expect announces a write of value, which is obj's encoding. It takes obj over
// for good: the caller must not touch it any more.
func (r *Resource) Expect(key string, value []byte, obj resource.Object) *Pending {
	p := &Pending{r: r, key: key, value: value, obj: obj}
	r.pendMu.Lock()
	r.pending[key] = append(r.pending[key], p)
	r.pendMu.Unlock()
	return p
}

// Stored says that the write succeeded, and returns the object as stored.
func (p *Pending) Stored(rev int64) *Object {
	o := p.make(rev)
	if o.RV != uint64(rev) { // another server had written the same bytes just before
		p.forget()
		return o.at(uint64(rev))
	}
	if s := p.r.state.Load(); s.rv >= o.RV {
		p.forget()
	}
	return o
}

// Failed says that the write did not succeed or that nobody knows.
func (p *Pending) Failed() { p.forget() }

func (p *Pending) forget() {
	p.r.pendMu.Lock()
	defer p.r.pendMu.Unlock()
	p.r.keepPending(p.key, func(q *Pending) bool { return q != p })
}

// keepPending keeps what keep says of the pending writes of a key; pendMu is held.
func (r *Resource) keepPending(key string, keep func(*Pending) bool) {
	var left []*Pending
	for _, q := range r.pending[key] {
		if keep(q) {
			left = append(left, q)
		}
	}
	if len(left) == 0 {
		delete(r.pending, key)
	} else {
		r.pending[key] = left
	}
}

func (p *Pending) make(rev int64) *Object {
	p.once.Do(func() {
		p.obj.SetResourceVersion(strconv.FormatInt(rev, 10))
		p.result.Store(&Object{Kind: p.r.Kind(), Key: p.key, RV: uint64(rev), Obj: p.obj, size: len(p.value)})
	})
	return p.result.Load()
}

// settle finds the pending write that an event is the outcome of, and its Object.
func (r *Resource) settle(key string, ev store.Event) *Object {
	r.pendMu.Lock()
	defer r.pendMu.Unlock()
	for _, p := range r.pending[key] {
		done := p.result.Load()
		if done != nil && done.RV != uint64(ev.Revision) || !bytes.Equal(p.value, ev.Value) {
			continue
		}
		return p.make(ev.Revision)
	}
	return nil
}

// seen drops the pending writes that an event, now a part of the state, settles.
func (r *Resource) seen(ev store.Event) {
	key := ev.Key[len(r.prefix):]
	r.pendMu.Lock()
	defer r.pendMu.Unlock()
	if r.pending[key] == nil {
		return
	}
	r.keepPending(key, func(p *Pending) bool {
		done := p.result.Load()
		return done == nil || done.RV > uint64(ev.Revision)
	})
}
