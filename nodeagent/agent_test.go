package nodeagent_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"

	dpnet "github.com/xebec-mesh/xebec/dataplane/network"
	"github.com/xebec-mesh/xebec/nodeagent"
	"github.com/xebec-mesh/xebec/nodeagent/containerd"
	"github.com/xebec-mesh/xebec/nodeagent/network"
	"github.com/xebec-mesh/xebec/nodeagent/nodetest"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
)

// loopback is a pod network in which every pod has only itself.
type loopback struct{}

func (loopback) Add(context.Context, dpnet.Attachment) (*dpnet.Interface, error) {
	return &dpnet.Interface{Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}, nil
}
func (loopback) Del(context.Context, dpnet.Attachment) error   { return nil }
func (loopback) Check(context.Context, dpnet.Attachment) error { return nil }

type cluster struct {
	*testing.T
	api  *memory.Client
	pods client.Typed[*corev1.Pod]
	host string // of the node's server
}

func start(t *testing.T) *cluster {
	nodetest.RequireRoot(t)
	dir := nodetest.Dir(t)
	api := memory.New(time.Now)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.0.0/24"}}}
	if _, err := api.Create(t.Context(), client.Nodes.Resource, node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	a, err := nodeagent.New(nodeagent.Config{
		Client: api, Node: "n1", IPs: []string{"127.0.0.1"}, StateDir: filepath.Join(dir, "s"), RunDir: filepath.Join(dir, "r"), Cgroup: "/node-test",
		Containerd: containerd.Config{Shim: filepath.Join(nodetest.Programs(t), "containerd-shim-xebec-v2")},
		CNIConfDir: filepath.Join(dir, "net.d"), Listen: "127.0.0.1:0",
		PodNetwork: func(context.Context, []netip.Prefix) (network.Attacher, error) { return loopback{}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	images, err := a.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := images.Import(nodetest.Context(ctx), bytes.NewReader(nodetest.Archive(t))); err != nil {
		t.Fatal(err)
	}
	c := &cluster{T: t, api: api, pods: client.For(client.Interface(api), client.Pods)}
	n := await(t, client.For(client.Interface(api), client.Nodes).Informer(client.ListOptions{}), func(n *corev1.Node) bool {
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue && len(n.Status.Images) > 0 {
				return true
			}
		}
		return false
	})
	c.host = fmt.Sprintf("127.0.0.1:%d", n.Status.DaemonEndpoints.KubeletEndpoint.Port)
	return c
}

// await waits for an object that is as ok wants it.
func await[T client.Object](t *testing.T, v client.View[T], ok func(T) bool) T {
	t.Helper()
	got := make(chan T, 1)
	defer v.Subscribe(func(e client.Event) {
		if o, is := e.Object.(T); is && e.Type != client.Deleted && ok(o) {
			select {
			case got <- o:
			default:
			}
		}
	})()
	select {
	case o := <-got:
		return o
	case <-time.After(30 * time.Second):
		t.Fatal("waited in vain")
		panic("unreachable")
	}
}

func (c *cluster) run(name string, container corev1.Container) {
	c.Helper()
	container.Name, container.Image = "app", nodetest.Ref
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{NodeName: "n1", RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{container}},
	}
	if _, err := c.pods.Create(c.Context(), p); err != nil {
		c.Fatal(err)
	}
	await(c.T, c.pods.Informer(client.ListOptions{}), func(p *corev1.Pod) bool {
		return p.Name == name && p.Status.Phase == corev1.PodRunning
	})
	c.Cleanup(func() {
		zero := int64(0)
		_ = c.pods.Delete(context.Background(), "default", name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
	})
}

func (c *cluster) get(path string) string {
	c.Helper()
	resp, err := http.Get("http://" + c.host + path)
	if err != nil {
		c.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, b)
}

func TestServer(t *testing.T) {
	c := start(t)
	c.run("talk", corev1.Container{Args: []string{"print=one", "print=two", "print=three", "serve=127.0.0.1:8080"}})

	t.Run("logs", func(t *testing.T) {
		c.get("/containerLogs/default/talk/app?follow=true&limitBytes=14") // until all three are there
		for query, want := range map[string]string{
			"":                                "200 one\ntwo\nthree\n",
			"?tailLines=1":                    "200 three\n",
			"?tailLines=0":                    "200 ",
			"?limitBytes=5":                   "200 one\nt",
			"?previous=true":                  "400 previous terminated container \"app\" in pod \"talk\" not found\n",
			"?sinceTime=2199-01-01T00:00:00Z": "200 ",
			"?tailLines=x":                    "400 tailLines: \"x\": want a number of at least 0\n",
		} {
			if got := c.get("/containerLogs/default/talk/app" + query); got != want {
				t.Errorf("logs%s = %q, want %q", query, got, want)
			}
		}
		if got := c.get("/containerLogs/default/none/app"); !strings.HasPrefix(got, "404") {
			t.Errorf("logs of no pod = %q", got)
		}
	})
	t.Run("stats", func(t *testing.T) {
		if got := c.get("/stats/summary"); !strings.Contains(got, `"name":"talk"`) || !strings.Contains(got, "usageCoreNanoSeconds") || strings.Contains(got, `"workingSetBytes":0}}],`) {
			t.Errorf("stats = %s", got)
		}
	})
	for name, executor := range map[string]func(*url.URL) (remotecommand.Executor, error){
		"spdy": func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(&rest.Config{}, "POST", u)
		},
		"websocket": func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutorForProtocols(&rest.Config{}, "GET", u.String(), "v4.channel.k8s.io")
		},
	} {
		t.Run("exec "+name, func(t *testing.T) {
			run := func(stdin string, command ...string) (string, string, error) {
				q := url.Values{"command": command, "output": {"1"}, "error": {"1"}}
				opts := remotecommand.StreamOptions{}
				var out, errOut bytes.Buffer
				opts.Stdout, opts.Stderr = &out, &errOut
				if stdin != "" {
					q.Set("input", "1")
					opts.Stdin = strings.NewReader(stdin)
				}
				e, err := executor(&url.URL{Scheme: "http", Host: c.host, Path: "/exec/default/talk/app", RawQuery: q.Encode()})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				err = e.StreamWithContext(ctx, opts)
				return out.String(), errOut.String(), err
			}
			for range 10 { // output must not be lost, however quickly the command ends
				if out, errOut, err := run("", "/app", "print=hi", "complain=ho"); out != "hi\n" || errOut != "ho\n" || err != nil {
					t.Fatalf("exec = %q, %q, %v", out, errOut, err)
				}
			}
			if _, _, err := run("", "/app", "exit=7"); err == nil || !strings.Contains(err.Error(), "exit code 7") {
				t.Errorf("exit 7: %v", err)
			}
			if name == "spdy" { // a WebSocket of version 4 cannot end its input
				if out, _, err := run("shout\n", "/app", "echo"); out != "SHOUT\n" || err != nil {
					t.Errorf("echo = %q, %v", out, err)
				}
			}
		})
	}
	t.Run("attach", func(t *testing.T) {
		c := &cluster{T: t, api: c.api, pods: c.pods, host: c.host}
		c.run("ear", corev1.Container{Args: []string{"echo"}, Stdin: true})
		in, typed := io.Pipe()
		heard, out := io.Pipe()
		e, err := remotecommand.NewSPDYExecutor(&rest.Config{}, "POST", &url.URL{Scheme: "http", Host: c.host, Path: "/attach/default/ear/app", RawQuery: "input=1&output=1"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		go func() { _ = e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: out}); out.Close() }()
		go io.WriteString(typed, "hello\n")
		b := make([]byte, 6)
		if _, err := io.ReadFull(heard, b); err != nil || string(b) != "HELLO\n" {
			t.Errorf("heard %q, %v", b, err)
		}
	})
	t.Run("port-forward", func(t *testing.T) {
		rt, up, err := spdy.RoundTripperFor(&rest.Config{TLSClientConfig: rest.TLSClientConfig{}})
		if err != nil {
			t.Fatal(err)
		}
		dialer := spdy.NewDialer(up, &http.Client{Transport: rt}, "POST", &url.URL{Scheme: "http", Host: c.host, Path: "/portForward/default/talk"})
		stop, ready := make(chan struct{}), make(chan struct{})
		defer close(stop)
		f, err := portforward.New(dialer, []string{"0:8080"}, stop, ready, io.Discard, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if err := f.ForwardPorts(); err != nil {
				t.Error(err)
			}
		}()
		select {
		case <-ready:
		case <-time.After(10 * time.Second):
			t.Fatal("not ready")
		}
		ports, err := f.GetPorts()
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", ports[0].Local))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, _ := io.ReadAll(resp.Body); string(b) != "hello\n" {
			t.Errorf("answer = %q", b)
		}
	})
}
