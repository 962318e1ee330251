// Package probe asks containers how they are.
//
//	in:   containers that run, with their startup, readiness and liveness probes
//	out:  changes of the answers: started, ready, failed
//
// Each probe of each container is one goroutine with one timer. HTTP, TCP and gRPC
// probes are dialled inside the pod's network namespace, from 127.0.0.6 to the
// pod's address: so they arrive at the application itself, sidecar or not, STRICT
// or not, and leave by no route that others could use.
package probe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Kind is which of a container's probes.
type Kind string

const (
	Startup   Kind = "Startup"
	Readiness Kind = "Readiness"
	Liveness  Kind = "Liveness"
)

// Target is a container to be probed.
type Target struct {
	Pod       *corev1.Pod
	Container *corev1.Container
	NetNS     string // of the pod; "" is the host's
	IP        netip.Addr
	StartedAt time.Time

	// What was known before, of a container that was adopted.
	Started, Ready bool

	// Exec runs a command in the container; a non-zero exit is (code, output, nil).
	Exec func(ctx context.Context, command []string) (code int, output string, err error)
}

// Result is a change that a probe has found.
type Result struct {
	Kind    Kind
	OK      bool
	Message string // why not
}

// Config is what a Prober works with.
type Config struct {
	// Failed is told of every failed attempt, for Events.
	Failed func(t Target, kind Kind, message string)
	Log    *slog.Logger
}

// Prober probes containers.
type Prober struct{ cfg Config }

// New checks the configuration.
func New(cfg Config) (*Prober, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Failed == nil {
		cfg.Failed = func(Target, Kind, string) {}
	}
	return &Prober{cfg: cfg}, nil
}

// Watch probes a container until ctx ends, and reports changes: Startup OK once;
// Startup or Liveness not OK when the container should be stopped; Readiness both
// ways. It reports at once for probes that the container does not have.
func (p *Prober) Watch(ctx context.Context, t Target, report func(Result)) {
	go func() {
		if !t.Started && t.Container.StartupProbe != nil {
			if !p.startup(ctx, t, report) {
				return
			}
		}
		report(Result{Kind: Startup, OK: true})
		if t.Container.LivenessProbe != nil {
			go p.repeat(ctx, t, Liveness, t.Container.LivenessProbe, true, report)
		}
		if t.Container.ReadinessProbe == nil {
			report(Result{Kind: Readiness, OK: true})
			return
		}
		p.repeat(ctx, t, Readiness, t.Container.ReadinessProbe, t.Ready, report)
	}()
}

// startup returns true when the probe has passed.
func (p *Prober) startup(ctx context.Context, t Target, report func(Result)) bool {
	passed := false
	within, stop := context.WithCancel(ctx)
	defer stop()
	p.repeat(within, t, Startup, t.Container.StartupProbe, false, func(r Result) {
		passed = r.OK
		if !r.OK {
			report(r)
		}
		stop()
	})
	return passed && ctx.Err() == nil
}

// repeat runs one probe by its period and reports when its answer changes. A probe
// that begins as OK reports failure first, one that begins as not OK success.
func (p *Prober) repeat(ctx context.Context, t Target, kind Kind, spec *corev1.Probe, ok bool, report func(Result)) {
	s := series{ok: ok, success: max(1, int(spec.SuccessThreshold)), failure: max(1, int(spec.FailureThreshold))}
	period := seconds(spec.PeriodSeconds, 10)
	due := t.StartedAt.Add(time.Duration(spec.InitialDelaySeconds) * time.Second)
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		err := p.once(ctx, t, spec)
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		extra := now.Before(due) // asked before its time: a failure does not count
		if !extra {
			due = now.Add(period)
		}
		if err == nil || !extra {
			p.answer(t, kind, &s, err, report)
		}
		timer.Reset(time.Until(due))
		if !s.ok && kind != Liveness && t.fresh() {
			timer.Reset(min(time.Until(due), eager(now.Sub(t.StartedAt))))
		}
	}
}

// answer applies one answer and reports if the series' own has changed.
func (p *Prober) answer(t Target, kind Kind, s *series, err error, report func(Result)) {
	message := ""
	if err != nil {
		message = err.Error()
		p.cfg.Failed(t, kind, message)
	}
	if s.add(err == nil) || (kind == Startup && s.failures >= s.failure) {
		report(Result{Kind: kind, OK: s.ok, Message: message})
	}
}

// fresh containers are asked more often than by their period until they first
// answer: a pod that is ready in 20 ms is not made to wait for a second.
func (t Target) fresh() bool { return time.Since(t.StartedAt) < 10*time.Second }

func eager(age time.Duration) time.Duration {
	return max(10*time.Millisecond, age/4)
}

func seconds(n int32, otherwise int32) time.Duration {
	if n <= 0 {
		n = otherwise
	}
	return time.Duration(n) * time.Second
}

// series applies the thresholds to a probe's answers.
type series struct {
	ok                  bool
	success, failure    int // thresholds
	successes, failures int // in a row
}

// add takes one answer and says whether the series' own has changed.
func (s *series) add(ok bool) bool {
	if ok {
		s.successes, s.failures = s.successes+1, 0
	} else {
		s.successes, s.failures = 0, s.failures+1
	}
	if s.ok && s.failures >= s.failure || !s.ok && s.successes >= s.success {
		s.ok = !s.ok
		return true
	}
	return false
}

func (p *Prober) once(ctx context.Context, t Target, spec *corev1.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, seconds(spec.TimeoutSeconds, 1))
	defer cancel()
	err := p.handle(ctx, t, spec.ProbeHandler)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s: %w", seconds(spec.TimeoutSeconds, 1), err)
	}
	return err
}

func (p *Prober) handle(ctx context.Context, t Target, h corev1.ProbeHandler) error {
	switch {
	case h.Exec != nil:
		code, out, err := t.Exec(ctx, h.Exec.Command)
		if err == nil && code != 0 {
			err = fmt.Errorf("command exits with %d: %s", code, out)
		}
		return err
	case h.HTTPGet != nil:
		return HTTPGet(ctx, t, h.HTTPGet)
	case h.TCPSocket != nil:
		return tcp(ctx, t, h.TCPSocket)
	case h.GRPC != nil:
		return grpcHealth(ctx, t, h.GRPC)
	}
	return errors.New("the probe names no action")
}
