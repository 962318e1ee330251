// Package metrics counts requests between workloads.
//
//	in:   observations: who called whom, what came of it, how long it took
//	out:  Istio's standard metrics in the Prometheus text format; what happened within a recent window
//
// Each distinct Labels is a series: totals since it was first seen, and points of
// Step for the last Keep. A series that was silent for Keep is forgotten. There are
// at most MaxSeries; observations beyond are counted and dropped, so that no
// sender can fill memory.
package metrics

import (
	"sync"
	"sync/atomic"
	"time"
)

// Labels are Istio's standard labels.
//
// https://istio.io/latest/docs/reference/config/metrics/
type Labels struct {
	Reporter string // source or destination

	SourceWorkload, SourceNamespace, SourceApp, SourceVersion, SourcePrincipal string

	DestinationWorkload, DestinationNamespace, DestinationApp, DestinationVersion, DestinationPrincipal string

	Service, ServiceName, ServiceNamespace string // the host that was called

	Protocol string // http, grpc or tcp
	Code     string // HTTP response code, 0 if there was none; "" for tcp
	GRPC     string // gRPC status; "" unless grpc
	Flags    string // Envoy's response flags, "-" for none
	Security string // mutual_tls, none or unknown
}

// Failed reports whether the call failed for the caller through the callee's or
// the network's fault: no answer, or a status of 500 and above; for gRPC the
// statuses that mean the same.
func (l Labels) Failed() bool {
	if l.Protocol == "tcp" {
		return l.Flags != "-" && l.Flags != ""
	}
	if l.Code == "0" || l.Code == "" || l.Code[0] == '5' {
		return true
	}
	switch l.GRPC {
	case "2", "4", "8", "12", "13", "14", "15": // unknown, deadline, exhausted, unimplemented, internal, unavailable, data loss
		return true
	}
	return false
}

// Observation is one finished request or connection.
type Observation struct {
	At            time.Time
	Duration      time.Duration
	Received      uint64 // bytes of the request
	Sent          uint64 // bytes of the response
	DurationKnown bool
}

// Config says how much a Store keeps.
type Config struct {
	Step      time.Duration // of a point; default 5 s
	Keep      time.Duration // default 1 h
	MaxSeries int           // default 10,000
	Now       func() time.Time
}

// Store holds the series.
type Store struct {
	cfg Config

	mu     sync.Mutex
	series map[Labels]*series

	dropped atomic.Uint64
}

// series is one Labels' counts.
type series struct {
	count          uint64
	sent, received uint64
	duration       distribution
	request        distribution
	response       distribution
	points         []point // oldest first; a step without observations has none
}

// point is what happened within one step.
type point struct {
	step     int64 // number of steps since 1970
	count    uint32
	sent     uint64
	received uint64
	hist     Histogram
}

// New returns an empty store.
func New(cfg Config) *Store {
	if cfg.Step == 0 {
		cfg.Step = 5 * time.Second
	}
	if cfg.Keep == 0 {
		cfg.Keep = time.Hour
	}
	if cfg.MaxSeries == 0 {
		cfg.MaxSeries = 10000
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Store{cfg: cfg, series: map[Labels]*series{}}
}

// Observe counts. An observation counts when it arrives: clocks elsewhere do not
// move it.
func (s *Store) Observe(l Labels, o Observation) {
	step := s.step(s.cfg.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.series[l]
	if r == nil {
		if len(s.series) >= s.cfg.MaxSeries {
			s.prune(step)
		}
		if len(s.series) >= s.cfg.MaxSeries {
			s.dropped.Add(1)
			return
		}
		r = &series{}
		s.series[l] = r
	}
	r.observe(step, o, s.keep())
}

func (s *Store) step(t time.Time) int64 { return t.UnixNano() / int64(s.cfg.Step) }
func (s *Store) keep() int64            { return int64(s.cfg.Keep / s.cfg.Step) }

func (r *series) observe(step int64, o Observation, keep int64) {
	r.count++
	r.sent += o.Sent
	r.received += o.Received
	r.request.add(float64(o.Received))
	r.response.add(float64(o.Sent))
	if n := len(r.points); n == 0 || r.points[n-1].step < step {
		for len(r.points) > 0 && r.points[0].step <= step-keep {
			r.points = r.points[1:]
		}
		r.points = append(r.points, point{step: step})
	}
	p := &r.points[len(r.points)-1]
	p.count++
	p.sent += o.Sent
	p.received += o.Received
	if o.DurationKnown {
		r.duration.add(float64(o.Duration) / float64(time.Millisecond))
		p.hist.Add(o.Duration)
	}
}

// prune forgets what has been silent for Keep.
func (s *Store) prune(step int64) {
	for l, r := range s.series {
		if n := len(r.points); n == 0 || r.points[n-1].step <= step-s.keep() {
			delete(s.series, l)
		}
	}
}

// Window is what happened to one series within some time.
type Window struct {
	Labels
	Count          uint64
	Sent, Received uint64
	Durations      Histogram
}

// Window sums what happened from a time on, in whole steps.
func (s *Store) Window(from, to time.Time) []Window {
	first, last := s.step(from), s.step(to)
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Window
	for l, r := range s.series {
		w := Window{Labels: l}
		for i := len(r.points) - 1; i >= 0 && r.points[i].step >= first; i-- {
			if p := &r.points[i]; p.step <= last {
				w.Count += uint64(p.count)
				w.Sent += p.sent
				w.Received += p.received
				w.Durations.Merge(p.hist)
			}
		}
		if w.Count > 0 {
			out = append(out, w)
		}
	}
	return out
}

// Sample is one step of what a selection of series did.
type Sample struct {
	At       time.Time
	Count    uint64
	Failed   uint64
	P50, P99 time.Duration
}

// Range returns the steps from a time on of all series that match, oldest first,
// those without observations included, merged into points of width.
func (s *Store) Range(from, to time.Time, width time.Duration, match func(Labels) bool) []Sample {
	per := max(int64(width/s.cfg.Step), 1)
	first, last := s.step(from)/per, s.step(to)/per
	if last < first || last-first > 10000 {
		return nil
	}
	out := make([]Sample, last-first+1)
	hists := make([]Histogram, len(out))
	for i := range out {
		out[i].At = time.Unix(0, (first+int64(i))*per*int64(s.cfg.Step))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for l, r := range s.series {
		if !match(l) {
			continue
		}
		for i := range r.points {
			p := &r.points[i]
			at := p.step/per - first
			if at < 0 || at >= int64(len(out)) {
				continue
			}
			out[at].Count += uint64(p.count)
			if l.Failed() {
				out[at].Failed += uint64(p.count)
			}
			hists[at].Merge(p.hist)
		}
	}
	for i := range out {
		out[i].P50, out[i].P99 = hists[i].Quantile(0.5), hists[i].Quantile(0.99)
	}
	return out
}

// Now is the store's clock.
func (s *Store) Now() time.Time { return s.cfg.Now() }

// Tend forgets silent series. Call it now and then.
func (s *Store) Tend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prune(s.step(s.cfg.Now()))
}
