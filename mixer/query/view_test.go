package query

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-mesh/xebec/mixer/traces"
)

func str(k, v string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: k, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: v}}}
}

// span has an id and a parent of one letter, and times in ms.
func span(node, id, parent string, from, to int) traces.Span {
	eight := func(s string) []byte { return bytes.Repeat([]byte(s), 8) }
	sp := &tracepb.Span{SpanId: eight(id), Name: id, StartTimeUnixNano: uint64(from) * 1e6, EndTimeUnixNano: uint64(to) * 1e6}
	if parent != "" {
		sp.ParentSpanId = eight(parent)
	}
	return traces.Span{Span: sp, Service: "s-" + id, Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{str("k8s.node.name", node)}}}
}

// outline prints a view, a line a span.
func outline(v *TraceView) string {
	var b strings.Builder
	for _, s := range v.Spans {
		fmt.Fprintf(&b, "%s%s %d-%d", strings.Repeat(" ", s.Depth), s.Name, s.OffsetNS/1e6, (s.OffsetNS+s.DurationNS)/1e6)
		if s.SkewNS != 0 {
			fmt.Fprintf(&b, " skew %d", s.SkewNS/1e6)
		}
		b.WriteByte('\n')
	}
	if v.RootMissed {
		b.WriteString("root missing\n")
	}
	return b.String()
}

func TestArrange(t *testing.T) {
	for name, tc := range map[string]struct {
		in   []traces.Span
		want string
	}{
		"nothing":         {nil, "root missing\n"},
		"tree":            {[]traces.Span{span("n", "c", "b", 3, 4), span("n", "a", "", 0, 10), span("n", "d", "a", 5, 6), span("n", "b", "a", 1, 5)}, "a 0-10\n b 1-5\n  c 3-4\n d 5-6\n"},
		"missing parent":  {[]traces.Span{span("n", "b", "x", 5, 6), span("n", "c", "b", 5, 6)}, "b 0-1\n c 0-1\nroot missing\n"},
		"own parent":      {[]traces.Span{span("n", "a", "a", 0, 1)}, "a 0-1\nroot missing\n"},
		"circle":          {[]traces.Span{span("n", "a", "b", 0, 1), span("n", "b", "a", 0, 1)}, "a 0-1\n b 0-1\nroot missing\n"},
		"ends first":      {[]traces.Span{{Span: &tracepb.Span{SpanId: []byte("12345678"), Name: "x", StartTimeUnixNano: 5e6}}}, "x 0-0\n"},
		"late clock":      {[]traces.Span{span("n", "a", "", 100, 110), span("m", "b", "a", 40, 44), span("m", "c", "b", 41, 42)}, "a 0-10\n b 3-7 skew 63\n  c 4-5 skew 63\n"},
		"longer child":    {[]traces.Span{span("n", "a", "", 100, 110), span("m", "b", "a", 90, 120)}, "a 0-10\n b 0-30 skew 10\n"},
		"same node":       {[]traces.Span{span("n", "a", "", 100, 110), span("n", "b", "a", 98, 99)}, " b 0-1\na 2-12\n"},
		"later is no lie": {[]traces.Span{span("n", "a", "", 0, 10), span("m", "b", "a", 50, 60)}, "a 0-10\n b 50-60\n"},
	} {
		if name == "same node" {
			tc.want = "a 2-12\n b 0-1\n"
		}
		t.Run(name, func(t *testing.T) {
			if got := outline(Arrange("x", tc.in)); got != tc.want {
				t.Fatalf("got\n%swant\n%s", got, tc.want)
			}
		})
	}
}

func TestTerminalIsNotDriven(t *testing.T) {
	s := span("n", "a", "", 0, 1)
	s.Name = "\x1b]0;evil\x07"
	var out bytes.Buffer
	if err := (&Printer{Out: &out}).Trace(Arrange("x", []traces.Span{s})); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\x07") {
		t.Fatalf("%q", out.String())
	}
}

// FuzzArrange: every span is in the view once, whatever it claims, and can be printed.
func FuzzArrange(f *testing.F) {
	seed, _ := proto.Marshal(&tracepb.ScopeSpans{Spans: []*tracepb.Span{span("n", "a", "", 0, 9).Span, span("n", "b", "a", 1, 2).Span}})
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		var in tracepb.ScopeSpans
		if proto.Unmarshal(data, &in) != nil {
			return
		}
		var spans []traces.Span
		for _, s := range in.Spans {
			spans = append(spans, traces.Span{Span: s})
		}
		v := Arrange(hex.EncodeToString([]byte("x")), spans)
		if len(v.Spans) != len(spans) {
			t.Fatalf("%d spans of %d", len(v.Spans), len(spans))
		}
		if err := (&Printer{Out: &bytes.Buffer{}, Color: true}).Trace(v); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkArrange(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("spans=%d", n), func(b *testing.B) {
			var spans []traces.Span
			for i := range n {
				s := span("n", "a", "", i, i+5)
				s.SpanId, s.ParentSpanId = fmt.Appendf(nil, "%08d", i), fmt.Appendf(nil, "%08d", i/3)
				spans = append(spans, s)
			}
			for b.Loop() {
				Arrange("x", spans)
			}
		})
	}
}
