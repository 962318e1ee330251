// Package export sends telemetry onward to another OTLP endpoint.
//
//	in:   OTLP requests as bytes
//	out:  the same, batched, to an OTLP/gRPC or OTLP/HTTP endpoint
//
// A batch is the concatenation of requests, which in protobuf is their union. The
// queue is bounded in bytes: when the endpoint is away for long, the oldest
// requests go first, are counted, and nobody who offers ever waits. What may be
// repeated is repeated with growing pauses, or the pause that the endpoint asks for.
package export

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xebec-mesh/xebec/mixer/otlp"
)

// Config says where to and how much.
type Config struct {
	// Endpoint is grpc://host:4317, grpcs://host:4317, http://host:4318 or
	// https://host:4318; a path of http is put before /v1/traces. Required.
	Endpoint string
	Headers  map[string]string // sent with every request; values are secrets
	TLS      *tls.Config       // nil: the system's roots
	Queue    int               // bytes waiting at most; default 16 MiB
	Batch    int               // bytes of one request at most, unless a single one is longer; default 1 MiB
	Interval time.Duration     // how long a request waits for company; default 1 s
	Timeout  time.Duration     // of one attempt; default 10 s
	GiveUp   time.Duration     // how long a batch is repeated; default 5 min
	Log      *slog.Logger
}

// Exporter owns one endpoint.
type Exporter struct {
	cfg    Config
	sender sender
	queues [4]queue
	wake   chan struct{}

	sent, failed, dropped atomic.Uint64 // requests
	trouble               atomic.Pointer[string]
}

// sender makes one attempt.
type sender interface {
	send(ctx context.Context, signal otlp.Signal, data []byte) error
	close() error
}

// temporary says that an attempt may be repeated.
type temporary struct {
	error
	after time.Duration // as the endpoint asks; 0 if it does not
}

func (t temporary) Unwrap() error { return t.error }

// queue is what waits of one signal.
type queue struct {
	mu    sync.Mutex
	items [][]byte
	bytes int
}

// New checks the configuration. It connects to nothing.
func New(cfg Config) (*Exporter, error) {
	cfg.defaults()
	e := &Exporter{cfg: cfg, wake: make(chan struct{}, 1)}
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("export endpoint %q: want grpc://, grpcs://, http:// or https:// and host:port", cfg.Endpoint)
	}
	switch u.Scheme {
	case "grpc", "grpcs":
		e.sender, err = newGRPC(u, cfg)
	case "http", "https":
		e.sender = newHTTP(u, cfg)
	default:
		err = fmt.Errorf("scheme %q is not accepted: use grpc, grpcs, http or https", u.Scheme)
	}
	if err != nil {
		return nil, fmt.Errorf("export endpoint %q: %w", cfg.Endpoint, err)
	}
	return e, nil
}

func (c *Config) defaults() {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	wait := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.Queue, 16<<20)
	def(&c.Batch, 1<<20)
	wait(&c.Interval, time.Second)
	wait(&c.Timeout, 10*time.Second)
	wait(&c.GiveUp, 5*time.Minute)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Offer copies a request into the queue. Where there is no room the oldest go.
func (e *Exporter) Offer(signal otlp.Signal, data []byte) {
	if len(data) == 0 {
		return
	}
	q := &e.queues[signal]
	q.mu.Lock()
	q.items = append(q.items, bytes.Clone(data))
	q.bytes += len(data)
	for q.bytes > e.cfg.Queue && len(q.items) > 1 {
		q.bytes -= len(q.items[0])
		q.items = q.items[1:]
		e.dropped.Add(1)
	}
	full := q.bytes >= e.cfg.Batch
	q.mu.Unlock()
	if full {
		select {
		case e.wake <- struct{}{}:
		default:
		}
	}
}

// take removes a batch from a queue; n is how many requests it is.
func (q *queue) take(limit int) (batch []byte, n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for n < len(q.items) && (n == 0 || len(batch)+len(q.items[n]) <= limit) {
		batch = append(batch, q.items[n]...)
		n++
	}
	q.items = q.items[n:]
	q.bytes -= len(batch)
	return batch, n
}

// Run sends until ctx ends, and then makes one attempt for what is left.
func (e *Exporter) Run(ctx context.Context) error {
	tick := time.NewTicker(e.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			e.flush(last)
			return e.sender.close()
		case <-tick.C:
		case <-e.wake:
		}
		e.flush(ctx)
	}
}

func (e *Exporter) flush(ctx context.Context) {
	for signal := otlp.Traces; signal <= otlp.Logs; signal++ {
		for {
			batch, n := e.queues[signal].take(e.cfg.Batch)
			if n == 0 {
				break
			}
			if err := e.deliver(ctx, signal, batch); err != nil {
				e.failed.Add(uint64(n))
				if e.trouble.Swap(text(err)) == nil {
					e.cfg.Log.Error("telemetry is not exported: check the endpoint", "endpoint", e.cfg.Endpoint, "signal", signal.String(), "err", err)
				}
				continue
			}
			e.sent.Add(uint64(n))
			if e.trouble.Swap(nil) != nil {
				e.cfg.Log.Info("telemetry is exported again", "endpoint", e.cfg.Endpoint)
			}
		}
	}
}

func text(err error) *string {
	s := err.Error()
	return &s
}

// deliver repeats an attempt as long as that may help.
func (e *Exporter) deliver(ctx context.Context, signal otlp.Signal, batch []byte) error {
	until := time.Now().Add(e.cfg.GiveUp)
	pause := 100 * time.Millisecond
	for {
		attempt, cancel := context.WithTimeout(ctx, e.cfg.Timeout)
		err := e.sender.send(attempt, signal, batch)
		cancel()
		var again temporary
		if err == nil || !errors.As(err, &again) {
			return err
		}
		wait := max(again.after, pause/2+rand.N(pause/2))
		pause = min(2*pause, 30*time.Second)
		if time.Now().Add(wait).After(until) {
			return fmt.Errorf("gave up after %s: %w", e.cfg.GiveUp, err)
		}
		e.trouble.CompareAndSwap(nil, text(err))
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// Health is what a person should know; nil if all is well.
func (e *Exporter) Health() error {
	if t := e.trouble.Load(); t != nil {
		return fmt.Errorf("export to %s: %s", e.cfg.Endpoint, *t)
	}
	return nil
}

// WriteMetrics writes the counters in the Prometheus text format.
func (e *Exporter) WriteMetrics(w io.Writer) error {
	waiting := 0
	for i := range e.queues {
		e.queues[i].mu.Lock()
		waiting += e.queues[i].bytes
		e.queues[i].mu.Unlock()
	}
	endpoint := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(e.cfg.Endpoint)
	_, err := fmt.Fprintf(w, `# HELP mixer_export_requests_total Requests by what became of them.
# TYPE mixer_export_requests_total counter
mixer_export_requests_total{endpoint="%[1]s",outcome="sent"} %[2]d
mixer_export_requests_total{endpoint="%[1]s",outcome="failed"} %[3]d
mixer_export_requests_total{endpoint="%[1]s",outcome="dropped"} %[4]d
# HELP mixer_export_queue_bytes Bytes that wait for the endpoint.
# TYPE mixer_export_queue_bytes gauge
mixer_export_queue_bytes{endpoint="%[1]s"} %[5]d
`, endpoint, e.sent.Load(), e.failed.Load(), e.dropped.Load(), waiting)
	return err
}
