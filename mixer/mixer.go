// Package mixer is telemetry: it puts receivers, stores, queries, export and the
// dashboard together for cmd.
//
//	in:   OTLP from pods' sockets and from ports; pods from the API
//	out:  traces and request metrics to ask for, on a page, in a terminal, or sent onward
//
// Nothing here may harm what it watches: memory, disk, queues and series are
// bounded, what does not fit is counted, and Health says so.
package mixer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/xebec-mesh/xebec/mixer/accesslog"
	"github.com/xebec-mesh/xebec/mixer/dashboard"
	"github.com/xebec-mesh/xebec/mixer/enrich"
	"github.com/xebec-mesh/xebec/mixer/export"
	"github.com/xebec-mesh/xebec/mixer/metrics"
	"github.com/xebec-mesh/xebec/mixer/otlp"
	"github.com/xebec-mesh/xebec/mixer/pipeline"
	"github.com/xebec-mesh/xebec/mixer/query"
	"github.com/xebec-mesh/xebec/mixer/traces"
	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// Config says what a Mixer is made of.
type Config struct {
	Client      client.Interface // required
	Dir         string           // of the trace store; required
	TrustDomain string           // default cluster.local

	GRPC []string // addresses of OTLP/gRPC for those without a socket; default none
	HTTP []string // addresses of OTLP/HTTP; default none

	TraceAge   time.Duration // default 72 h
	TraceBytes int64         // default 1 GiB
	Export     []export.Config

	Dashboard dashboard.Config // Listen "" for none; API and Log are filled in
	Log       *slog.Logger
}

// Mixer is the telemetry of one node.
type Mixer struct {
	cfg       Config
	directory *enrich.Directory
	traces    *traces.Store
	metrics   *metrics.Store
	receiver  *otlp.Receiver
	exporters []*export.Exporter
	api       *query.API
	page      *dashboard.Dashboard

	mu     sync.Mutex
	closed map[string]error // what does not listen, and why
}

// New opens the stores. It starts nothing.
func New(cfg Config) (*Mixer, error) {
	if cfg.Client == nil || cfg.Dir == "" {
		return nil, errors.New("mixer: Client and Dir are required")
	}
	if cfg.TrustDomain == "" {
		cfg.TrustDomain = "cluster.local"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	m := &Mixer{cfg: cfg, metrics: metrics.New(metrics.Config{}), directory: enrich.NewDirectory(cfg.Client), closed: map[string]error{}}
	var err error
	if m.traces, err = traces.New(traces.Config{
		Dir: filepath.Join(cfg.Dir, "traces"), MaxAge: cfg.TraceAge, MaxBytes: cfg.TraceBytes, Log: cfg.Log,
	}); err != nil {
		return nil, err
	}
	if err := m.pipe(); err != nil {
		return nil, err
	}
	if m.api, err = query.New(query.Config{
		Traces: m.traces, Metrics: m.metrics, Workloads: m.directory.Workloads, Health: m.Health,
	}); err != nil {
		return nil, err
	}
	cfg.Dashboard.API, cfg.Dashboard.Log = m.api, cfg.Log
	if m.page, err = dashboard.New(cfg.Dashboard); err != nil {
		return nil, err
	}
	return m, nil
}

// pipe makes the way from the receiver to the stores.
func (m *Mixer) pipe() error {
	logs, err := accesslog.New(accesslog.Config{Peers: m.directory, Sink: m.metrics, TrustDomain: m.cfg.TrustDomain})
	if err != nil {
		return err
	}
	pipe := pipeline.Config{Spans: m.traces, AccessLogs: logs}
	for _, c := range m.cfg.Export {
		c.Log = m.cfg.Log
		e, err := export.New(c)
		if err != nil {
			return err
		}
		m.exporters = append(m.exporters, e)
		pipe.Exporters = append(pipe.Exporters, e)
	}
	p, err := pipeline.New(pipe)
	if err != nil {
		return err
	}
	m.receiver, err = otlp.New(otlp.Config{Consumer: p, Directory: m.directory, Log: m.cfg.Log})
	return err
}

// Receiver takes OTLP: Receiver().For(pod).Register(server) on a pod's socket.
func (m *Mixer) Receiver() *otlp.Receiver { return m.receiver }

// API answers below /telemetry/. It asks nobody who they are.
func (m *Mixer) API() http.Handler { return m.api }

// Dashboard is the page, behind its own login.
func (m *Mixer) Dashboard() *dashboard.Dashboard { return m.page }

// Run receives, stores, exports and serves until ctx ends.
func (m *Mixer) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.traces.Run(ctx) })
	g.Go(func() error { return m.tend(ctx) })
	for _, e := range m.exporters {
		g.Go(func() error { return e.Run(ctx) })
	}
	g.Go(func() error { return m.Serve(ctx, m.cfg.GRPC, m.cfg.HTTP) })
	g.Go(func() error { return m.keep(ctx, "the dashboard", func() error { return m.page.Run(ctx) }) })
	if err := g.Wait(); err != nil {
		return fmt.Errorf("mixer: %w", err)
	}
	return nil
}

// Serve receives OTLP on further addresses until ctx ends: those that are known only
// when the node has its network.
func (m *Mixer) Serve(ctx context.Context, grpcAddrs, httpAddrs []string) error {
	var wg sync.WaitGroup
	for _, addr := range grpcAddrs {
		wg.Go(func() {
			_ = m.keep(ctx, "OTLP/gRPC on "+addr, func() error { return m.serveGRPC(ctx, addr) })
		})
	}
	for _, addr := range httpAddrs {
		wg.Go(func() {
			_ = m.keep(ctx, "OTLP/HTTP on "+addr, func() error { return m.serveHTTP(ctx, addr) })
		})
	}
	<-ctx.Done()
	wg.Wait()
	return nil
}

// keep serves until ctx ends. An address that somebody else has is tried again and
// again: a cluster does not stop because nobody can watch it.
func (m *Mixer) keep(ctx context.Context, what string, serve func() error) error {
	told := false
	for {
		begun := time.Now()
		err := serve()
		if ctx.Err() != nil || err == nil {
			return nil
		}
		if !told || time.Since(begun) > again {
			m.cfg.Log.Error("telemetry does not listen: free the address or choose another", "what", what, "err", err)
		}
		told = true
		m.setClosed(what, err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(again):
		}
		m.setClosed(what, nil)
	}
}

// again is how long to wait before an address is tried again.
const again = 5 * time.Second

func (m *Mixer) setClosed(what string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		delete(m.closed, what)
		return
	}
	m.closed[what] = err
}

// tend forgets what is silent.
func (m *Mixer) tend(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			m.metrics.Tend()
		}
	}
}

func (m *Mixer) serveGRPC(ctx context.Context, addr string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for OTLP/gRPC: %w", err)
	}
	s := grpc.NewServer(grpc.MaxRecvMsgSize(16 << 20))
	m.receiver.Anybody().Register(s)
	defer context.AfterFunc(ctx, s.Stop)()
	if err := s.Serve(l); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

func (m *Mixer) serveHTTP(ctx context.Context, addr string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for OTLP/HTTP: %w", err)
	}
	s := &http.Server{Handler: m.receiver.Handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Health is what is wrong now, in words for a person.
func (m *Mixer) Health() []error {
	var out []error
	if err := m.traces.Health(); err != nil {
		out = append(out, err)
	}
	for _, e := range m.exporters {
		if err := e.Health(); err != nil {
			out = append(out, err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, what := range slices.Sorted(maps.Keys(m.closed)) {
		out = append(out, fmt.Errorf("%s does not listen: %w", what, m.closed[what]))
	}
	return out
}

// WriteMetrics writes request metrics and mixer's own in the Prometheus text format.
func (m *Mixer) WriteMetrics(w io.Writer) error {
	err := errors.Join(m.metrics.WriteMetrics(w), m.traces.WriteMetrics(w), m.receiver.WriteMetrics(w))
	for _, e := range m.exporters {
		err = errors.Join(err, e.WriteMetrics(w))
	}
	return err
}
