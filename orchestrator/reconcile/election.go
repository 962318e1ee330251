package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// ElectionConfig says what only one server may run at a time.
type ElectionConfig struct {
	Client    client.Interface
	Namespace string // of the Lease; default kube-system
	Name      string // of the Lease

	// Identity is this server. It must differ between servers and stay the same
	// when one restarts: a restarted server takes its own lease back at once
	// instead of waiting for it to expire.
	Identity string

	// Run is called with a context that ends when leadership is lost.
	Run func(ctx context.Context) error

	LeaseDuration time.Duration // others wait this long after the last renewal; default 15 s
	RenewDeadline time.Duration // the leader gives up after failing this long; default 10 s
	RetryPeriod   time.Duration // between attempts; default 2 s
	Log           *slog.Logger
}

// Election runs a function on one server of many, by a Lease.
//
//	waiting ──lease free, expired or ours──▶ leading ──not renewed in time──▶ waiting
//
// Invariant: Run's context ends before another server may think itself leader,
// as RenewDeadline is shorter than LeaseDuration.
type Election struct {
	cfg    ElectionConfig
	leases client.Typed[*coordinationv1.Lease]

	// What another leader was last seen to say, and when by our own clock: two
	// servers' clocks are never compared.
	observed   *coordinationv1.Lease
	observedAt time.Time
}

// NewElection checks the configuration.
func NewElection(cfg ElectionConfig) (*Election, error) {
	if cfg.Client == nil || cfg.Name == "" || cfg.Identity == "" || cfg.Run == nil {
		return nil, fmt.Errorf("election %q: client, name, identity and run are required", cfg.Name)
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&cfg.LeaseDuration, 15*time.Second)
	def(&cfg.RenewDeadline, 10*time.Second)
	def(&cfg.RetryPeriod, 2*time.Second)
	if cfg.RenewDeadline >= cfg.LeaseDuration {
		return nil, fmt.Errorf("election %s: renew deadline %s must be shorter than the lease's %s", cfg.Name, cfg.RenewDeadline, cfg.LeaseDuration)
	}
	if cfg.Namespace == "" {
		cfg.Namespace = metav1.NamespaceSystem
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Election{cfg: cfg, leases: client.For(cfg.Client, client.Leases)}, nil
}

// Leader is NewElection and Run.
func Leader(ctx context.Context, cfg ElectionConfig) error {
	e, err := NewElection(cfg)
	if err != nil {
		return err
	}
	return e.Run(ctx)
}

// Run competes for the lease until ctx ends, or Run of the configuration returns
// by itself. When ctx ends it gives the lease up, so that another server need not wait.
func (e *Election) Run(ctx context.Context) error {
	for {
		err := e.acquire(ctx)
		if err != nil {
			return err
		}
		e.cfg.Log.Info("leading", "lease", e.cfg.Name, "identity", e.cfg.Identity)
		err = e.lead(ctx)
		if ctx.Err() != nil {
			e.release(context.WithoutCancel(ctx))
			return ctx.Err()
		}
		if !errors.Is(err, errLost) {
			return err
		}
		e.cfg.Log.Warn("leadership lost", "lease", e.cfg.Name, "identity", e.cfg.Identity)
	}
}

var errLost = errors.New("leadership lost")

// acquire returns when the lease is ours.
func (e *Election) acquire(ctx context.Context) error {
	for {
		held, err := e.try(ctx)
		if held {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			e.cfg.Log.Warn("acquire lease", "lease", e.cfg.Name, "err", err)
		}
		if err := sleep(ctx, e.cfg.RetryPeriod); err != nil {
			return err
		}
	}
}

// lead runs the function and renews the lease beside it.
func (e *Election) lead(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	renewing := make(chan struct{})
	go func() {
		defer close(renewing)
		if e.renew(ctx) != nil {
			cancel(errLost)
		}
	}()
	err := e.cfg.Run(ctx)
	if context.Cause(ctx) == errLost {
		err = errLost
	}
	cancel(nil)
	<-renewing
	return err
}

// renew returns errLost when the lease could not be renewed in time, nil with ctx.
func (e *Election) renew(ctx context.Context) error {
	last := time.Now()
	for {
		if sleep(ctx, e.cfg.RetryPeriod) != nil {
			return nil
		}
		attempt, cancel := context.WithDeadline(ctx, last.Add(e.cfg.RenewDeadline))
		start := time.Now()
		held, err := e.try(attempt)
		cancel()
		switch {
		case held:
			last = start
		case ctx.Err() != nil:
			return nil
		case err == nil, time.Since(last) >= e.cfg.RenewDeadline:
			return errLost
		}
	}
}

// try takes or renews the lease if it may.
func (e *Election) try(ctx context.Context) (held bool, err error) {
	now := metav1.NowMicro()
	lease, err := e.leases.Get(ctx, e.cfg.Namespace, e.cfg.Name)
	if apierrors.IsNotFound(err) {
		lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: e.cfg.Namespace, Name: e.cfg.Name}}
		lease.Spec = e.claim(lease.Spec, now)
		_, err = e.leases.Create(ctx, lease)
		return err == nil, err
	}
	if err != nil {
		return false, err
	}
	if !e.mayTake(lease, now.Time) {
		return false, nil
	}
	lease = lease.DeepCopy()
	lease.Spec = e.claim(lease.Spec, now)
	_, err = e.leases.Update(ctx, lease)
	return err == nil, err
}

func (e *Election) mayTake(lease *coordinationv1.Lease, now time.Time) bool {
	holder := ""
	if lease.Spec.HolderIdentity != nil {
		holder = *lease.Spec.HolderIdentity
	}
	if holder == "" || holder == e.cfg.Identity {
		return true
	}
	if e.observed == nil || e.observed.ResourceVersion != lease.ResourceVersion {
		e.observed, e.observedAt = lease, now
	}
	ttl := e.cfg.LeaseDuration
	if s := lease.Spec.LeaseDurationSeconds; s != nil {
		ttl = time.Duration(*s) * time.Second
	}
	return now.Sub(e.observedAt) >= ttl
}

// claim is the lease's content when it is ours.
func (e *Election) claim(was coordinationv1.LeaseSpec, now metav1.MicroTime) coordinationv1.LeaseSpec {
	seconds := int32(e.cfg.LeaseDuration / time.Second)
	transitions, acquired := int32(0), &now
	if was.LeaseTransitions != nil {
		transitions = *was.LeaseTransitions
	}
	if was.HolderIdentity != nil && *was.HolderIdentity == e.cfg.Identity && was.AcquireTime != nil {
		acquired = was.AcquireTime
	} else if was.HolderIdentity != nil {
		transitions++
	}
	was.HolderIdentity, was.LeaseDurationSeconds = &e.cfg.Identity, &seconds
	was.AcquireTime, was.RenewTime, was.LeaseTransitions = acquired, &now, &transitions
	return was
}

// release lets the next server lead at once.
func (e *Election) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.RetryPeriod)
	defer cancel()
	lease, err := e.leases.Get(ctx, e.cfg.Namespace, e.cfg.Name)
	if err != nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity != e.cfg.Identity {
		return
	}
	lease = lease.DeepCopy()
	none, second := "", int32(1)
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds = &none, &second
	if _, err := e.leases.Update(ctx, lease); err != nil {
		e.cfg.Log.Info("release lease", "lease", e.cfg.Name, "err", err)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
