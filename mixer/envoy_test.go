package mixer

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xebec-mesh/xebec/mixer/graph"
	"github.com/xebec-mesh/xebec/mixer/query"
)

// TestEnvoy has the real Envoy report a request to a pod's socket: spans, joined
// with the application's by trace id, and access logs. XEBEC_ENVOY names the program.
func TestEnvoy(t *testing.T) {
	envoy := os.Getenv("XEBEC_ENVOY")
	if envoy == "" {
		t.Skip("XEBEC_ENVOY is not set")
	}
	m := start(t, nil)
	parents := make(chan string, 100)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parents <- r.Header.Get("traceparent")
		_, _ = io.WriteString(w, "hello")
	}))
	defer app.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	config := filepath.Join(t.TempDir(), "envoy.yaml")
	text := strings.NewReplacer("@SOCKET", m.sockets["frontend-0"], "@PORT", port, "@UPSTREAM", fmt.Sprint(app.Listener.Addr().(*net.TCPAddr).Port)).Replace(envoyConfig)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(envoy, "-c", config, "--concurrency", "1", "-l", "warn", "--use-dynamic-base-id")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	until := time.Now().Add(30 * time.Second)
	for {
		resp, err := http.Get("http://127.0.0.1:" + port + "/photos/17?size=large")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
		<-time.After(50 * time.Millisecond)
	}
	_, rest, _ := strings.Cut(<-parents, "-")
	id, _, _ := strings.Cut(rest, "-")
	for {
		var v query.TraceView
		var g graph.Graph
		code := m.get("/telemetry/traces/"+id, &v)
		m.get("/telemetry/graph", &g)
		if code == 200 && len(g.Edges) > 0 {
			check(t, &v, &g)
			return
		}
		if time.Now().After(until) {
			t.Fatalf("trace %q: %d, graph %+v", id, code, g)
		}
		<-time.After(50 * time.Millisecond)
	}
}

func check(t *testing.T, v *query.TraceView, g *graph.Graph) {
	t.Helper()
	for _, s := range v.Spans {
		t.Logf("%s %s %s %v %v", s.Service, s.Kind, s.Name, s.Attributes, s.Resource)
		if !s.Proxy || s.Service != "frontend" || s.Resource["k8s.pod.name"] != "frontend-0" {
			t.Errorf("the span is not known as the sidecar's of frontend-0")
		}
	}
	if v.Root != "GET /photos/17" || v.RootMissed {
		t.Errorf("root %q, missed %t", v.Root, v.RootMissed)
	}
	e := g.Edges[0]
	t.Logf("%+v", e)
	if e.Source != "default/frontend@v1" || e.Target != "default/pictures@v1" || e.Codes["200"] != 1 || e.MTLS != 0 {
		t.Errorf("edge %+v", e)
	}
}

const envoyConfig = `
node: {id: test, cluster: test}
static_resources:
  listeners:
  - name: out
    address: {socket_address: {address: 127.0.0.1, port_value: @PORT}}
    traffic_direction: OUTBOUND
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: out
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: "outbound|8080|v1|pictures.default.svc.cluster.local"}, decorator: {operation: "pictures:8080/*"}}]}]}
          http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
          tracing:
            random_sampling: {value: 100}
            provider:
              name: envoy.tracers.opentelemetry
              typed_config:
                "@type": type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig
                grpc_service: {envoy_grpc: {cluster_name: xebec-agent}, timeout: 1s}
          access_log:
          - name: envoy.access_loggers.open_telemetry
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig
              grpc_service: {envoy_grpc: {cluster_name: xebec-agent}}
              log_name: xebec-http
              buffer_flush_interval: 0.1s
              attributes: {values: [
                {key: reporter, value: {string_value: source}}, {key: response_code, value: {string_value: "%RESPONSE_CODE%"}},
                {key: response_flags, value: {string_value: "%RESPONSE_FLAGS%"}}, {key: protocol, value: {string_value: "%PROTOCOL%"}},
                {key: grpc_status, value: {string_value: "%GRPC_STATUS_NUMBER%"}}, {key: duration_ms, value: {string_value: "%DURATION%"}},
                {key: bytes_sent, value: {string_value: "%BYTES_SENT%"}}, {key: upstream_cluster, value: {string_value: "%UPSTREAM_CLUSTER_RAW%"}},
                {key: upstream_host, value: {string_value: "%UPSTREAM_HOST%"}}, {key: peer_uri, value: {string_value: "%UPSTREAM_PEER_URI_SAN%"}},
                {key: downstream_remote_address, value: {string_value: "%DOWNSTREAM_REMOTE_ADDRESS%"}}]}
  clusters:
  - name: "outbound|8080|v1|pictures.default.svc.cluster.local"
    load_assignment: {cluster_name: x, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: @UPSTREAM}}}}]}]}
  - name: xebec-agent
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: xebec-agent, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: @SOCKET}}}}]}]}
`
