// Package authority keeps the keys that the trust domain's certificates are signed with.
//
//	in:   a state directory, perhaps an operator's certificate authority, time
//	out:  the issuer that signs now, and the trust bundle
//
// Keys lie in slots that are prepared, activated and retired. A root is in the
// bundle of every workload before anything is signed with it, and stays there
// until everything signed with it has expired: a rotation never breaks a
// handshake. Run only decides when; Config.Now is its only clock. The state file
// holds private keys, has mode 0600, and is replaced atomically before a new slot
// is used.
package authority

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xebec-mesh/xebec/citadel/bundle"
	"github.com/xebec-mesh/xebec/citadel/ca"
)

// Config says what an Authority is made of.
type Config struct {
	TrustDomain string        // default cluster.local
	Dir         string        // where authority.json lies; required
	CADir       string        // operator's CA, in the files that ca.LoadDir reads; "" makes a root of our own
	RootTTL     time.Duration // of a root of our own; default 10 years
	LeafTTL     time.Duration // the longest life of what will be signed; default 24 h
	Propagate   time.Duration // how long a new root is only trusted before it signs; default 10 min
	Now         func() time.Time
	Log         *slog.Logger
}

const year = 365 * 24 * time.Hour

// Authority owns the slots.
type Authority struct {
	cfg    Config
	policy Policy
	bundle *bundle.Source
	active atomic.Pointer[signers]
	wake   chan struct{}

	mu     sync.Mutex // guards state, and is held while it changes
	state  file
	wanted bool
}

type signers struct {
	slot string
	x509 *ca.Issuer
	jwt  *ca.JWTSigner
}

// New opens the state, and makes the first root where there is none, so that
// what it returns can sign. It starts nothing.
func New(cfg Config) (*Authority, error) {
	cfg.defaults()
	if cfg.Dir == "" {
		return nil, errors.New("authority: Dir is required")
	}
	if err := ca.CheckTrustDomain(cfg.TrustDomain); err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	if cfg.RootTTL <= 2*cfg.LeafTTL {
		return nil, fmt.Errorf("authority: a root's life %s must be more than twice a leaf's %s", cfg.RootTTL, cfg.LeafTTL)
	}
	a := &Authority{cfg: cfg, wake: make(chan struct{}, 1)}
	a.policy = Policy{Propagate: cfg.Propagate, LeafTTL: cfg.LeafTTL + ca.Backdate, SelfMade: cfg.CADir == ""}
	state, err := load(a.path(), cfg.TrustDomain)
	if err != nil {
		return nil, err
	}
	a.state = state
	if err := a.publish(); err != nil { // before anything is written over it
		return nil, fmt.Errorf("load authority %s: %w", a.path(), err)
	}
	if err := a.lengthen(); err != nil {
		return nil, err
	}
	if err := a.adopt(); err != nil {
		return nil, err
	}
	if _, err := a.step(); err != nil {
		return nil, err
	}
	if a.active.Load() == nil {
		return nil, fmt.Errorf("load authority %s: no slot signs; restore the file, or remove it to begin with a new root", a.path())
	}
	return a, nil
}

func (c *Config) defaults() {
	if c.TrustDomain == "" {
		c.TrustDomain = "cluster.local"
	}
	if c.RootTTL == 0 {
		c.RootTTL = 10 * year
	}
	if c.LeafTTL == 0 {
		c.LeafTTL = 24 * time.Hour
	}
	if c.Propagate == 0 {
		c.Propagate = 10 * time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

func (a *Authority) path() string { return filepath.Join(a.cfg.Dir, "authority.json") }

// TrustDomain is the name the authority signs for.
func (a *Authority) TrustDomain() string { return a.cfg.TrustDomain }

// Bundle follows the trust bundle.
func (a *Authority) Bundle() *bundle.Source { return a.bundle }

// Issuer is the one that signs certificates now.
func (a *Authority) Issuer() *ca.Issuer { return a.active.Load().x509 }

// JWTSigner is the one that signs tokens now.
func (a *Authority) JWTSigner() *ca.JWTSigner { return a.active.Load().jwt }

// Rotate asks for a new root regardless of the age of the active one. It returns
// when the new one is prepared; it signs after Config.Propagate.
func (a *Authority) Rotate() error {
	if !a.policy.SelfMade {
		return errors.New("rotate root: the operator's certificate authority is in use: put the new one into its directory")
	}
	a.mu.Lock()
	a.wanted = true
	a.mu.Unlock()
	_, err := a.step()
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return err
}

// Run moves the slots on when their time comes, until ctx ends.
func (a *Authority) Run(ctx context.Context) error {
	for {
		next, err := a.turn()
		if err != nil {
			a.cfg.Log.Error("rotate certificate authority", "err", err)
		}
		timer := time.NewTimer(max(time.Second, min(next, time.Hour)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-a.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// turn looks at the operator's files and at the time, and returns when to look again.
func (a *Authority) turn() (time.Duration, error) {
	if err := a.adopt(); err != nil {
		return time.Minute, err
	}
	next, err := a.step()
	if err != nil {
		return time.Minute, err
	}
	if a.cfg.CADir != "" {
		next = min(next, time.Minute) // the operator's files may change
	}
	if left := a.Issuer().Cert.NotAfter.Sub(a.cfg.Now()); left < 30*24*time.Hour {
		a.cfg.Log.Error("certificate authority ends soon: renew it", "issuer", a.Issuer(), "left", left.Round(time.Hour))
	}
	return next, nil
}

// lengthen notes that the active slot will sign for longer than it has until now.
func (a *Authority) lengthen() error {
	next := a.state
	next.Slots = slices.Clone(a.state.Slots)
	changed := false
	for i := range next.Slots {
		if s := &next.Slots[i]; s.Stage == Active && s.Leaf < a.policy.LeafTTL {
			s.Leaf, changed = a.policy.LeafTTL, true
		}
	}
	if !changed {
		return nil
	}
	return a.replace(next)
}

// adopt prepares the operator's certificate authority if no slot has it yet.
func (a *Authority) adopt() error {
	if a.cfg.CADir == "" {
		return nil
	}
	issuer, err := ca.LoadDir(a.cfg.CADir)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	text := string(ca.EncodeCerts(issuer.Cert.Raw))
	for _, s := range a.state.Slots {
		if s.Cert == text && s.Stage != Retiring {
			return nil
		}
	}
	return a.prepare(issuer)
}

// step applies the plan until it is empty.
func (a *Authority) step() (time.Duration, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		plan := compute(a.views(), a.policy, a.wanted, a.cfg.Now())
		if plan.Empty() {
			if plan.Next.IsZero() {
				return time.Hour, nil
			}
			return plan.Next.Sub(a.cfg.Now()), nil
		}
		if err := a.apply(plan); err != nil {
			return 0, err
		}
	}
}

func (a *Authority) views() []view {
	out := make([]view, 0, len(a.state.Slots))
	for _, s := range a.state.Slots {
		v := view{ID: s.ID, Stage: s.Stage, Since: s.Since, Leaf: s.Leaf}
		if certs, err := ca.ParseCerts([]byte(s.Cert)); err == nil {
			v.NotBefore, v.NotAfter = certs[0].NotBefore, certs[0].NotAfter
		}
		out = append(out, v)
	}
	return out
}

func (a *Authority) apply(p Plan) error {
	if p.Prepare {
		root, err := ca.NewRoot(a.cfg.TrustDomain, a.cfg.Now(), a.cfg.RootTTL)
		if err != nil {
			return err
		}
		if err := a.prepare(root); err != nil {
			return err
		}
		a.wanted = false
	}
	if p.Activate == "" && len(p.Remove) == 0 {
		return nil
	}
	next := a.state
	next.Slots = moved(a.state.Slots, p, a.policy, a.cfg.Now())
	a.cfg.Log.Info("certificate authority moves on", "plan", p.String())
	return a.replace(next)
}

// moved is the slots after activation and removal. A slot that retires loses its keys.
func moved(slots []record, p Plan, policy Policy, now time.Time) []record {
	var out []record
	for _, s := range slots {
		gone := false
		for _, id := range p.Remove {
			gone = gone || id == s.ID
		}
		switch {
		case gone:
			continue
		case s.ID == p.Activate:
			s.Stage, s.Since, s.Leaf = Active, now, policy.LeafTTL
		case p.Activate != "" && s.Stage == Active:
			s.Stage, s.Since, s.Key, s.JWTKey = Retiring, now, "", ""
		}
		out = append(out, s)
	}
	return out
}

func (a *Authority) prepare(issuer *ca.Issuer) error {
	next := a.state
	next.Last++
	id := fmt.Sprintf("slot-%d", next.Last)
	key, err := ca.NewKey()
	if err != nil {
		return fmt.Errorf("make JWT key: %w", err)
	}
	slot, err := encode(id, issuer, key, a.cfg.Now())
	if err != nil {
		return err
	}
	// An operator who changes files twice means the last.
	next.Slots = nil
	for _, s := range a.state.Slots {
		if s.Stage != Prepared {
			next.Slots = append(next.Slots, s)
		}
	}
	next.Slots = append(next.Slots, slot)
	return a.replace(next)
}

// replace saves the state first and then lets it count.
func (a *Authority) replace(next file) error {
	if err := save(a.path(), next); err != nil {
		return err
	}
	a.state = next
	return a.publish()
}

// publish derives bundle and signers from the state. Holding mu, or from New.
func (a *Authority) publish() error {
	var all parts
	for _, s := range a.state.Slots {
		if err := all.add(s); err != nil {
			return err
		}
	}
	b, err := bundle.New(a.cfg.TrustDomain, all.roots, all.jwt)
	if err != nil {
		return err
	}
	if a.bundle == nil {
		a.bundle = bundle.NewSource(b)
	} else {
		a.bundle.Set(b)
	}
	if all.active != nil && !same(a.active.Load(), all.active) {
		a.active.Store(all.active)
	}
	return nil
}

func same(x, y *signers) bool {
	return x != nil && x.slot == y.slot && bytes.Equal(x.x509.Cert.Raw, y.x509.Cert.Raw)
}
