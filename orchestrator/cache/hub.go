package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
	"github.com/xebec-mesh/xebec/orchestrator/store"
)

// Hub follows the store and feeds the cache of every resource from one stream.
type Hub struct {
	cfg       Config
	ready     chan struct{}
	progress  atomic.Uint64
	resources atomic.Pointer[map[string]*Resource] // by "group/resource"

	mu       sync.Mutex // resources (writing), waiters, progress (writing)
	filling  bool       // what is added from now on fills itself
	waiters  []waiter
	readOnce sync.Once
}

type waiter struct {
	rev  uint64
	done chan struct{}
}

// NewHub checks cfg.
func NewHub(cfg Config) (*Hub, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	h := &Hub{cfg: cfg, ready: make(chan struct{})}
	h.resources.Store(&map[string]*Resource{})
	return h, nil
}

// Ready is closed when all resources that were added before Run are filled.
func (h *Hub) Ready() <-chan struct{} { return h.ready }

// Progress is the revision up to which every resource is complete.
func (h *Hub) Progress() uint64 { return h.progress.Load() }

// Run fills the resources and follows the store until ctx ends. When the stream
// breaks for good it fills them again, and all watches end with 410 Gone.
func (h *Hub) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { h.tidyLoop(ctx) })
	defer h.stopAll()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		started := time.Now()
		err := h.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		h.cfg.Log.Warn("watch cache lost the store's stream, starts over", "err", err)
		if time.Since(started) > time.Minute {
			pause = 50 * time.Millisecond
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// follow is one life of the stream.
func (h *Hub) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rev, err := h.progressOrFill(ctx)
	if err != nil {
		return err
	}
	h.readOnce.Do(func() { close(h.ready) })
	stream := h.cfg.Store.Watch(ctx, h.cfg.Prefix, int64(rev))
	for b := range stream.C {
		h.apply(b)
	}
	if err := stream.Err(); err != nil {
		if errors.Is(err, store.ErrCompacted) {
			h.progress.Store(0) // fill again
		}
		return err
	}
	return ctx.Err()
}

// progressOrFill is the revision from which the stream must go on.
func (h *Hub) progressOrFill(ctx context.Context) (uint64, error) {
	if p := h.progress.Load(); p > 0 {
		return p, nil
	}
	found := map[*Resource][]item{}
	h.mu.Lock()
	h.filling = true
	all := *h.resources.Load()
	h.mu.Unlock()
	rev, err := h.cfg.Store.List(ctx, h.cfg.Prefix, func(e store.Entry) error {
		id, key, ok := split(e.Key[len(h.cfg.Prefix):])
		if r := all[id]; ok && r != nil {
			if o := r.decode(e); o != nil {
				found[r] = append(found[r], item{key, o})
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("fill watch cache: %w", err)
	}
	for _, r := range all {
		r.fill(found[r], uint64(rev))
	}
	h.advance(uint64(rev))
	return uint64(rev), nil
}

// apply hands a batch to the resources and then says that it is done.
func (h *Hub) apply(b store.Batch) {
	all := *h.resources.Load()
	events := b.Events
	for len(events) > 0 {
		id, _, ok := split(events[0].Key[len(h.cfg.Prefix):])
		n := 1
		for n < len(events) && ok && strings.HasPrefix(events[n].Key[len(h.cfg.Prefix):], id+"/") {
			n++
		}
		if r := all[id]; ok && r != nil {
			r.apply(events[:n])
		}
		events = events[n:]
	}
	h.advance(uint64(b.Revision))
}

// split takes "group/resource/rest" apart.
func split(key string) (id, rest string, ok bool) {
	i := strings.IndexByte(key, '/')
	if i < 0 {
		return "", "", false
	}
	j := strings.IndexByte(key[i+1:], '/')
	if j < 0 {
		return "", "", false
	}
	return key[:i+1+j], key[i+j+2:], true
}

func (h *Hub) advance(rev uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if rev <= h.progress.Load() {
		return
	}
	h.progress.Store(rev)
	keep := h.waiters[:0]
	for _, w := range h.waiters {
		if w.rev <= rev {
			close(w.done)
		} else {
			keep = append(keep, w)
		}
	}
	clear(h.waiters[len(keep):])
	h.waiters = keep
}

// Wait waits until the cache is complete up to rev.
func (h *Hub) Wait(ctx context.Context, rev uint64) error {
	if h.progress.Load() >= rev {
		return nil
	}
	h.mu.Lock()
	if h.progress.Load() >= rev {
		h.mu.Unlock()
		return nil
	}
	w := waiter{rev, make(chan struct{})}
	h.waiters = append(h.waiters, w)
	h.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		h.forget(w)
		return ctx.Err()
	}
}

func (h *Hub) forget(w waiter) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.waiters {
		if h.waiters[i].done == w.done {
			h.waiters = append(h.waiters[:i], h.waiters[i+1:]...)
			return
		}
	}
}

// Fresh waits until the cache shows everything that was acknowledged to anybody
// before the call, and returns the revision of which that is true.
func (h *Hub) Fresh(ctx context.Context) (uint64, error) {
	rev, err := h.cfg.Store.Current(ctx)
	if err != nil {
		return 0, err
	}
	return uint64(rev), h.Wait(ctx, uint64(rev))
}

// Add begins to keep a stored kind and returns its cache, filled if the Hub
// runs. If its resource is kept already, the kind is replaced; a custom one, which
// may have another schema now, is read anew, and its watches end with 410 Gone.
func (h *Hub) Add(ctx context.Context, kind *resource.Kind) (*Resource, error) {
	h.mu.Lock()
	old := *h.resources.Load()
	id := idOf(kind.GroupResource())
	if r := old[id]; r != nil {
		filling := h.filling
		h.mu.Unlock()
		if was := r.kind.Swap(kind); was != kind && kind.Custom && filling {
			return r, r.refill(ctx)
		}
		return r, nil
	}
	r := newResource(h, kind)
	h.replace(old, id, r)
	alone := h.filling
	h.mu.Unlock()
	if !alone {
		return r, nil // Run fills it
	}
	if err := r.fillAlone(ctx); err != nil {
		h.Remove(kind.GroupResource())
		return nil, err
	}
	return r, nil
}

// Remove ends the keeping of a resource and all watches of it.
func (h *Hub) Remove(gr schema.GroupResource) {
	h.mu.Lock()
	old := *h.resources.Load()
	r := old[idOf(gr)]
	h.replace(old, idOf(gr), nil)
	h.mu.Unlock()
	if r != nil {
		r.stop()
	}
}

// replace publishes a changed copy of the map; h.mu is held.
func (h *Hub) replace(old map[string]*Resource, id string, r *Resource) {
	next := make(map[string]*Resource, len(old)+1)
	for k, v := range old {
		next[k] = v
	}
	if r != nil {
		next[id] = r
	} else {
		delete(next, id)
	}
	h.resources.Store(&next)
}

func (h *Hub) stopAll() {
	for _, r := range *h.resources.Load() {
		r.stop()
	}
}

// tidyLoop drops what is older than its age.
func (h *Hub) tidyLoop(ctx context.Context) {
	tick := time.NewTicker(min(15*time.Second, h.cfg.EncodingAge))
	defer tick.Stop()
	swept := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		sweep := time.Since(swept) >= h.cfg.EncodingAge
		if sweep {
			swept = time.Now()
		}
		for _, r := range *h.resources.Load() {
			r.tidy(time.Now(), sweep)
		}
	}
}

// idOf is how a resource is called in keys: "core/pods", "apps/deployments".
func idOf(gr schema.GroupResource) string {
	if gr.Group == "" {
		return "core/" + gr.Resource
	}
	return gr.Group + "/" + gr.Resource
}
