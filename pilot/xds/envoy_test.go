package xds_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secret "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"google.golang.org/grpc"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/pilot/model"
	"github.com/xebec-mesh/xebec/pilot/registry"
	"github.com/xebec-mesh/xebec/pilot/xds"
)

// envoyBinary finds the real Envoy, or skips.
func envoyBinary(t *testing.T) string {
	t.Helper()
	if p := os.Getenv("XEBEC_ENVOY"); p != "" {
		return p
	}
	found, _ := filepath.Glob("../../.tools/envoy/*/envoy")
	if testing.Short() || len(found) == 0 {
		t.Skip("no envoy: make tools, or set XEBEC_ENVOY")
	}
	return found[len(found)-1]
}

var discard = slog.New(slog.DiscardHandler)

// mesh is a control plane under a test's hand.
type mesh struct {
	t        *testing.T
	state    *registry.State
	server   *xds.Server
	mu       sync.Mutex
	rejected []xds.Rejection
}

func newMesh(t *testing.T) *mesh {
	t.Helper()
	m := &mesh{t: t}
	var err error
	m.server, err = xds.New(xds.Config{
		Settings: model.NewSettings(),
		Log:      discard,
		Report: func(r xds.Rejection) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.rejected = append(m.rejected, r)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = m.server.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	m.state = registry.NewState(model.NewSettings())
	return m
}

func (m *mesh) apply(objs ...client.Object) {
	for _, o := range objs {
		m.state.Apply(client.Event{Type: client.Added, Object: o})
	}
	m.server.Update(m.state.Commit())
}

func (m *mesh) rejections() []xds.Rejection {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]xds.Rejection(nil), m.rejected...)
}

func service(name string, port int32, portName, ip string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: corev1.ServiceSpec{ClusterIP: ip, Selector: map[string]string{"app": name},
			Ports: []corev1.ServicePort{{Name: portName, Port: port}}},
	}
}

func pod(name string, labels map[string]string, ip string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: labels},
		Status:     corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: ip}}},
	}
}

type backend struct {
	pod  string
	port int
}

func slice(svc, portName string, ip string, backends ...backend) []client.Object {
	var out []client.Object
	for i, b := range backends {
		port := int32(b.port)
		out = append(out, &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Name: svc + "-" + strconv.Itoa(i), Namespace: "default",
				Labels: map[string]string{discoveryv1.LabelServiceName: svc}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{ip},
				TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: b.pod, Namespace: "default"}}},
			Ports: []discoveryv1.EndpointPort{{Name: &portName, Port: &port}},
		})
	}
	return out
}

var generation int64

func weighted(v1, v2 int32) *networkingv1.VirtualService {
	generation++
	return &networkingv1.VirtualService{
		ObjectMeta: metav1.ObjectMeta{Name: "reviews", Namespace: "default", Generation: generation},
		Spec: networking.VirtualService{Hosts: []string{"reviews"}, Http: []*networking.HTTPRoute{{
			Route: []*networking.HTTPRouteDestination{
				{Destination: &networking.Destination{Host: "reviews", Subset: "v1"}, Weight: v1},
				{Destination: &networking.Destination{Host: "reviews", Subset: "v2"}, Weight: v2},
			},
		}}},
	}
}

func subsets(names ...string) *networkingv1.DestinationRule {
	generation++
	d := &networkingv1.DestinationRule{
		ObjectMeta: metav1.ObjectMeta{Name: "reviews", Namespace: "default", Generation: generation},
		Spec:       networking.DestinationRule{Host: "reviews"},
	}
	for _, n := range names {
		d.Spec.Subsets = append(d.Spec.Subsets, &networking.Subset{Name: n, Labels: map[string]string{"version": n}})
	}
	return d
}

// envoy is a running Envoy whose table "80" is reached over a port of its own.
type envoyProcess struct {
	t     *testing.T
	port  int
	admin int
	log   *bytes.Buffer
	cmd   *exec.Cmd
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func startEnvoy(t *testing.T, m *mesh, p *corev1.Pod, api ...string) *envoyProcess {
	t.Helper()
	dir := t.TempDir()
	sock := filepath.Join(dir, "agent.sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(g, m.server.For(p))
	secret.RegisterSecretDiscoveryServiceServer(g, identity(t, "spiffe://cluster.local/ns/default/sa/default"))
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return launch(t, dir, sock, append(api, "DELTA_GRPC")[0])
}

func launch(t *testing.T, dir, sock, api string) *envoyProcess {
	e := &envoyProcess{t: t, port: freePort(t), admin: freePort(t), log: &bytes.Buffer{}}
	boot := fmt.Sprintf(bootstrap, e.admin, api, sock, e.port)
	if !json.Valid([]byte(boot)) {
		t.Fatal("bootstrap is not JSON")
	}
	path := filepath.Join(dir, "bootstrap.json")
	if err := os.WriteFile(path, []byte(boot), 0o600); err != nil {
		t.Fatal(err)
	}
	e.cmd = exec.Command(envoyBinary(t), "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "warning", "--component-log-level", os.Getenv("ENVOY_LOG"))
	e.cmd.Stderr = e.log
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = e.cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		_ = e.cmd.Process.Kill()
		<-exited
		if t.Failed() {
			t.Log(e.log.String())
		}
	})
	return e
}

const bootstrap = `{
 "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": %d}}},
 "node": {"id": "test", "cluster": "test"},
 "dynamic_resources": {
  "ads_config": {"api_type": "%s", "transport_api_version": "V3", "set_node_on_first_message_only": true,
   "grpc_services": [{"envoy_grpc": {"cluster_name": "xebec-agent"}}]},
  "cds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
  "lds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}},
 "static_resources": {
  "clusters": [{"name": "xebec-agent", "type": "STATIC", "connect_timeout": "1s",
   "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "explicit_http_config": {"http2_protocol_options": {}}}},
   "load_assignment": {"cluster_name": "xebec-agent", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": %q}}}}]}]}}],
  "listeners": [{"name": "test", "address": {"socket_address": {"address": "127.0.0.1", "port_value": %d}},
   "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
     "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
     "stat_prefix": "test", "rds": {"route_config_name": "80", "config_source": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}},
     "http_filters": [
       {"name": "envoy.filters.http.fault", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"}},
       {"name": "envoy.filters.http.cors", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"}},
       {"name": "envoy.filters.http.router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}]}]}
}`

func (e *envoyProcess) get(host, path string, header ...string) (int, string, error) {
	req, _ := http.NewRequest("GET", fmt.Sprintf("http://127.0.0.1:%d%s", e.port, path), nil)
	req.Host = host
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// ready waits until Envoy says so.
func (e *envoyProcess) ready() {
	e.t.Helper()
	eventually(e.t, func() error {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/ready", e.admin))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 {
			return fmt.Errorf("ready: %d %s waiting for %s", resp.StatusCode, b, e.adminGet("/init_dump"))
		}
		return nil
	})
}

func (e *envoyProcess) adminGet(path string) string {
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", e.admin, path))
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	var err error
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if err = f(); err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-tick.C:
		}
	}
}

func server(t *testing.T, answer string) int {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) }))
	t.Cleanup(s.Close)
	_, p, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
	n, _ := strconv.Atoi(p)
	return n
}

func reviews(t *testing.T, m *mesh) {
	objs := []client.Object{
		service("reviews", 80, "http", "10.96.0.20"),
		service("db", 5432, "tcp-pg", "10.96.0.21"),
		service("mystery", 9999, "", "10.96.0.22"),
		pod("caller", map[string]string{"app": "caller"}, "10.244.0.9"),
		pod("reviews-v1", map[string]string{"app": "reviews", "version": "v1"}, "127.0.0.1"),
		pod("reviews-v2", map[string]string{"app": "reviews", "version": "v2"}, "127.0.0.1"),
	}
	objs = append(objs, slice("reviews", "http", "127.0.0.1", backend{"reviews-v1", server(t, "v1")}, backend{"reviews-v2", server(t, "v2")})...)
	m.apply(objs...)
}

// TestRealEnvoyCanary drives the real Envoy through a canary under load: not one
// request may fail while weights change and subsets come and go.
func TestRealEnvoyCanary(t *testing.T) {
	for _, api := range []string{"DELTA_GRPC", "GRPC"} {
		t.Run(api, func(t *testing.T) { canary(t, api) })
	}
}

func canary(t *testing.T, api string) {
	envoyBinary(t)
	m := newMesh(t)
	reviews(t, m)
	m.apply(subsets("v1", "v2"), weighted(90, 10))
	e := startEnvoy(t, m, pod("caller", map[string]string{"app": "caller"}, "10.244.0.9"), api)
	e.ready()
	if r := m.rejections(); len(r) > 0 {
		t.Fatalf("refused: %+v", r)
	}

	var failed atomic.Int64
	var firstFailure atomic.Value
	count := map[string]int{}
	for range 2000 {
		code, body, err := e.get("reviews", "/")
		if err != nil || code != 200 {
			t.Fatalf("%d %q %v\n%s", code, body, err, e.adminGet("/config_dump?resource=dynamic_route_configs"))
		}
		count[body]++
	}
	if v2 := count["v2"]; v2 < 160 || v2 > 240 { // 200 ± 3σ = 40
		t.Errorf("of 2000 requests %d reached v2, not about 200", v2)
	}

	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if code, body, err := e.get("reviews.default:80", "/"); err != nil || code != 200 {
					failed.Add(1)
					firstFailure.CompareAndSwap(nil, fmt.Sprintf("%d %q %v", code, body, err))
				}
			}
		}()
	}
	for i := range 20 {
		m.apply(subsets("v1", "v2"), weighted(int32(100-5*i), int32(5*i)))
		if i%4 == 1 { // a subset that comes with the route to it
			m.apply(subsets("v1"), weighted(1, 0))
			m.apply(weighted(0, 1), subsets("v1", "v2"))
		}
		waitFor(t, e, fmt.Sprintf("weights %d", i))
	}
	m.apply(weighted(0, 100))
	eventually(t, func() error {
		for range 50 {
			if _, body, _ := e.get("reviews", "/"); body != "v2" {
				return fmt.Errorf("still %q", body)
			}
		}
		return nil
	})
	close(stop)
	wg.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d requests failed, the first: %v", failed.Load(), firstFailure.Load())
	}
	if r := m.rejections(); len(r) > 0 {
		t.Errorf("refused: %+v", r)
	}
}

// waitFor gives Envoy time to take a change: some requests' worth.
func waitFor(t *testing.T, e *envoyProcess, _ string) {
	t.Helper()
	for range 30 {
		_, _, _ = e.get("reviews.default.svc.cluster.local", "/")
	}
}
