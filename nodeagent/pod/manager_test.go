package pod_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/nodeagent/container"
	"github.com/xebec-mesh/xebec/nodeagent/containerd"
	"github.com/xebec-mesh/xebec/nodeagent/logs"
	"github.com/xebec-mesh/xebec/nodeagent/network"
	"github.com/xebec-mesh/xebec/nodeagent/nodetest"
	"github.com/xebec-mesh/xebec/nodeagent/pod"
	"github.com/xebec-mesh/xebec/nodeagent/probe"
	"github.com/xebec-mesh/xebec/nodeagent/status"
	"github.com/xebec-mesh/xebec/nodeagent/volume"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
)

// machine is a node with pods, on an API in memory.
type machine struct {
	*testing.T
	node   *nodetest.Node
	api    *memory.Client
	pods   client.Typed[*corev1.Pod]
	mgr    *pod.Manager
	events *recorder
	stop   func()
}

type recorder struct{ t testing.TB }

func (r *recorder) EventFor(o corev1.ObjectReference, _ *corev1.ObjectReference, kind, reason, _ string, format string, args ...any) {
	r.t.Logf("event %s %s %s %s: %s", o.Name, o.FieldPath, kind, reason, fmt.Sprintf(format, args...))
}

// cni is a plugin that gives out an address without making an interface.
func cni(_ context.Context, _ []byte, environ []string) ([]byte, error) {
	for _, e := range environ {
		if e == "CNI_COMMAND=ADD" {
			return []byte(`{"cniVersion":"1.0.0","ips":[{"address":"127.0.0.1/32"}]}`), nil
		}
	}
	return []byte(`{"cniVersion":"1.0.0"}`), nil
}

func newMachine(t *testing.T) *machine {
	m := &machine{T: t, node: nodetest.Start(t), api: memory.New(time.Now)}
	m.pods = client.For[*corev1.Pod](m.api, client.Pods)
	m.events = &recorder{t}
	m.run()
	t.Cleanup(func() { m.stop() })
	return m
}

// run starts an agent; stop ends it and leaves the pods.
func (m *machine) run() {
	ctx, cancel := context.WithCancel(context.Background())
	must := func(err error) {
		m.Helper()
		if err != nil {
			m.Fatal(err)
		}
	}
	log := slog.New(slog.NewTextHandler(testWriter{m.T}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	rt, err := container.NewRuntime(container.Config{
		Client: m.node.Client, Namespace: containerd.Namespace, Owner: m.node.Dir, Snapshotter: "overlayfs",
		Shim: m.node.Daemon.Shim(), Runc: m.node.Daemon.Runc(), ShimCgroup: "/node-test/shims",
	})
	must(err)
	net, err := network.NewNetwork(network.Config{
		ConfDir: filepath.Join(m.node.Dir, "net.d"), CacheDir: filepath.Join(m.node.Dir, "cni"), Plugin: cni,
	})
	must(err)
	vols, err := volume.New(volume.Config{
		Client: m.api, StateDir: filepath.Join(m.node.Dir, "pods"), RunDir: filepath.Join(m.node.Dir, "run/pods"),
	})
	must(err)
	probes, err := probe.New(probe.Config{})
	must(err)
	writer, err := status.New(ctx, status.Config{Client: m.api, Log: log})
	must(err)
	m.mgr, err = pod.New(pod.Config{
		Client: m.api, Node: "n1", Runtime: rt, Images: m.node.Images, Network: net, Volumes: vols, Probes: probes,
		Status: writer, Events: m.events, StateDir: filepath.Join(m.node.Dir, "pods"), RunDir: filepath.Join(m.node.Dir, "run/pods"),
		LogDir: filepath.Join(m.node.Dir, "logs"), Cgroup: "/node-test", Log: log,
		Host: func() pod.Host {
			return pod.Host{Name: "n1", IPs: []string{"192.0.2.1"}, PodCIDRs: []string{"127.0.0.0/8"}, DNS: []string{"10.96.0.10"}, Domain: "cluster.local"}
		},
	})
	must(err)
	ended := make(chan struct{}, 2)
	go func() { _ = vols.Run(ctx, m.mgr.Poke); ended <- struct{}{} }()
	go func() {
		if err := m.mgr.Run(ctx); err != nil {
			m.Error(err)
		}
		ended <- struct{}{}
	}()
	m.stop = func() { cancel(); <-ended; <-ended; writer.Wait() }
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func newPod(name string, steps ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{
			NodeName: "n1", RestartPolicy: corev1.RestartPolicyAlways,
			Containers: []corev1.Container{{Name: "app", Image: nodetest.Ref, Args: steps}},
		},
	}
}

func (m *machine) create(p *corev1.Pod) *corev1.Pod {
	m.Helper()
	p, err := m.pods.Create(m.Context(), p)
	if err != nil {
		m.Fatal(err)
	}
	return p
}

// until waits for a pod to become as ok wants it; nil means that it is gone.
func (m *machine) until(name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	m.Helper()
	ctx, cancel := context.WithTimeout(m.Context(), 30*time.Second)
	defer cancel()
	got := make(chan *corev1.Pod, 1)
	view := m.pods.Informer(client.ListOptions{})
	stop := view.Subscribe(func(e client.Event) {
		p, _ := e.Object.(*corev1.Pod)
		if p != nil && p.Name != name {
			return
		}
		if e.Type == client.Deleted {
			p = nil
		}
		if e.Type != client.Synced && ok(p) {
			select {
			case got <- p:
			default:
			}
		}
	})
	defer stop()
	select {
	case p := <-got:
		return p
	case <-ctx.Done():
		p, _ := m.pods.Get(m.Context(), "default", name)
		m.Fatalf("pod %s: not %s: %+v", name, what, p)
		return nil
	}
}

func ready(p *corev1.Pod) bool {
	if p == nil || p.Status.Phase != corev1.PodRunning {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func (m *machine) logs(name, container string) string {
	m.Helper()
	v, err := m.mgr.Find(m.Context(), "default", name)
	if err != nil {
		m.Fatal(err)
	}
	var b bytes.Buffer
	if err := logs.Read(m.Context(), v.Containers[container].Log, logs.Query{Tail: -1}, &b, &b); err != nil {
		m.Fatal(err)
	}
	return b.String()
}

func (m *machine) delete(name string) {
	m.Helper()
	if err := m.pods.Delete(m.Context(), "default", name, metav1.DeleteOptions{}); err != nil {
		m.Fatal(err)
	}
	m.until(name, "gone", func(p *corev1.Pod) bool { return p == nil })
}

func TestPodRuns(t *testing.T) {
	m := newMachine(t)
	for i := range 3 {
		begin := time.Now()
		name := fmt.Sprintf("web-%d", i)
		m.create(newPod(name, "print=hello", "host", "cat=/etc/hosts", "sleep=1h"))
		m.until(name, "running", ready)
		t.Log("create to ready:", time.Since(begin))
		begin = time.Now()
		m.delete(name)
		t.Log("delete to gone:", time.Since(begin))
	}
}
