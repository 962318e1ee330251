package mixer

import (
	"fmt"
	"testing"
	"time"

	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// BenchmarkIngest sends spans over a pod's socket until they are stored: client,
// gRPC, enrichment, index and file, in one process.
func BenchmarkIngest(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("spans=%d", n), func(b *testing.B) {
			m := start(b, nil)
			client := coltrace.NewTraceServiceClient(m.conns["frontend-0"])
			req := &coltrace.ExportTraceServiceRequest{ResourceSpans: []*tracepb.ResourceSpans{{
				Resource: &resourcepb.Resource{Attributes: kv("service.name", "frontend")}, ScopeSpans: []*tracepb.ScopeSpans{{}},
			}}}
			now := uint64(time.Now().UnixNano())
			for i := range n {
				req.ResourceSpans[0].ScopeSpans[0].Spans = append(req.ResourceSpans[0].ScopeSpans[0].Spans, &tracepb.Span{
					TraceId: fmt.Appendf(nil, "%016d", i/8+1), SpanId: fmt.Appendf(nil, "%08d", i+1), Name: "GET /api/v1/things/{id}", StartTimeUnixNano: now, EndTimeUnixNano: now + 1e6,
					Attributes: kv("http.request.method", "GET", "http.response.status_code", "200", "url.path", "/api/v1/things/17", "server.address", "things"),
				})
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
