package query

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/xebec-mesh/xebec/mixer/traces"
	"github.com/xebec-mesh/xebec/mixer/wire"
)

// TraceView is one trace, its spans in the order in which a person reads them: a
// span before those that it caused, siblings by start.
type TraceView struct {
	TraceID    string     `json:"traceId"`
	Root       string     `json:"root"`        // name of the first root span
	RootMissed bool       `json:"rootMissing"` // the span that began it all is not stored
	Start      time.Time  `json:"start"`
	DurationNS int64      `json:"durationNs"`
	Errors     int        `json:"errors"`
	Services   []string   `json:"services"` // in order of appearance
	Spans      []SpanView `json:"spans"`
}

// SpanView is one span.
type SpanView struct {
	SpanID     string         `json:"spanId"`
	ParentID   string         `json:"parentSpanId,omitempty"`
	Depth      int            `json:"depth"`
	Service    string         `json:"service"`
	Name       string         `json:"name"`
	Title      string         `json:"title"` // what a person calls it: a sidecar's is named by its request
	Kind       string         `json:"kind"`
	Proxy      bool           `json:"proxy"`    // made by a sidecar
	OffsetNS   int64          `json:"offsetNs"` // from the trace's start
	DurationNS int64          `json:"durationNs"`
	SkewNS     int64          `json:"skewNs,omitempty"` // what was added to its start because its clock disagrees with its parent's
	Error      bool           `json:"error"`
	Status     string         `json:"status,omitempty"`
	Attributes map[string]any `json:"attributes,omitempty"`
	Resource   map[string]any `json:"resource,omitempty"`
	Events     []EventView    `json:"events,omitempty"`
}

// EventView is something that happened during a span.
type EventView struct {
	Name       string         `json:"name"`
	OffsetNS   int64          `json:"offsetNs"`
	Attributes map[string]any `json:"attributes,omitempty"`
}

// twig is a span in the tree.
type twig struct {
	traces.Span
	start, end int64 // ns since 1970, skew removed
	skew       int64
	children   []*twig
	placed     bool
}

// Arrange makes a view of a trace's spans. It is pure, and takes any spans: with
// missing parents, circles and clocks that disagree.
func Arrange(id string, spans []traces.Span) *TraceView {
	twigs := make([]*twig, len(spans))
	byID := map[string]*twig{}
	for i, s := range spans {
		twigs[i] = &twig{Span: s, start: int64(s.StartTimeUnixNano), end: int64(max(s.EndTimeUnixNano, s.StartTimeUnixNano))}
		if byID[string(s.SpanId)] == nil {
			byID[string(s.SpanId)] = twigs[i]
		}
	}
	var roots []*twig
	for _, t := range twigs {
		parent := byID[string(t.ParentSpanId)]
		if parent == nil || parent == t {
			roots = append(roots, t)
			continue
		}
		parent.children = append(parent.children, t)
	}
	v := &TraceView{TraceID: id, Services: []string{}, Spans: []SpanView{}}
	order(roots)
	for _, r := range roots {
		v.place(r, 0)
	}
	for _, t := range twigs { // what is left are circles
		v.place(t, 0)
	}
	v.finish(roots)
	return v
}

func order(ts []*twig) {
	slices.SortStableFunc(ts, func(a, b *twig) int { return cmp.Compare(a.start, b.start) })
}

// place appends a twig and all below it. Offsets are absolute until finish.
func (v *TraceView) place(t *twig, depth int) {
	if t.placed {
		return
	}
	t.placed = true
	v.Spans = append(v.Spans, t.view(depth))
	if t.Service != "" && !slices.Contains(v.Services, t.Service) {
		v.Services = append(v.Services, t.Service)
	}
	for _, c := range t.children {
		c.align(t)
	}
	order(t.children)
	for _, c := range t.children {
		v.place(c, depth+1)
	}
}

// align moves a span that began before what caused it: their clocks disagree.
// Spans of one node have one clock and are left alone.
func (t *twig) align(parent *twig) {
	t.skew = parent.skew
	if sameNode(t, parent) {
		t.start, t.end = t.start+t.skew, t.end+t.skew
		return
	}
	t.skew = 0
	if t.start < parent.start {
		t.skew = parent.start - t.start
		if spare := (parent.end - parent.start) - (t.end - t.start); spare > 0 {
			t.skew += spare / 2 // half of what is not accounted for is the way there
		}
	}
	t.start, t.end = t.start+t.skew, t.end+t.skew
}

func sameNode(a, b *twig) bool {
	node := func(t *twig) string {
		for _, kv := range t.Resource.GetAttributes() {
			if kv.GetKey() == "k8s.node.name" {
				return kv.GetValue().GetStringValue()
			}
		}
		return ""
	}
	return a.Service == b.Service || node(a) != "" && node(a) == node(b)
}

// finish makes offsets relative and sums up.
func (v *TraceView) finish(roots []*twig) {
	var start, end int64
	for i, s := range v.Spans {
		if i == 0 || s.OffsetNS < start {
			start = s.OffsetNS
		}
		end = max(end, s.OffsetNS+s.DurationNS)
		if s.Error {
			v.Errors++
		}
	}
	for i := range v.Spans {
		v.Spans[i].OffsetNS -= start
		for j := range v.Spans[i].Events {
			v.Spans[i].Events[j].OffsetNS -= start
		}
	}
	v.Start, v.DurationNS, v.RootMissed = time.Unix(0, start).UTC(), end-start, true
	for _, r := range roots {
		if v.Root == "" || len(r.ParentSpanId) == 0 && v.RootMissed {
			v.Root = r.title()
		}
		if len(r.ParentSpanId) == 0 {
			v.RootMissed = false
		}
	}
}

func (t *twig) view(depth int) SpanView {
	s := SpanView{
		SpanID: hex.EncodeToString(t.SpanId), ParentID: hex.EncodeToString(t.ParentSpanId), Depth: depth,
		Service: t.Service, Name: t.Name, Title: t.title(), Kind: kindName(t.Kind),
		OffsetNS: t.start, DurationNS: t.end - t.start, SkewNS: t.skew,
		Error: t.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR, Status: t.Status.GetMessage(),
		Attributes: attributes(t.Attributes), Resource: attributes(t.Resource.GetAttributes()),
	}
	s.Proxy = s.Attributes["component"] == "proxy" // Envoy says this of every span that it makes
	for _, e := range t.Events {
		s.Events = append(s.Events, EventView{Name: e.Name, OffsetNS: int64(e.TimeUnixNano) + t.skew, Attributes: attributes(e.Attributes)})
	}
	return s
}

// title is SpanView.Title.
func (t *twig) title() string {
	a := attributes(t.Attributes)
	method, _ := a["http.method"].(string)
	url, _ := a["http.url"].(string)
	if a["component"] == "proxy" && method != "" {
		return wire.RequestOf(method, url)
	}
	return t.Name
}

func kindName(k tracepb.Span_SpanKind) string {
	switch k {
	case tracepb.Span_SPAN_KIND_SERVER:
		return "server"
	case tracepb.Span_SPAN_KIND_CLIENT:
		return "client"
	case tracepb.Span_SPAN_KIND_PRODUCER:
		return "producer"
	case tracepb.Span_SPAN_KIND_CONSUMER:
		return "consumer"
	}
	return "internal"
}

func attributes(kvs []*commonpb.KeyValue) map[string]any {
	if len(kvs) == 0 {
		return nil
	}
	m := make(map[string]any, len(kvs))
	for _, kv := range kvs {
		m[kv.GetKey()] = value(kv.GetValue(), 0)
	}
	return m
}

// value is an attribute as JSON has it..
func value(v *commonpb.AnyValue, depth int) any {
	if depth > 20 {
		return "…"
	}
	switch x := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return x.StringValue
	case *commonpb.AnyValue_BoolValue:
		return x.BoolValue
	case *commonpb.AnyValue_IntValue:
		return x.IntValue
	case *commonpb.AnyValue_DoubleValue:
		return number(x.DoubleValue)
	case *commonpb.AnyValue_BytesValue:
		return base64.StdEncoding.EncodeToString(x.BytesValue)
	case *commonpb.AnyValue_ArrayValue:
		out := []any{}
		for _, e := range x.ArrayValue.GetValues() {
			out = append(out, value(e, depth+1))
		}
		return out
	case *commonpb.AnyValue_KvlistValue:
		out := map[string]any{}
		for _, kv := range x.KvlistValue.GetValues() {
			out[kv.GetKey()] = value(kv.GetValue(), depth+1)
		}
		return out
	}
	return nil
}
