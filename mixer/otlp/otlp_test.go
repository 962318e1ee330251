package otlp

import (
	"bytes"
	stdgzip "compress/gzip"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	collogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/mixer/enrich"
)

// consumer remembers what it got, and answers as told.
type consumer struct {
	got  []byte
	from *enrich.Workload
	out  Outcome
	err  error
	hold chan struct{} // if there, Consume says in and waits for out
}

func (c *consumer) Consume(_ context.Context, signal Signal, data []byte, from *enrich.Workload) (Outcome, error) {
	if c.hold != nil {
		c.hold <- struct{}{}
		<-c.hold
	}
	c.got, c.from = append([]byte(signal.String()+":"), data...), from
	return c.out, c.err
}

type directory struct{}

func (directory) ByIP(ip netip.Addr) *enrich.Workload {
	return &enrich.Workload{App: "at " + ip.String()}
}
func (directory) Current(p *corev1.Pod) *enrich.Workload { return enrich.FromPod(p) }

func dial(t testing.TB, r *Receiver) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	p := &corev1.Pod{}
	p.Name, p.Namespace = "web-0", "default"
	r.For(p).Register(s)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	c, err := grpc.NewClient("unix://"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func receiver(t testing.TB, c Consumer, change func(*Config)) *Receiver {
	t.Helper()
	cfg := Config{Consumer: c, Directory: directory{}}
	if change != nil {
		change(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestGRPC(t *testing.T) {
	c := &consumer{out: Outcome{Rejected: 3, Message: "why"}}
	conn := dial(t, receiver(t, c, nil))
	req := &coltrace.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{{SchemaUrl: "x"}}}
	data, _ := proto.Marshal(req)
	resp, err := coltrace.NewTraceServiceClient(conn).Export(t.Context(), req, grpc.UseCompressor("gzip"))
	if err != nil || resp.GetPartialSuccess().GetRejectedSpans() != 3 || resp.GetPartialSuccess().GetErrorMessage() != "why" {
		t.Fatal(resp, err)
	}
	if string(c.got) != "traces:"+string(data) || c.from.Pod != "web-0" {
		t.Fatalf("%q from %+v", c.got, c.from)
	}
	c.out = Outcome{}
	if m, err := colmetrics.NewMetricsServiceClient(conn).Export(t.Context(), &colmetrics.ExportMetricsServiceRequest{}); err != nil || m.PartialSuccess != nil || string(c.got) != "metrics:" {
		t.Fatal(m, err)
	}
	if l, err := collogs.NewLogsServiceClient(conn).Export(t.Context(), &collogs.ExportLogsServiceRequest{}); err != nil || l.PartialSuccess != nil || string(c.got) != "logs:" {
		t.Fatal(l, err)
	}
	c.err = errors.New("malformed")
	if _, err := coltrace.NewTraceServiceClient(conn).Export(t.Context(), req); status.Code(err) != codes.InvalidArgument {
		t.Fatal(err)
	}
}

// TestBusy: what does not fit is refused in a way that senders repeat.
func TestBusy(t *testing.T) {
	c := &consumer{hold: make(chan struct{})}
	r := receiver(t, c, func(cfg *Config) { cfg.MaxInFlight = 10; cfg.RetryAfter = 7 * time.Second })
	conn := dial(t, r)
	req := &coltrace.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{{SchemaUrl: "a long one"}}}
	first := make(chan error)
	go func() {
		_, err := coltrace.NewTraceServiceClient(conn).Export(t.Context(), req)
		first <- err
	}()
	<-c.hold
	_, err := coltrace.NewTraceServiceClient(conn).Export(t.Context(), req)
	st := status.Convert(err)
	if st.Code() != codes.Unavailable || len(st.Details()) != 1 || st.Details()[0].(*errdetails.RetryInfo).RetryDelay.AsDuration() != 7*time.Second {
		t.Fatal(err, st.Details())
	}
	w := httptest.NewRecorder()
	post := httptest.NewRequest(http.MethodPost, "/v1/traces", bytes.NewReader(make([]byte, 12)))
	post.Header.Set("Content-Type", protobuf)
	r.Handler().ServeHTTP(w, post)
	if w.Code != 503 || w.Header().Get("Retry-After") != "7" {
		t.Fatal(w.Code, w.Header())
	}
	c.hold <- struct{}{}
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	if r.inFlight.Load() != 0 {
		t.Fatal(r.inFlight.Load())
	}
}

func TestHTTPBodies(t *testing.T) {
	c := &consumer{}
	r := receiver(t, c, func(cfg *Config) { cfg.MaxRequest = 1000 })
	var zipped bytes.Buffer
	z := stdgzip.NewWriter(&zipped)
	_, _ = z.Write([]byte("hello"))
	z.Close()
	var bomb bytes.Buffer
	z = stdgzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 1<<20))
	z.Close()
	for name, tc := range map[string]struct {
		body     []byte
		encoding string
		want     int
	}{
		"plain":     {[]byte("hello"), "", 200},
		"gzip":      {zipped.Bytes(), "gzip", 200},
		"not gzip":  {[]byte("hello"), "gzip", 400},
		"a bomb":    {bomb.Bytes(), "gzip", 413},
		"too long":  {make([]byte, 2000), "", 413},
		"other way": {[]byte("hello"), "br", 400},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			req := httptest.NewRequest(http.MethodPost, "/v1/traces", bytes.NewReader(tc.body))
			req.Header.Set("Content-Type", protobuf)
			req.Header.Set("Content-Encoding", tc.encoding)
			r.Handler().ServeHTTP(w, req)
			if w.Code != tc.want {
				t.Fatalf("%d, want %d: %s", w.Code, tc.want, w.Body)
			}
			if w.Code == 200 && (string(c.got) != "traces:hello" || c.from.App != "at 192.0.2.1") {
				t.Fatalf("%q from %+v", c.got, c.from)
			}
		})
	}
}

func FuzzFromJSON(f *testing.F) {
	f.Add([]byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174"}]}]}]}`), uint8(1))
	f.Fuzz(func(t *testing.T, text []byte, signal uint8) {
		_, _ = fromJSON(Signal(signal%3+1), text)
	})
}

func BenchmarkGRPC(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("spans=%d", n), func(b *testing.B) {
			client := coltrace.NewTraceServiceClient(dial(b, receiver(b, &consumer{}, nil)))
			req := &coltrace.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{}}}}}
			for range n {
				req.ResourceSpans[0].ScopeSpans[0].Spans = append(req.ResourceSpans[0].ScopeSpans[0].Spans, &tracepb.Span{TraceId: make([]byte, 16), SpanId: make([]byte, 8), Name: "GET /api/v1/things"})
			}
			for b.Loop() {
				if _, err := client.Export(b.Context(), req); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "spans/s")
		})
	}
}
