package mixer

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	collogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/xebec-mesh/xebec/mixer/graph"
	"github.com/xebec-mesh/xebec/mixer/query"
	"github.com/xebec-mesh/xebec/tests/script"
)

// TestScripts: pods, access logs and spans in; graphs, lists and trees out.
//
//	apply FILE          creates pods and services, YAML
//	access POD FILE     POD's sidecar reports requests, one a line: key=value ...
//	spans POD FILE      POD reports spans, one a line: trace=N id=N parent=N name=... kind=... from=ms to=ms, and attributes
//	graph [PARAMETERS]  nodes and edges, one a line
//	traces [PARAMETERS] as xebec traces prints them
//	trace N             as xebec traces N prints it
//	metrics WORD...     lines of the Prometheus text that have all words
//	get PATH            what the API answers
func TestScripts(t *testing.T) {
	script.Run(t, "testdata/*.txtar", func(t *testing.T) map[string]script.Command {
		m := launch(t, nil)
		return map[string]script.Command{
			"apply":   m.scriptApply,
			"access":  m.scriptAccess,
			"spans":   m.scriptSpans,
			"graph":   m.scriptGraph,
			"traces":  m.scriptTraces,
			"trace":   m.scriptTrace,
			"metrics": m.scriptMetrics,
			"get":     m.scriptGet,
		}
	})
}

// epoch is when scripts happen.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func (m *mesh) scriptApply(s *script.State, args []string) (string, error) {
	data, err := s.File(args[0])
	if err != nil {
		return "", err
	}
	for _, doc := range bytes.Split(data, []byte("\n---\n")) {
		var kind struct{ Kind string }
		if err := yaml.Unmarshal(doc, &kind); err != nil {
			return "", err
		}
		switch kind.Kind {
		case "Pod":
			p := &corev1.Pod{}
			if err := yaml.UnmarshalStrict(doc, p); err != nil {
				return "", err
			}
			m.addPod(p)
		case "Service":
			svc := &corev1.Service{}
			if err := yaml.UnmarshalStrict(doc, svc); err != nil {
				return "", err
			}
			m.addService(svc)
		default:
			return "", fmt.Errorf("kind %q: want Pod or Service", kind.Kind)
		}
	}
	return "", nil
}

// lines reads key=value lines; n=N repeats a line.
func lines(s *script.State, name string) ([]map[string]string, error) {
	data, err := s.File(name)
	if err != nil {
		return nil, err
	}
	var out []map[string]string
	for _, line := range strings.Split(string(data), "\n") {
		fields := map[string]string{}
		for _, f := range strings.Fields(line) {
			k, v, _ := strings.Cut(f, "=")
			fields[k] = strings.ReplaceAll(v, "_", " ")
			if !strings.HasPrefix(k, "name") {
				fields[k] = v
			}
		}
		n, err := strconv.Atoi(fields["n"])
		if err != nil {
			n = 1
		}
		delete(fields, "n")
		for range n {
			if len(fields) > 0 {
				out = append(out, fields)
			}
		}
	}
	return out, nil
}

func (m *mesh) scriptAccess(s *script.State, args []string) (string, error) {
	requests, err := lines(s, args[1])
	if err != nil {
		return "", err
	}
	logs := &logspb.ScopeLogs{}
	for _, r := range requests {
		rec := &logspb.LogRecord{}
		for k, v := range r {
			rec.Attributes = append(rec.Attributes, kv(k, v)...)
		}
		logs.LogRecords = append(logs.LogRecords, rec)
	}
	_, err = collogs.NewLogsServiceClient(m.conns[args[0]]).Export(context.Background(), &collogs.ExportLogsServiceRequest{
		ResourceLogs: []*logspb.ResourceLogs{{ScopeLogs: []*logspb.ScopeLogs{logs}}},
	})
	return "", err
}

func scriptTraceID(n string) []byte {
	i, _ := strconv.ParseUint(n, 10, 64)
	return binary.BigEndian.AppendUint64(make([]byte, 8), i)
}

func (m *mesh) scriptSpans(s *script.State, args []string) (string, error) {
	spans, err := lines(s, args[1])
	if err != nil {
		return "", err
	}
	scope := &tracepb.ScopeSpans{}
	service := ""
	for _, f := range spans {
		sp := &tracepb.Span{TraceId: scriptTraceID(f["trace"]), SpanId: scriptTraceID(f["id"])[8:], Name: f["name"]}
		if f["parent"] != "" {
			sp.ParentSpanId = scriptTraceID(f["parent"])[8:]
		}
		sp.Kind = tracepb.Span_SpanKind(tracepb.Span_SpanKind_value["SPAN_KIND_"+strings.ToUpper(f["kind"])])
		from, _ := strconv.Atoi(f["from"])
		to, _ := strconv.Atoi(f["to"])
		sp.StartTimeUnixNano = uint64(epoch.Add(time.Duration(from) * time.Millisecond).UnixNano())
		sp.EndTimeUnixNano = uint64(epoch.Add(time.Duration(to) * time.Millisecond).UnixNano())
		if f["error"] != "" {
			sp.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: f["error"]}
		}
		service = f["service"]
		for k, v := range f {
			if strings.Contains(k, ".") || k == "component" {
				sp.Attributes = append(sp.Attributes, kv(k, v)...)
			}
		}
		scope.Spans = append(scope.Spans, sp)
	}
	resource := &resourcepb.Resource{}
	if service != "" {
		resource.Attributes = kv("service.name", service)
	}
	resp, err := coltrace.NewTraceServiceClient(m.conns[args[0]]).Export(context.Background(), &coltrace.ExportTraceServiceRequest{
		ResourceSpans: []*tracepb.ResourceSpans{{Resource: resource, ScopeSpans: []*tracepb.ScopeSpans{scope}}},
	})
	if p := resp.GetPartialSuccess(); p != nil {
		return fmt.Sprintf("%d rejected: %s\n", p.RejectedSpans, p.ErrorMessage), err
	}
	return "", err
}

func parameters(args []string) string {
	v := url.Values{}
	for _, a := range args {
		k, x, _ := strings.Cut(a, "=")
		v.Set(k, x)
	}
	return "?" + v.Encode()
}

func (m *mesh) scriptGraph(_ *script.State, args []string) (string, error) {
	var g graph.Graph
	if code := m.get("/telemetry/graph"+parameters(args), &g); code != 200 {
		return "", fmt.Errorf("status %d", code)
	}
	var b strings.Builder
	for _, n := range g.Nodes {
		mesh := ""
		if n.Meshed {
			mesh = " meshed"
		}
		fmt.Fprintf(&b, "%s %s%s pods=%d requests=%d failed=%d\n", n.ID, n.Kind, mesh, n.Pods, n.In.Requests, n.In.Failed)
	}
	for _, e := range g.Edges {
		fmt.Fprintf(&b, "%s -> %s requests=%d failed=%d share=%.0f%% mtls=%.0f%% codes=%v flags=%v\n", e.Source, e.Target,
			e.Traffic.Requests, e.Traffic.Failed, e.Share*100, e.MTLS*100, e.Codes, e.Flags)
	}
	return b.String(), nil
}

func (m *mesh) scriptTraces(_ *script.State, args []string) (string, error) {
	var l query.List
	if code := m.get("/telemetry/traces"+parameters(args), &l); code != 200 {
		return "", fmt.Errorf("status %d", code)
	}
	var b bytes.Buffer
	p := query.Printer{Out: &b, Now: func() time.Time { return epoch.Add(time.Minute) }}
	err := p.List(&l)
	return b.String(), err
}

func (m *mesh) scriptTrace(_ *script.State, args []string) (string, error) {
	var v query.TraceView
	if code := m.get("/telemetry/traces/"+hex.EncodeToString(scriptTraceID(args[0])), &v); code != 200 {
		return "", fmt.Errorf("status %d", code)
	}
	var b bytes.Buffer
	err := (&query.Printer{Out: &b, Width: 90}).Trace(&v)
	return b.String(), err
}

func (m *mesh) scriptMetrics(_ *script.State, args []string) (string, error) {
	var b bytes.Buffer
	if err := m.WriteMetrics(&b); err != nil {
		return "", err
	}
	var out strings.Builder
next:
	for _, line := range strings.SplitAfter(b.String(), "\n") {
		for _, word := range args {
			if !strings.Contains(line, word) {
				continue next
			}
		}
		out.WriteString(line)
	}
	return out.String(), nil
}

func (m *mesh) scriptGet(_ *script.State, args []string) (string, error) {
	var v any
	code := m.get(args[0], &v)
	if e, ok := v.(map[string]any)["error"]; ok {
		return fmt.Sprintf("%d %v\n", code, e), nil
	}
	return fmt.Sprintf("%d\n", code), nil
}
