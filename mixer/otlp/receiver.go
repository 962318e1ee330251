// Package otlp receives OpenTelemetry's traces, metrics and logs.
//
//	in:   OTLP/gRPC on pods' sockets and on a port; OTLP/HTTP, protobuf and JSON, on a port
//	out:  requests as protobuf bytes, with the workload that sent them, to a consumer
//
// A request is answered when the consumer has it: an acknowledged span is not in
// some queue. The bytes that are being processed at a time are bounded; beyond that
// senders are told to try again, in the way that OTLP has for it. A workload is
// known by its socket or its source address; what it says of itself is not believed.
//
// https://opentelemetry.io/docs/specs/otlp/
package otlp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	logspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // senders may compress
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/mixer/enrich"
)

// Consumer takes requests. data is valid during the call. An error means that the
// request is malformed, or ErrBusy.
type Consumer interface {
	Consume(ctx context.Context, signal Signal, data []byte, from *enrich.Workload) (Outcome, error)
}

// Directory knows workloads; *enrich.Directory does.
type Directory interface {
	ByIP(netip.Addr) *enrich.Workload
	Current(*corev1.Pod) *enrich.Workload
}

// Config says what a Receiver needs.
type Config struct {
	Consumer    Consumer  // required
	Directory   Directory // required
	MaxInFlight int64     // bytes being processed at a time; default 64 MiB
	MaxRequest  int64     // bytes of one HTTP request, uncompressed; default 16 MiB
	RetryAfter  time.Duration
	Log         *slog.Logger
}

// Receiver receives from any number of pods and ports.
type Receiver struct {
	cfg      Config
	inFlight atomic.Int64
	taken    [4]atomic.Uint64 // requests by signal
	refused  [4]atomic.Uint64 // told to try again
	broken   [4]atomic.Uint64 // malformed
	rejected [4]atomic.Uint64 // items
}

// New checks the configuration.
func New(cfg Config) (*Receiver, error) {
	if cfg.Consumer == nil || cfg.Directory == nil {
		return nil, errors.New("otlp receiver: Consumer and Directory are required")
	}
	if cfg.MaxInFlight == 0 {
		cfg.MaxInFlight = 64 << 20
	}
	if cfg.MaxRequest == 0 {
		cfg.MaxRequest = 16 << 20
	}
	if cfg.RetryAfter == 0 {
		cfg.RetryAfter = time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Receiver{cfg: cfg}, nil
}

// For is the receiver as one pod sees it on its own socket.
func (r *Receiver) For(pod *corev1.Pod) *Source {
	return &Source{receiver: r, who: func(context.Context) *enrich.Workload { return r.cfg.Directory.Current(pod) }}
}

// Anybody is the receiver as those see it who are known by their address.
func (r *Receiver) Anybody() *Source {
	return &Source{receiver: r, who: func(ctx context.Context) *enrich.Workload {
		if p, ok := peer.FromContext(ctx); ok {
			return r.byAddr(p.Addr)
		}
		return nil
	}}
}

func (r *Receiver) byAddr(a net.Addr) *enrich.Workload {
	if t, ok := a.(*net.TCPAddr); ok {
		return r.cfg.Directory.ByIP(t.AddrPort().Addr())
	}
	return nil
}

// Source is a receiver that knows who is speaking.
type Source struct {
	receiver *Receiver
	who      func(context.Context) *enrich.Workload
}

// Register adds OTLP's three services to a gRPC server.
func (s *Source) Register(reg grpc.ServiceRegistrar) {
	reg.RegisterService(service(Traces, "opentelemetry.proto.collector.trace.v1.TraceService"), s)
	reg.RegisterService(service(Metrics, "opentelemetry.proto.collector.metrics.v1.MetricsService"), s)
	reg.RegisterService(service(Logs, "opentelemetry.proto.collector.logs.v1.LogsService"), s)
}

// service describes one of OTLP's services with a request that stays bytes.
func service(signal Signal, name string) *grpc.ServiceDesc {
	return &grpc.ServiceDesc{ServiceName: name, HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Export",
		Handler: func(srv any, ctx context.Context, dec func(any) error, through grpc.UnaryServerInterceptor) (any, error) {
			in := rawPool.Get().(*raw)
			defer in.free()
			if err := dec(in); err != nil {
				return nil, err
			}
			handle := func(ctx context.Context, req any) (any, error) {
				return srv.(*Source).export(ctx, signal, req.(*raw).data)
			}
			if through == nil {
				return handle(ctx, in)
			}
			return through(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + name + "/Export"}, handle)
		},
	}}}
}

func (s *Source) export(ctx context.Context, signal Signal, data []byte) (proto.Message, error) {
	out, err := s.receiver.take(ctx, signal, data, s.who(ctx))
	switch {
	case errors.Is(err, ErrBusy):
		st, detailErr := status.New(codes.Unavailable, err.Error()).WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(s.receiver.cfg.RetryAfter)})
		if detailErr != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
		return nil, st.Err()
	case err != nil:
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return response(signal, out), nil
}

// take passes a request to the consumer, if there is room.
func (r *Receiver) take(ctx context.Context, signal Signal, data []byte, from *enrich.Workload) (Outcome, error) {
	n := int64(len(data))
	defer r.inFlight.Add(-n)
	if now := r.inFlight.Add(n); now > r.cfg.MaxInFlight && now != n {
		r.refused[signal].Add(1)
		return Outcome{}, ErrBusy
	}
	out, err := r.cfg.Consumer.Consume(ctx, signal, data, from)
	switch {
	case errors.Is(err, ErrBusy):
		r.refused[signal].Add(1)
	case err != nil:
		r.broken[signal].Add(1)
		return out, fmt.Errorf("export %s: %w", signal, err)
	default:
		r.taken[signal].Add(1)
		r.rejected[signal].Add(uint64(out.Rejected))
	}
	return out, err
}

// response tells the sender what was not taken.
func response(signal Signal, out Outcome) proto.Message {
	partial := out.Rejected > 0 || out.Message != ""
	switch signal {
	case Traces:
		m := &tracepb.ExportTraceServiceResponse{}
		if partial {
			m.PartialSuccess = &tracepb.ExportTracePartialSuccess{RejectedSpans: int64(out.Rejected), ErrorMessage: out.Message}
		}
		return m
	case Metrics:
		m := &metricspb.ExportMetricsServiceResponse{}
		if partial {
			m.PartialSuccess = &metricspb.ExportMetricsPartialSuccess{RejectedDataPoints: int64(out.Rejected), ErrorMessage: out.Message}
		}
		return m
	default:
		m := &logspb.ExportLogsServiceResponse{}
		if partial {
			m.PartialSuccess = &logspb.ExportLogsPartialSuccess{RejectedLogRecords: int64(out.Rejected), ErrorMessage: out.Message}
		}
		return m
	}
}

// WriteMetrics writes the counters in the Prometheus text format.
func (r *Receiver) WriteMetrics(w io.Writer) error {
	var err error
	for _, m := range []struct {
		name, help string
		values     *[4]atomic.Uint64
	}{
		{"mixer_otlp_requests_total", "OTLP requests taken.", &r.taken},
		{"mixer_otlp_busy_total", "OTLP requests whose senders were told to try again.", &r.refused},
		{"mixer_otlp_malformed_total", "OTLP requests that were not protobuf or not JSON.", &r.broken},
		{"mixer_otlp_rejected_items_total", "Spans, points and records that were not taken.", &r.rejected},
	} {
		_, e := fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s counter\n", m.name, m.help, m.name)
		err = errors.Join(err, e)
		for s := Traces; s <= Logs; s++ {
			_, e := fmt.Fprintf(w, "%s{signal=%q} %d\n", m.name, s, m.values[s].Load())
			err = errors.Join(err, e)
		}
	}
	return err
}
