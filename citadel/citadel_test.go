package citadel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
)

// node is a running citadel with one pod's socket.
func node(t *testing.T, ttl time.Duration, sa string) (c *Citadel, socket string) {
	t.Helper()
	api := memory.New(nil)
	t.Cleanup(api.Close)
	_, err := client.For(api, client.Pods).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart-0"},
		Spec:       corev1.PodSpec{NodeName: "n1", ServiceAccountName: "cart"},
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err = New(Config{Dir: t.TempDir(), SVIDTTL: ttl, Client: api, Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "tel-")
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "agent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	c.For("shop", sa).Register(server)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- c.Run(ctx) }()
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		cancel()
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return c, socket
}

func TestWorkloadAPI(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, socket := node(t, 3*time.Second, "cart")
	at := workloadapi.WithClientOptions(workloadapi.WithAddr("unix://" + socket))
	source, err := workloadapi.NewX509Source(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	first, err := source.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	if got := first.ID.String(); got != "spiffe://cluster.local/ns/shop/sa/cart" {
		t.Fatalf("id %s", got)
	}
	conn := echo(t, source)
	for {
		if err := source.WaitUntilUpdated(ctx); err != nil {
			t.Fatal(err)
		}
		if s, _ := source.GetX509SVID(); s != nil && s.Certificates[0].SerialNumber.Cmp(first.Certificates[0].SerialNumber) != 0 {
			break
		}
	}
	<-time.After(time.Until(first.Certificates[0].NotAfter)) // the old SVID ends; what it began goes on
	say(t, conn, "after rotation")
	say(t, echo(t, source), "with the new one")

	tokens, err := workloadapi.NewJWTSource(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	defer tokens.Close()
	token, err := tokens.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "bank"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jwtsvid.ParseAndValidate(token.Marshal(), tokens, []string{"bank"}); err != nil {
		t.Fatal(err)
	}
	api, err := workloadapi.New(ctx, workloadapi.WithAddr("unix://"+socket))
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	if s, err := api.ValidateJWTSVID(ctx, token.Marshal(), "bank"); err != nil || s.ID != first.ID {
		t.Fatalf("validate: %v, %v", s, err)
	}
	if _, err := api.ValidateJWTSVID(ctx, token.Marshal(), "shop"); err == nil {
		t.Fatal("a token for another audience was accepted")
	}
}

// echo opens a mutual TLS connection to an echo server, both with source's SVID.
func echo(t *testing.T, source *workloadapi.X509Source) net.Conn {
	t.Helper()
	td := spiffeid.RequireTrustDomainFromString("cluster.local")
	l, err := tls.Listen("tcp", "127.0.0.1:0", tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeMemberOf(td)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go echoServer(l)
	conn, err := tls.Dial("tcp", l.Addr().String(), tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeMemberOf(td)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	say(t, conn, "hello")
	return conn
}

func echoServer(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

func say(t *testing.T, c net.Conn, what string) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte(what)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(what))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != what {
		t.Fatalf("said %q, heard %q, %v", what, b, err)
	}
}

func TestIdentityOfAnotherNodesPodIsNotIssued(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, socket := node(t, time.Hour, "somebody-else")
	if _, err := workloadapi.FetchX509SVID(ctx, workloadapi.WithAddr("unix://"+socket)); err == nil {
		t.Fatal("an identity that no pod of this node has was issued")
	}
}

// TestEnvoy has the real Envoy take SVID and bundle over SDS on both sides of a
// mutual TLS connection, and rotates under it. XEBEC_ENVOY names the program.
func TestEnvoy(t *testing.T) {
	envoy := os.Getenv("XEBEC_ENVOY")
	if envoy == "" {
		t.Skip("XEBEC_ENVOY is not set")
	}
	_, socket := node(t, 4*time.Second, "cart")
	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	go echoServer(upstream)
	plain, mtls, admin := freePort(t), freePort(t), freePort(t)
	config := filepath.Join(t.TempDir(), "envoy.yaml")
	text := strings.NewReplacer("@SOCKET", socket, "@PLAIN", plain, "@MTLS", mtls, "@ADMIN", admin,
		"@UPSTREAM", fmt.Sprint(upstream.Addr().(*net.TCPAddr).Port)).Replace(envoyConfig)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(envoy, "-c", config, "--concurrency", "1", "-l", "warn", "--base-id", plain)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()

	conn := dialEnvoy(t, "127.0.0.1:"+plain)
	defer conn.Close()
	first := serialOf(t, "127.0.0.1:"+mtls)
	until := time.Now().Add(20 * time.Second)
	for serialOf(t, "127.0.0.1:"+mtls) == first {
		if time.Now().After(until) {
			t.Fatal("Envoy did not take the new SVID")
		}
		say(t, conn, "still there")
		<-time.After(100 * time.Millisecond)
	}
	<-time.After(4 * time.Second) // past the end of the first
	say(t, conn, "after rotation")
	fresh := dialEnvoy(t, "127.0.0.1:"+plain)
	defer fresh.Close()
	if n := stat(t, admin, "cluster.mtls.upstream_cx_connect_fail"); n != "0" {
		t.Fatalf("%s connections failed", n)
	}
}

// dialEnvoy connects through both of Envoy's listeners, as soon as it is up.
func dialEnvoy(t *testing.T, addr string) net.Conn {
	t.Helper()
	until := time.Now().Add(20 * time.Second)
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			_, err = c.Write([]byte("x"))
			if err == nil {
				_, err = io.ReadFull(c, make([]byte, 1))
			}
			if err == nil {
				return c
			}
			c.Close()
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// serialOf is the certificate that a server presents.
func serialOf(t *testing.T, addr string) string {
	t.Helper()
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Text(16)
}

func stat(t *testing.T, admin, name string) string {
	t.Helper()
	resp, err := http.Get("http://127.0.0.1:" + admin + "/stats?filter=^" + name + "$")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	_, value, _ := strings.Cut(strings.TrimSpace(string(b)), ": ")
	return value
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

const envoyConfig = `
node: {id: test, cluster: test}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: @ADMIN}}}
static_resources:
  listeners:
  - name: plain
    address: {socket_address: {address: 127.0.0.1, port_value: @PLAIN}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: plain, cluster: mtls}
  - name: mtls
    address: {socket_address: {address: 127.0.0.1, port_value: @MTLS}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: mtls, cluster: echo}
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context: &tls
            tls_certificate_sds_secret_configs:
            - {name: default, sds_config: &sds {resource_api_version: V3, api_config_source: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xebec-agent}}]}}}
            combined_validation_context:
              default_validation_context:
                match_typed_subject_alt_names:
                - {san_type: URI, matcher: {exact: spiffe://cluster.local/ns/shop/sa/cart}}
              validation_context_sds_secret_config:
                name: ROOTCA
                sds_config: {resource_api_version: V3, api_config_source: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xebec-agent}}]}}
  clusters:
  - name: echo
    load_assignment: {cluster_name: echo, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: @UPSTREAM}}}}]}]}
  - name: mtls
    load_assignment: {cluster_name: mtls, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: @MTLS}}}}]}]}
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context: *tls
  - name: xebec-agent
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: xebec-agent, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: @SOCKET}}}}]}]}
`
