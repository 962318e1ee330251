// Package svid keeps a node's SVIDs.
//
//	in:   which workloads run here (who holds a Handle), an issuer
//	out:  for each (namespace, service account) one key and one SVID, and every newer one
//
// All pods of one service account share an entry. An SVID is replaced at half its
// life, give or take a tenth; while the issuer cannot be reached the old one stays
// in force and the request is repeated with growing pauses. Holders are told of a
// new SVID, never that the old one is bad: connections made with it live on.
//
//	empty ──issued──▶ current ──half-life──▶ due ──issued──▶ current
//	                                          └──end of life──▶ expired ──issued──▶ current
//
// An entry that nobody has held for Config.Linger is forgotten with its key.
package svid

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/citadel/ca"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

// Issuer signs for this node's workloads; *issue.Node and *issue.Remote do.
type Issuer interface {
	X509(ctx context.Context, id ca.Identity, csr []byte) (chain [][]byte, err error)
}

// Config says what a Cache needs.
type Config struct {
	Issuer      Issuer        // required
	TrustDomain string        // required
	Linger      time.Duration // how long an entry without holders is kept; default 5 min
	MaxBackoff  time.Duration // longest pause between attempts; default 30 s
	Log         *slog.Logger
}

// Cache owns a node's SVIDs.
type Cache struct {
	cfg   Config
	queue *reconcile.Queue

	mu      sync.Mutex
	entries map[ca.Identity]*entry

	issued, failed atomic.Uint64
}

// entry is one workload's. Cache.mu guards it.
type entry struct {
	holders int
	idle    time.Time // when the last holder left
	svid    *SVID
	renew   time.Time
	err     error
	changed chan struct{}
}

// New checks the configuration.
func New(cfg Config) (*Cache, error) {
	if cfg.Issuer == nil || cfg.TrustDomain == "" {
		return nil, errors.New("svid cache: Issuer and TrustDomain are required")
	}
	if cfg.Linger == 0 {
		cfg.Linger = 5 * time.Minute
	}
	if cfg.MaxBackoff == 0 {
		cfg.MaxBackoff = 30 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Cache{cfg: cfg, entries: map[ca.Identity]*entry{}}
	q, err := reconcile.New(reconcile.Config{
		Name: "svid", Workers: 4, Reconcile: c.reconcile, Log: cfg.Log,
		MinBackoff: 20 * time.Millisecond, MaxBackoff: cfg.MaxBackoff,
	})
	if err != nil {
		return nil, err
	}
	c.queue = q
	return c, nil
}

// Run issues and renews until ctx ends.
func (c *Cache) Run(ctx context.Context) error {
	if err := c.queue.Run(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// Handle keeps a workload's entry alive. Release it.
type Handle struct {
	cache   *Cache
	id      ca.Identity
	entry   *entry
	release sync.Once
}

// Hold asks for a workload's SVID, and keeps it fresh until the handle is released.
func (c *Cache) Hold(id ca.Identity) *Handle {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[id]
	if e == nil {
		e = &entry{changed: make(chan struct{})}
		c.entries[id] = e
	}
	e.holders++
	c.queue.Add(key2name(id))
	return &Handle{cache: c, id: id, entry: e}
}

// Get returns the workload's SVID, nil as long as there is none that has not
// expired, a channel that closes when there is news, and the last attempt's error:
// an SVID and an error together mean that the next one is overdue.
func (h *Handle) Get() (*SVID, <-chan struct{}, error) {
	h.cache.mu.Lock()
	defer h.cache.mu.Unlock()
	s := h.entry.svid
	if s != nil && s.Expired(time.Now()) {
		s = nil
	}
	return s, h.entry.changed, h.entry.err
}

// Wait returns the SVID as soon as there is one, or the reason why not when ctx ends.
func (h *Handle) Wait(ctx context.Context) (*SVID, error) {
	for {
		s, changed, last := h.Get()
		if s != nil {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, errors.Join(last, ctx.Err())
		}
	}
}

// Release gives the handle up. It may be called more than once.
func (h *Handle) Release() {
	h.release.Do(func() {
		h.cache.mu.Lock()
		defer h.cache.mu.Unlock()
		h.entry.holders--
		if h.entry.holders == 0 {
			h.entry.idle = time.Now()
			h.cache.queue.AddAfter(key2name(h.id), h.cache.cfg.Linger)
		}
	})
}

// reconcile brings one entry to its state at this time.
func (c *Cache) reconcile(ctx context.Context, key types.NamespacedName) (time.Duration, error) {
	id := ca.Identity{Namespace: key.Namespace, ServiceAccount: key.Name}
	c.mu.Lock()
	e := c.entries[id]
	now := time.Now()
	wait, action := decide(e, now, c.cfg.Linger)
	if action == forget {
		delete(c.entries, id)
	}
	c.mu.Unlock()
	if action != renew {
		return wait, nil
	}
	s, err := c.request(ctx, id)
	return c.settle(e, s, err, now)
}

// action is what reconcile does with an entry.
type action uint8

const (
	nothing action = iota
	renew
	forget
)

// decide is pure: what to do with e now, and when to look again.
func decide(e *entry, now time.Time, linger time.Duration) (time.Duration, action) {
	switch {
	case e == nil:
		return 0, nothing
	case e.holders == 0 && !e.idle.Add(linger).After(now):
		return 0, forget
	case e.holders == 0:
		return e.idle.Add(linger).Sub(now), nothing
	case e.svid == nil || !e.renew.After(now):
		return 0, renew
	}
	return e.renew.Sub(now), nothing
}

func (c *Cache) request(ctx context.Context, id ca.Identity) (*SVID, error) {
	k, err := newKey()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	chain, err := c.cfg.Issuer.X509(ctx, id, k.csr)
	if err != nil {
		return nil, err
	}
	return assemble(id, c.cfg.TrustDomain, k, chain, now)
}

// settle puts the outcome into the entry and tells its holders.
func (c *Cache) settle(e *entry, s *SVID, err error, now time.Time) (time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.err = err
	if err == nil {
		e.svid = s
		e.renew = renewAt(s.Issued, s.NotAfter, rand.Float64())
		c.issued.Add(1)
		c.cfg.Log.Info("svid renewed", "svid", s)
	} else {
		c.failed.Add(1)
	}
	close(e.changed)
	e.changed = make(chan struct{})
	if err != nil {
		if e.svid != nil && e.svid.Expired(now) {
			return 0, fmt.Errorf("renew expired SVID: %w", err)
		}
		return 0, fmt.Errorf("renew SVID: %w", err)
	}
	return e.renew.Sub(now), nil
}

func key2name(id ca.Identity) types.NamespacedName {
	return types.NamespacedName{Namespace: id.Namespace, Name: id.ServiceAccount}
}

// WriteMetrics writes the cache's state in the Prometheus text format.
func (c *Cache) WriteMetrics(w io.Writer) error {
	c.mu.Lock()
	now := time.Now()
	var current, expired, missing int
	for _, e := range c.entries {
		switch {
		case e.svid == nil:
			missing++
		case e.svid.Expired(now):
			expired++
		default:
			current++
		}
	}
	c.mu.Unlock()
	_, err := fmt.Fprintf(w, `# HELP citadel_svids Workload identities held by this node, by state.
# TYPE citadel_svids gauge
citadel_svids{state="current"} %d
citadel_svids{state="expired"} %d
citadel_svids{state="missing"} %d
# HELP citadel_svid_renewals_total Attempts to get an SVID, by outcome.
# TYPE citadel_svid_renewals_total counter
citadel_svid_renewals_total{outcome="issued"} %d
citadel_svid_renewals_total{outcome="failed"} %d
`, current, expired, missing, c.issued.Load(), c.failed.Load())
	return err
}
