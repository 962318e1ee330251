package apiserver_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	agentforward "k8s.io/cri-streaming/pkg/streaming/portforward"
	agentcommand "k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/xebec-mesh/xebec/orchestrator/apiserver"
	"github.com/xebec-mesh/xebec/orchestrator/apiserver/apitest"
	"github.com/xebec-mesh/xebec/orchestrator/auth"
	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// agent is a node agent that echoes.
type agent struct{}

func (agent) ExecInContainer(_ context.Context, _, _, container string, cmd []string, in io.Reader, out, errOut io.WriteCloser, _ bool, _ <-chan agentcommand.TerminalSize, _ time.Duration) error {
	fmt.Fprintf(out, "%s runs %q\n", container, cmd)
	if in != nil {
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
	}
	if errOut != nil {
		fmt.Fprint(errOut, "done\n")
	}
	return nil
}

func (agent) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	buf := make([]byte, 64)
	n, err := stream.Read(buf)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stream, "port %d got %s", port, buf[:n])
	return err
}

func (a agent) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{ns}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "log of %s %s\n", r.PathValue("container"), r.URL.RawQuery)
	})
	mux.HandleFunc("/exec/{ns}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		opts := &agentcommand.Options{Stdin: q.Get("input") == "1", Stdout: q.Get("output") == "1", Stderr: q.Get("error") == "1", TTY: q.Get("tty") == "1"}
		agentcommand.ServeExec(w, r, a, "p", "", r.PathValue("container"), q["command"], opts, time.Minute, time.Minute, agentcommand.SupportedStreamingProtocols)
	})
	mux.HandleFunc("/portForward/{ns}/{pod}", func(w http.ResponseWriter, r *http.Request) {
		opts, err := agentforward.NewV4Options(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		agentforward.ServePortForward(w, r, a, "p", "", opts, time.Minute, time.Minute, agentforward.SupportedProtocols)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s authorization=%q", r.TLS.PeerCertificates[0].Subject.CommonName, r.Header.Get("Authorization"))
	})
	return mux
}

// withNode is a server, a node with an agent, and a pod on it.
func withNode(t *testing.T) (*apitest.Server, *rest.Config) {
	t.Helper()
	pki, err := auth.EnsurePKI(auth.PKIConfig{Dir: t.TempDir(), Hosts: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	serving, err := pki.ServingCert("agent", "system:node:n", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	toNodes, err := pki.ClientCert("to-nodes", "apiserver", auth.GroupMasters)
	if err != nil {
		t.Fatal(err)
	}
	node := httptest.NewUnstartedServer(agent{}.handler())
	node.TLS = &tls.Config{Certificates: []tls.Certificate{serving}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pki.ClientCAs()}
	node.StartTLS()
	t.Cleanup(node.Close)
	s := apitest.Start(t, func(c *apiserver.Config) {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pki.CAPEM)
		c.NodeTLS = &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{toNodes}}
	})
	cfg := s.Config(t, "admin", "system:masters")
	seed(t, s, node.Listener.Addr().(*net.TCPAddr).Port)
	return s, cfg
}

func seed(t *testing.T, s *apitest.Server, port int) {
	t.Helper()
	ctx := context.Background()
	nodes := client.For(s.Client, client.Nodes)
	n, err := nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
	if err != nil {
		t.Fatal(err)
	}
	n = n.DeepCopy()
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
	n.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(port)
	if _, err := nodes.UpdateStatus(ctx, n); err != nil {
		t.Fatal(err)
	}
	if _, err := client.For(s.Client, client.ServiceAccounts).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}}); err != nil {
		t.Fatal(err)
	}
	for name, node := range map[string]string{"p": "n", "unbound": ""} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "main", Image: "x"}}}}
		if name == "p" {
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "side", Image: "x"})
		}
		if _, err := client.For(s.Client, client.Pods).Create(ctx, pod); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPodLog(t *testing.T) {
	_, cfg := withNode(t)
	c := kubernetes.NewForConfigOrDie(cfg)
	tail := int64(5)
	logs := func(pod string, o corev1.PodLogOptions) (string, error) {
		stream, err := c.CoreV1().Pods("default").GetLogs(pod, &o).Stream(context.Background())
		if err != nil {
			return "", err
		}
		defer stream.Close()
		raw, err := io.ReadAll(stream)
		return string(raw), err
	}
	if got, err := logs("p", corev1.PodLogOptions{Container: "main", TailLines: &tail, Timestamps: true}); err != nil || !strings.HasPrefix(got, "log of main ") || !strings.Contains(got, "tailLines=5&timestamps=true") {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []struct {
		pod, container, text string
	}{
		{"p", "", "a container name must be specified for pod p, choose one of: [main side]"},
		{"p", "none", "container none is not valid for pod p"},
		{"unbound", "main", "does not have a host assigned"},
	} {
		if _, err := logs(bad.pod, corev1.PodLogOptions{Container: bad.container}); !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), bad.text) {
			t.Errorf("%s/%s: %v", bad.pod, bad.container, err)
		}
	}
	tail = -1
	if _, err := logs("p", corev1.PodLogOptions{Container: "main", TailLines: &tail}); !apierrors.IsBadRequest(err) {
		t.Errorf("a negative tail: %v", err)
	}
}

// Exec works over SPDY, as older clients have it, and over WebSocket.
func TestPodExec(t *testing.T) {
	_, cfg := withNode(t)
	c := kubernetes.NewForConfigOrDie(cfg)
	target := c.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name("p").SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: "side", Command: []string{"cat", "-"}, Stdin: true, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
	for name, dial := range map[string]func() (remotecommand.Executor, error){
		"spdy": func() (remotecommand.Executor, error) { return remotecommand.NewSPDYExecutor(cfg, "POST", target) },
		"websocket": func() (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(cfg, "GET", target.String())
		},
	} {
		t.Run(name, func(t *testing.T) {
			executor, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var out, errOut bytes.Buffer
			err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out, Stderr: &errOut})
			if err != nil || out.String() != "side runs [\"cat\" \"-\"]\nhello" || errOut.String() != "done\n" {
				t.Errorf("out %q, err %q, %v", out.String(), errOut.String(), err)
			}
		})
	}
}

func TestPortForward(t *testing.T) {
	_, cfg := withNode(t)
	c := kubernetes.NewForConfigOrDie(cfg)
	target := c.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name("p").SubResource("portforward").URL()
	for name, dial := range map[string]func(*testing.T) httpstream.Dialer{"spdy": spdyDialer(cfg, target), "websocket": tunnelDialer(cfg, target)} {
		t.Run(name, func(t *testing.T) {
			stop, ready := make(chan struct{}), make(chan struct{})
			f, err := portforward.NewForStreaming(dial(t), []string{"0:8080"}, stop, ready, io.Discard, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- f.ForwardPorts() }()
			select {
			case <-ready:
			case err := <-done:
				t.Fatal(err)
			}
			ports, err := f.GetPorts()
			if err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(int(ports[0].Local)))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(conn, "ping")
			got, err := io.ReadAll(conn)
			if err != nil || string(got) != "port 8080 got ping" {
				t.Errorf("%q, %v", got, err)
			}
			conn.Close()
			close(stop)
			<-done
		})
	}
}

func spdyDialer(cfg *rest.Config, target *url.URL) func(*testing.T) httpstream.Dialer {
	return func(t *testing.T) httpstream.Dialer {
		transport, upgrader, err := spdy.RoundTripperFor(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, target)
	}
}

func tunnelDialer(cfg *rest.Config, target *url.URL) func(*testing.T) httpstream.Dialer {
	return func(t *testing.T) httpstream.Dialer {
		d, err := portforward.NewSPDYOverWebsocketDialerForStreaming(target, cfg)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
}

// The client's credentials end at the API server.
func TestNodeProxy(t *testing.T) {
	_, cfg := withNode(t)
	c := kubernetes.NewForConfigOrDie(cfg)
	raw, err := c.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes/n/proxy/healthz").SetHeader("Authorization", "Basic c2VjcmV0").DoRaw(context.Background())
	if err != nil || string(raw) != `apiserver authorization=""` {
		t.Errorf("%q, %v", raw, err)
	}
}
