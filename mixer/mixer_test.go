package mixer

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	collogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/mixer/dashboard"
	"github.com/xebec-mesh/xebec/mixer/export"
	"github.com/xebec-mesh/xebec/mixer/graph"
	"github.com/xebec-mesh/xebec/mixer/query"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
)

// mesh is a running mixer with the pods of the picture service, each with a socket.
type mesh struct {
	*Mixer
	t      testing.TB
	client client.Interface
	dir    string // of the sockets
	pods   map[string]*corev1.Pod
	conns  map[string]*grpc.ClientConn
	http   string

	sockets map[string]string
}

func pod(name, app, version, ip string) *corev1.Pod {
	yes := true
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, UID: "uid-" + "x", Labels: map[string]string{"app": app, "version": version, "pod-template-hash": "abc"},
			Annotations:     map[string]string{"sidecar.istio.io/status": "{}"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: app + "-" + strings.ReplaceAll(version, ".", "-") + "-abc", Controller: &yes}},
		},
		Spec:   corev1.PodSpec{NodeName: "n1", ServiceAccountName: app},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}},
	}
}

// start is a mesh of the picture service.
func start(t testing.TB, change func(*Config)) *mesh {
	t.Helper()
	m := launch(t, change)
	for _, p := range []*corev1.Pod{
		pod("frontend-0", "frontend", "v1", "10.244.0.2"), pod("pictures-0", "pictures", "v1", "10.244.0.3"),
		pod("pictures-1", "pictures", "v1", "10.244.0.4"), pod("pictures-2", "pictures", "v2.0-alpha", "10.244.0.5"),
		pod("metadata-0", "metadata", "v1", "10.244.0.6"), pod("idle-0", "thumbnails", "v1", "10.244.0.7"),
	} {
		m.addPod(p)
	}
	for _, name := range []string{"frontend", "pictures", "metadata"} {
		m.addService(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}})
	}
	return m
}

// launch is a mixer that runs, and nobody in the mesh.
func launch(t testing.TB, change func(*Config)) *mesh {
	t.Helper()
	api := memory.New(nil)
	t.Cleanup(api.Close)
	m := &mesh{t: t, client: api, pods: map[string]*corev1.Pod{}, conns: map[string]*grpc.ClientConn{}, sockets: map[string]string{}}
	var err error
	if m.dir, err = os.MkdirTemp("", "tel-"); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Client: api, Dir: t.TempDir(), Dashboard: dashboard.Config{Token: "a-token-for-the-test"}}
	if change != nil {
		change(&cfg)
	}
	if m.Mixer, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	h := httptest.NewServer(m.Receiver().Handler())
	m.http = h.URL
	t.Cleanup(func() {
		h.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		os.RemoveAll(m.dir)
	})
	return m
}

// await returns when the view that the directory reads has an object.
func (m *mesh) await(view client.Informer, name string) {
	known := make(chan struct{})
	defer view.Subscribe(func(ev client.Event) {
		if ev.Type == client.Added && ev.Object.GetName() == name {
			close(known)
		}
	})()
	<-known
}

// addService creates a service.
func (m *mesh) addService(s *corev1.Service) {
	m.t.Helper()
	if _, err := client.For(m.client, client.Services).Create(context.Background(), s); err != nil {
		m.t.Fatal(err)
	}
	m.await(client.For(m.client, client.Services).Informer(client.ListOptions{}).Informer, s.Name)
}

// addPod creates a pod and its socket.
func (m *mesh) addPod(p *corev1.Pod) {
	m.t.Helper()
	if _, err := client.For(m.client, client.Pods).Create(context.Background(), p); err != nil {
		m.t.Fatal(err)
	}
	m.await(client.For(m.client, client.Pods).Informer(client.ListOptions{}).Informer, p.Name)
	l, err := net.Listen("unix", filepath.Join(m.dir, p.Name))
	if err != nil {
		m.t.Fatal(err)
	}
	s := grpc.NewServer()
	m.Receiver().For(p).Register(s)
	go func() { _ = s.Serve(l) }()
	conn, err := grpc.NewClient("unix://"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		m.t.Fatal(err)
	}
	m.pods[p.Name], m.conns[p.Name], m.sockets[p.Name] = p, conn, l.Addr().String()
	m.t.Cleanup(func() {
		conn.Close()
		s.Stop()
	})
}

func kv(pairs ...string) []*commonpb.KeyValue {
	var out []*commonpb.KeyValue
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, &commonpb.KeyValue{Key: pairs[i], Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: pairs[i+1]}}})
	}
	return out
}

// access reports a request as pilot has Envoy report it.
func (m *mesh) access(from string, attrs ...string) {
	m.t.Helper()
	_, err := collogs.NewLogsServiceClient(m.conns[from]).Export(context.Background(), &collogs.ExportLogsServiceRequest{
		ResourceLogs: []*logspb.ResourceLogs{{ScopeLogs: []*logspb.ScopeLogs{{LogRecords: []*logspb.LogRecord{{Attributes: kv(attrs...)}}}}}},
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

// call is a request between pods as both sidecars report it.
func (m *mesh) call(from, to, code string, ms int) {
	m.t.Helper()
	a, b := m.pods[from], m.pods[to]
	app, version := b.Labels["app"], b.Labels["version"]
	peer := func(p *corev1.Pod) string { return "spiffe://cluster.local/ns/default/sa/" + p.Spec.ServiceAccountName }
	m.access(from, "reporter", "source", "response_code", code, "response_flags", "-", "protocol", "HTTP/1.1", "duration_ms", fmt.Sprint(ms+1),
		"upstream_cluster", "outbound|8080|"+version+"|"+app+".default.svc.cluster.local", "upstream_host", b.Status.PodIP+":8080",
		"downstream_remote_address", a.Status.PodIP+":40000", "peer_uri", peer(b), "authority", app+":8080", "bytes_sent", "1200", "bytes_received", "0")
	m.access(to, "reporter", "destination", "response_code", code, "response_flags", "-", "protocol", "HTTP/1.1", "duration_ms", fmt.Sprint(ms),
		"upstream_cluster", "inbound|8080||", "upstream_host", "127.0.0.1:8080", "downstream_remote_address", a.Status.PodIP+":40000",
		"peer_uri", peer(a), "authority", app+":8080", "bytes_sent", "1200", "bytes_received", "0")
}

func (m *mesh) get(path string, into any) int {
	m.t.Helper()
	w := httptest.NewRecorder()
	m.API().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
		m.t.Fatalf("%s: %v: %s", path, err, w.Body)
	}
	return w.Code
}

// one is a span in a trace.
type one struct {
	pod, name    string
	kind         tracepb.Span_SpanKind
	proxy        bool
	id, parent   byte
	from, to     time.Duration
	failed       bool
	serviceNamed string
}

func (m *mesh) span(trace []byte, begin time.Time, s one) {
	m.t.Helper()
	sp := &tracepb.Span{
		TraceId: trace, SpanId: bytes.Repeat([]byte{s.id}, 8), Name: s.name, Kind: s.kind,
		StartTimeUnixNano: uint64(begin.Add(s.from).UnixNano()), EndTimeUnixNano: uint64(begin.Add(s.to).UnixNano()),
		Attributes: kv("http.method", "GET", "http.url", "http://pictures:8080/photos/17?size=large", "user_agent", "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X)"),
	}
	if s.parent != 0 {
		sp.ParentSpanId = bytes.Repeat([]byte{s.parent}, 8)
	}
	if s.proxy {
		sp.Attributes = append(sp.Attributes, kv("component", "proxy", "upstream_cluster", "outbound|8080|v1|pictures.default.svc.cluster.local", "response_flags", "-")...)
	}
	if s.failed {
		sp.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: "database is locked"}
		sp.Events = []*tracepb.Span_Event{{Name: "exception", TimeUnixNano: sp.EndTimeUnixNano - 1000, Attributes: kv("exception.message", "database is locked")}}
	}
	_, err := coltrace.NewTraceServiceClient(m.conns[s.pod]).Export(context.Background(), &coltrace.ExportTraceServiceRequest{
		ResourceSpans: []*tracepb.ResourceSpans{{Resource: &resourcepb.Resource{Attributes: kv("service.name", s.serviceNamed)}, ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{sp}}}}},
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

// trace is one request through the picture service, by all who report of it.
func (m *mesh) trace(id []byte, begin time.Time, pictures string, scale time.Duration, failed bool) {
	const server, client = tracepb.Span_SPAN_KIND_SERVER, tracepb.Span_SPAN_KIND_CLIENT
	for _, s := range []one{
		{"frontend-0", "frontend.default.svc.cluster.local:8080/*", server, true, 1, 0, 0, 60, failed, ""},
		{"frontend-0", "GET /", server, false, 2, 1, 2, 58, failed, "frontend"},
		{"frontend-0", "GET pictures", client, false, 3, 2, 4, 55, failed, "frontend"},
		{"frontend-0", "pictures.default.svc.cluster.local:8080/*", client, true, 4, 3, 5, 54, failed, ""},
		{pictures, "inbound|8080||", server, true, 5, 4, 7, 52, failed, ""},
		{pictures, "GET /photos/{id}", server, false, 6, 5, 8, 51, failed, "pictures"},
		{pictures, "resize", tracepb.Span_SPAN_KIND_INTERNAL, false, 7, 6, 10, 22, false, "pictures"},
		{pictures, "GET metadata", client, false, 8, 6, 23, 48, failed, "pictures"},
		{pictures, "metadata.default.svc.cluster.local:8080/*", client, true, 9, 8, 24, 47, failed, ""},
		{"metadata-0", "inbound|8080||", server, true, 10, 9, 26, 45, failed, ""},
		{"metadata-0", "GET /metadata/{id}", server, false, 11, 10, 27, 44, failed, "metadata"},
	} {
		s.from, s.to = s.from*scale, s.to*scale
		m.span(id, begin, s)
	}
}

func TestHTTPReceiver(t *testing.T) {
	m := start(t, nil)
	id := "5b8efff798038103d269b633813fc60c"
	body := `{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"web"}}]},"scopeSpans":[{"spans":[
	 {"traceId":"` + strings.ToUpper(id) + `","spanId":"EEE19B7EC3C1B174","name":"I'm a server span","startTimeUnixNano":"1544712660000000000","endTimeUnixNano":"1544712661000000000","kind":2,"novelty":1,
	  "attributes":[{"key":"my.span.attr","value":{"intValue":"7"}}]},
	 {"traceId":"","spanId":"","name":"invalid"}]}]}]}`
	post := func(kind, body string) (int, string) {
		resp, err := http.Post(m.http+"/v1/traces", kind, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if code, text := post("application/json", body); code != 200 || !strings.Contains(text, `"rejectedSpans":"1"`) {
		t.Fatal(code, text)
	}
	var v query.TraceView
	if m.get("/telemetry/traces/"+id, &v); len(v.Spans) != 1 || v.Spans[0].Attributes["my.span.attr"] != 7.0 {
		t.Fatalf("%+v", v)
	}
	for kind, want := range map[string]int{"text/plain": 415, "application/json": 400, "application/x-protobuf": 400} {
		if code, text := post(kind, "{\xff"); code != want {
			t.Errorf("%s: %d %s, want %d", kind, code, text, want)
		}
	}
	if code, _ := post("application/x-protobuf", string(make([]byte, 17<<20))); code != 413 {
		t.Errorf("17 MiB: %d", code)
	}
}

// TestExport sends what one mixer gets to another, over both protocols.
func TestExport(t *testing.T) {
	second := start(t, nil)
	server := grpc.NewServer()
	second.Receiver().Anybody().Register(server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	defer server.Stop()
	for i, endpoint := range []string{"grpc://" + l.Addr().String(), second.http} {
		first := start(t, func(c *Config) {
			c.Export = []export.Config{{Endpoint: endpoint, Interval: 10 * time.Millisecond}}
		})
		id := bytes.Repeat([]byte{byte(i + 1)}, 16)
		first.trace(id, time.Now(), "pictures-0", time.Millisecond, false)
		until := time.Now().Add(10 * time.Second)
		for {
			var v query.TraceView
			second.get("/telemetry/traces/"+hex.EncodeToString(id), &v)
			if len(v.Spans) == 11 {
				if v.Spans[0].Resource["k8s.pod.name"] != "frontend-0" {
					t.Errorf("resource %v", v.Spans[0].Resource)
				}
				break
			}
			if time.Now().After(until) {
				t.Fatalf("%s: %d spans came", endpoint, len(v.Spans))
			}
			<-time.After(10 * time.Millisecond)
		}
	}
}

// TestAddressInUse: what cannot listen is in Health, and everything else works.
func TestAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := start(t, func(c *Config) {
		c.GRPC = []string{l.Addr().String()}
		c.Dashboard.Listen = l.Addr().String()
	})
	until := time.Now().Add(10 * time.Second)
	for len(m.Health()) < 2 {
		if time.Now().After(until) {
			t.Fatal(m.Health())
		}
		<-time.After(time.Millisecond)
	}
	var h struct {
		OK       bool
		Problems []string
	}
	if m.get("/telemetry/health", &h); h.OK || !strings.Contains(h.Problems[0], "OTLP/gRPC on "+l.Addr().String()) || !strings.Contains(h.Problems[1], "dashboard") {
		t.Fatal(h)
	}
	m.call("frontend-0", "pictures-0", "200", 1)
	var g graph.Graph
	if m.get("/telemetry/graph", &g); len(g.Edges) != 1 {
		t.Fatal(g)
	}
}

func TestDashboardAsksForItsToken(t *testing.T) {
	m := start(t, nil)
	h := httptest.NewServer(m.Dashboard())
	defer h.Close()
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	get := func(path string, cookie *http.Cookie) *http.Response {
		req, _ := http.NewRequest(http.MethodGet, h.URL+path, nil)
		if cookie != nil {
			req.AddCookie(cookie)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	for path, want := range map[string]int{"/": 401, "/telemetry/graph": 401, "/?token=wrong": 401, "/assets/style.css": 200, "/assets/": 404, "/assets/app.html": 404, "/nothing": 404} {
		if resp := get(path, nil); resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
	}
	resp := get("/?token=a-token-for-the-test", nil)
	if resp.StatusCode != 303 || resp.Header.Get("Location") != "/" || len(resp.Cookies()) != 1 {
		t.Fatal(resp.Status, resp.Header)
	}
	cookie := resp.Cookies()[0]
	if !cookie.HttpOnly || strings.Contains(cookie.Value, "a-token") {
		t.Errorf("cookie %v", cookie)
	}
	for _, path := range []string{"/", "/telemetry/graph", "/telemetry/health"} {
		resp := get(path, cookie)
		if resp.StatusCode != 200 || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: %s %v", path, resp.Status, resp.Header)
		}
	}
	if _, err := dashboard.New(dashboard.Config{Listen: "0.0.0.0:80", API: m.API()}); err == nil {
		t.Error("an address for everybody without TLS was accepted")
	}
}

// TestDemo serves the page over a lively mesh until it is stopped, to look at.
// XEBEC_DASHBOARD is the address.
func TestDemo(t *testing.T) {
	addr := os.Getenv("XEBEC_DASHBOARD")
	if addr == "" {
		t.Skip("XEBEC_DASHBOARD is not set")
	}
	m := start(t, func(c *Config) { c.Dashboard.Listen = addr })
	t.Log(m.Dashboard().URL())
	until, err := time.ParseDuration(os.Getenv("XEBEC_DASHBOARD_FOR"))
	if err != nil {
		until = 2 * time.Minute
	}
	end := time.After(until)
	for i := 0; ; i++ {
		to := "pictures-" + fmt.Sprint(i%2)
		if rand.IntN(10) == 0 {
			to = "pictures-2"
		}
		code, ms := "200", 10+rand.IntN(40)
		failed := to == "pictures-2" && rand.IntN(4) == 0
		if failed {
			code = "503"
		}
		m.access("frontend-0", "reporter", "destination", "response_code", code, "response_flags", "-", "protocol", "HTTP/1.1", "upstream_cluster", "inbound|8080||",
			"downstream_remote_address", "192.0.2.7:5555", "authority", "frontend", "duration_ms", fmt.Sprint(ms+12))
		m.call("frontend-0", to, code, ms)
		m.call(to, "metadata-0", "200", 3+rand.IntN(5))
		if i%4 == 0 {
			id := make([]byte, 16)
			for j := range id {
				id[j] = byte(rand.IntN(256))
			}
			m.trace(id, time.Now().Add(-time.Second), to, time.Duration(ms)*20*time.Microsecond, failed)
		}
		select {
		case <-end:
			return
		case <-time.After(40 * time.Millisecond):
		}
	}
}
