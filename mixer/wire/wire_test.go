package wire

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

func str(k, v string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: k, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: v}}}
}

func id(n, size int) []byte { return bytes.Repeat([]byte{byte(n)}, size) }

func request(attrs ...*commonpb.KeyValue) *tracepb.TracesData {
	return &tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource: &resourcepb.Resource{Attributes: attrs},
		ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{
			{TraceId: id(1, 16), SpanId: id(2, 8), Name: "GET /", Kind: tracepb.Span_SPAN_KIND_SERVER, StartTimeUnixNano: 10, EndTimeUnixNano: 30},
			{TraceId: id(1, 16), SpanId: id(3, 8), ParentSpanId: id(2, 8), Name: "call", StartTimeUnixNano: 12, EndTimeUnixNano: 20,
				Status: &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: "no"}},
			{TraceId: id(0, 16), SpanId: id(4, 8)},
			{TraceId: id(1, 15), SpanId: id(4, 8)},
		}}},
		SchemaUrl: "x",
	}}}
}

type log struct{ bytes.Buffer }

func (l *log) Resource(service []byte) { fmt.Fprintf(l, "service %s\n", service) }
func (l *log) Span(s *Span) {
	fmt.Fprintf(l, "%x %x %x %d-%d kind=%d error=%t %s\n", s.Trace[:1], s.ID[:1], s.Parent[:1], s.Start, s.End, s.Kind, s.Error, s.Name)
}

func TestScanSpans(t *testing.T) {
	data, err := proto.Marshal(request(str("service.name", "web")))
	if err != nil {
		t.Fatal(err)
	}
	var l log
	invalid, err := ScanSpans(append(data, data...), &l)
	if err != nil || invalid != 4 {
		t.Fatal(invalid, err)
	}
	once := "service web\n01 02 00 10-30 kind=2 error=false GET /\n01 03 02 12-20 kind=0 error=true call\n"
	if diff := cmp.Diff(once+once, l.String()); diff != "" {
		t.Fatal(diff)
	}
}

func TestOverlay(t *testing.T) {
	o := NewOverlay(map[string]string{"k8s.pod.name": "web-0", "empty": ""}, map[string]string{"service.name": "web", "service.version": "v1"})
	for name, tc := range map[string]struct{ in, want []*commonpb.KeyValue }{
		"nothing":  {nil, []*commonpb.KeyValue{str("k8s.pod.name", "web-0"), str("service.name", "web"), str("service.version", "v1")}},
		"its own":  {[]*commonpb.KeyValue{str("service.name", "mine"), str("x", "y")}, []*commonpb.KeyValue{str("k8s.pod.name", "web-0"), str("service.name", "mine"), str("x", "y"), str("service.version", "v1")}},
		"unknown":  {[]*commonpb.KeyValue{str("service.name", "unknown_service:go")}, []*commonpb.KeyValue{str("k8s.pod.name", "web-0"), str("service.name", "web"), str("service.version", "v1")}},
		"a liar's": {[]*commonpb.KeyValue{str("k8s.pod.name", "bank-0"), str("service.version", "v9")}, []*commonpb.KeyValue{str("k8s.pod.name", "web-0"), str("service.version", "v9"), str("service.name", "web")}},
	} {
		t.Run(name, func(t *testing.T) {
			in := request(tc.in...)
			data, _ := proto.Marshal(in)
			out, err := o.Apply(nil, data)
			if err != nil {
				t.Fatal(err)
			}
			var got tracepb.TracesData
			if err := proto.Unmarshal(out, &got); err != nil {
				t.Fatal(err)
			}
			in.ResourceSpans[0].Resource.Attributes = tc.want
			if diff := cmp.Diff(in, &got, protocmp.Transform()); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

// FuzzApply: what the overlay makes of a valid message is valid, has the same
// items, and applying it again changes nothing.
func FuzzApply(f *testing.F) {
	data, _ := proto.Marshal(request(str("service.name", "web")))
	f.Add(data)
	f.Add([]byte{0x0a, 0x00})
	o := NewOverlay(map[string]string{"k8s.pod.name": "web-0"}, map[string]string{"service.name": "web"})
	f.Fuzz(func(t *testing.T, data []byte) {
		once, err := o.Apply(nil, data)
		if err != nil {
			return
		}
		twice, err := o.Apply(nil, once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("not stable: %v\n%x\n%x", err, once, twice)
		}
		var l, m log
		n, err := ScanSpans(data, &l)
		if err != nil {
			return
		}
		if k, err := ScanSpans(once, &m); err != nil || n != k {
			t.Fatalf("items lost: %d, %d, %v", n, k, err)
		}
	})
}

// FuzzScanSpans: what the generated decoder reads, the scanner reads too.
func FuzzScanSpans(f *testing.F) {
	data, _ := proto.Marshal(request(str("service.name", "web")))
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var c count
		invalid, err := ScanSpans(data, &c)
		var want tracepb.TracesData
		if err != nil || (proto.UnmarshalOptions{Merge: true}).Unmarshal(data, &want) != nil {
			return
		}
		n := 0
		for _, r := range want.ResourceSpans {
			for _, s := range r.ScopeSpans {
				n += len(s.Spans)
			}
		}
		if n != int(c)+invalid {
			t.Fatalf("%d spans, the generated decoder has %d", int(c)+invalid, n)
		}
	})
}

type count int

func (c *count) Resource([]byte) {}
func (c *count) Span(*Span)      { *c++ }

func BenchmarkScanSpans(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("spans=%d", n), func(b *testing.B) {
			r := request(str("service.name", "web"))
			var spans []*tracepb.Span
			for range n {
				s := proto.Clone(r.ResourceSpans[0].ScopeSpans[0].Spans[0]).(*tracepb.Span)
				for _, k := range []string{"http.request.method", "http.response.status_code", "url.path", "server.address", "user_agent.original"} {
					s.Attributes = append(s.Attributes, str(k, "some value of it"))
				}
				spans = append(spans, s)
			}
			r.ResourceSpans[0].ScopeSpans[0].Spans = spans
			data, _ := proto.Marshal(r)
			b.SetBytes(int64(len(data)))
			var c count
			for b.Loop() {
				if _, err := ScanSpans(data, &c); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "spans/s")
		})
	}
}
