package pod_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/xebec-mesh/xebec/nodeagent/container"
	"github.com/xebec-mesh/xebec/nodeagent/containerd"
	"github.com/xebec-mesh/xebec/nodeagent/logs"
	"github.com/xebec-mesh/xebec/nodeagent/network"
	"github.com/xebec-mesh/xebec/nodeagent/nodetest"
	"github.com/xebec-mesh/xebec/nodeagent/pod"
	"github.com/xebec-mesh/xebec/nodeagent/probe"
	"github.com/xebec-mesh/xebec/nodeagent/shim"
	"github.com/xebec-mesh/xebec/nodeagent/status"
	"github.com/xebec-mesh/xebec/nodeagent/volume"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
)

// machine is a node with pods, on an API in memory.
type machine struct {
	testing.TB
	node   *nodetest.Node
	api    *memory.Client
	pods   client.Typed[*corev1.Pod]
	mgr    *pod.Manager
	events *recorder
	stop   func()
}

type recorder struct{ t testing.TB }

func (r *recorder) EventFor(o corev1.ObjectReference, _ *corev1.ObjectReference, kind, reason, _ string, format string, args ...any) {
	if _, ok := r.t.(*testing.B); ok {
		return
	}
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

func newMachine(t testing.TB) *machine {
	m := &machine{TB: t, node: nodetest.Start(t), api: memory.New(time.Now)}
	m.pods = client.For[*corev1.Pod](m.api, client.Pods)
	m.events = &recorder{t}
	m.run()
	t.Cleanup(func() { m.stop() })
	return m
}

// A containerd that runs already serves as well, through its socket.
func TestExistingContainerd(t *testing.T) {
	n := nodetest.Start(t)
	d, err := containerd.New(containerd.Config{Address: n.Daemon.Socket(), Shim: n.Daemon.Shim()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	if n.Client, err = d.Client(ctx); err != nil {
		t.Fatal(err)
	}
	m := &machine{TB: t, node: n, api: memory.New(time.Now), events: &recorder{t}}
	m.pods = client.For[*corev1.Pod](m.api, client.Pods)
	m.run()
	m.create(newPod("web", "print=hi", "sleep=1h"))
	m.until("web", "ready", ready)
	m.delete("web")
	m.empty()
	m.stop()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
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
	log := slog.New(slog.NewTextHandler(testWriter{m.TB}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	rt, err := container.NewRuntime(container.Config{
		Client: m.node.Client, Namespace: containerd.Namespace, Owner: m.node.Dir, Snapshotter: "overlayfs",
		Shim: m.node.Daemon.Shim(), Runc: m.node.Daemon.Runc(), ShimCgroup: "/node-test/shims",
	})
	must(err)
	must(rt.Open(ctx))
	pool, err := shim.New(shim.Config{
		Program: m.node.Daemon.Shim(), Dir: filepath.Join(m.node.Dir, "shims"), Namespace: containerd.Namespace,
		Containerd: m.node.Daemon.Socket(), Cgroup: "/node-test/shims",
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
		Status: writer, Events: m.events, Shims: pool, StateDir: filepath.Join(m.node.Dir, "pods"), RunDir: filepath.Join(m.node.Dir, "run/pods"),
		LogDir: filepath.Join(m.node.Dir, "logs"), Cgroup: "/node-test", Log: log,
		Host: func() pod.Host {
			return pod.Host{Name: "n1", IPs: []string{"192.0.2.1"}, PodCIDRs: []string{"127.0.0.0/8"}, DNS: []string{"10.96.0.10"}, Domain: "cluster.local"}
		},
	})
	must(err)
	ended := make(chan struct{}, 3)
	go func() { _ = pool.Run(ctx, m.mgr.Shims()); ended <- struct{}{} }()
	go func() { _ = vols.Run(ctx, m.mgr.Poke); ended <- struct{}{} }()
	go func() {
		if err := m.mgr.Run(ctx); err != nil {
			m.Error(err)
		}
		ended <- struct{}{}
	}()
	m.stop = func() { cancel(); <-ended; <-ended; <-ended; writer.Wait() }
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	if _, ok := w.t.(*testing.B); ok {
		return len(b), nil
	}
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func newPod(name string, steps ...string) *corev1.Pod {
	grace := int64(2) // a signal that comes before the program has a handler is lost: it is its namespace's init
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{
			NodeName: "n1", RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace,
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
		if e.Type == client.Synced { // the first list is over: is it there at all?
			if p, _ = view.Get("default", name); p != nil {
				return
			}
		}
		if ok(p) {
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

func phaseIs(want corev1.PodPhase) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return p != nil && p.Status.Phase == want }
}

// What a container sees of its configuration.
func TestPodConfiguration(t *testing.T) {
	m := newMachine(t)
	create := func(k client.Resource, o client.Object) {
		t.Helper()
		if _, err := m.api.Create(m.Context(), k, o, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	meta := metav1.ObjectMeta{Namespace: "default", Name: "conf"}
	create(client.ConfigMaps.Resource, &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"color": "blue", "file.txt": "from a map\n"}})
	create(client.Secrets.Resource, &corev1.Secret{ObjectMeta: meta, Data: map[string][]byte{"password": []byte("hunter2\n")}})
	p := newPod("conf", "env=COLOR", "env=GREETING", "env=WHO", "env=CPU", "cat=/etc/conf/file.txt", "cat=/etc/secret/password",
		"stat=/etc/secret/..data/password", "cat=/etc/info/labels", "write=/cache/x:1", "stat=/cache/x", "cat=/sub", "id", "cat=/etc/resolv.conf", "cat=/proc/self/oom_score_adj", "sleep=1h")
	p.Labels = map[string]string{"app": "conf"}
	uid, gid, fs, mode := int64(1000), int64(1001), int64(2000), int32(0o400)
	p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &uid, FSGroup: &fs, RunAsGroup: &gid}
	p.Spec.Volumes = []corev1.Volume{
		{Name: "conf", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}}}},
		{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "conf", DefaultMode: &mode}}},
		{Name: "info", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}}},
		{Name: "cache", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
	}
	c := &p.Spec.Containers[0]
	c.VolumeMounts = []corev1.VolumeMount{
		{Name: "conf", MountPath: "/etc/conf"}, {Name: "secret", MountPath: "/etc/secret"}, {Name: "info", MountPath: "/etc/info"},
		{Name: "cache", MountPath: "/cache"}, {Name: "conf", MountPath: "/sub", SubPath: "file.txt"},
	}
	c.Env = []corev1.EnvVar{
		{Name: "COLOR", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}, Key: "color"}}},
		{Name: "GREETING", Value: "hello $(COLOR) $$(COLOR) $(NONE)"},
		{Name: "WHO", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
		{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu", Divisor: resource.MustParse("1m")}}},
	}
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m"), corev1.ResourceMemory: resource.MustParse("64Mi")}
	m.create(p)
	m.until("conf", "running", ready)
	want := strings.Join([]string{
		"COLOR=blue", "GREETING=hello blue $(COLOR) $(NONE)", "WHO=conf", "CPU=250", "from a map", "hunter2",
		"/etc/secret/..data/password -r--r----- 0:2000", `app="conf"`,
	}, "\n")
	got := m.settled("conf", "app", "oom", func(s string) bool { return strings.Count(s, "\n") >= 14 })
	if !strings.HasPrefix(got, want) {
		t.Errorf("log =\n%s\nwant it to begin with\n%s", got, want)
	}
	for _, part := range []string{"/cache/x -rw-r--r-- 1000:2000\nfrom a map\nuid 1000 gid 1001 groups [1001 2000", "nameserver 10.96.0.10", "search default.svc.cluster.local svc.cluster.local cluster.local"} {
		if !strings.Contains(got, part) {
			t.Errorf("log =\n%s\nwant in it %q", got, part)
		}
	}
}

// settled waits until a container's log is as ok wants it.
func (m *machine) settled(name, container, what string, ok func(string) bool) string {
	m.Helper()
	ctx, cancel := context.WithTimeout(m.Context(), 20*time.Second)
	defer cancel()
	v, err := m.mgr.Find(ctx, "default", name)
	if err != nil {
		m.Fatal(err)
	}
	w := &until{ok: ok, cancel: cancel}
	if err := logs.Read(ctx, v.Containers[container].Log, logs.Query{Tail: -1, Follow: true, Ended: v.Containers[container].Ended}, w, w); err != nil {
		m.Fatal(err)
	}
	if !ok(w.b.String()) {
		m.Fatalf("log of %s/%s is not %s:\n%s", name, container, what, w.b.String())
	}
	return w.b.String()
}

type until struct {
	b      bytes.Buffer
	ok     func(string) bool
	cancel func()
}

func (u *until) Write(p []byte) (int, error) {
	u.b.Write(p)
	if u.ok(u.b.String()) {
		u.cancel()
	}
	return len(p), nil
}

func waitingFor(reason string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		if p == nil {
			return false
		}
		for _, c := range append(p.Status.ContainerStatuses, p.Status.InitContainerStatuses...) {
			if c.State.Waiting != nil && c.State.Waiting.Reason == reason {
				return true
			}
		}
		return false
	}
}

// How pods end and begin again.
func TestPodLifecycle(t *testing.T) {
	m := newMachine(t)

	done := newPod("done", "print=bye", "write=/dev/termination-log:all is well")
	done.Spec.RestartPolicy = corev1.RestartPolicyNever
	m.create(done)
	failed := newPod("failed", "print=oh no", "exit=3")
	failed.Spec.RestartPolicy = corev1.RestartPolicyNever
	failed.Spec.Containers[0].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	m.create(failed)
	m.create(newPod("crash", "exit=1"))
	bad := newPod("bad")
	bad.Spec.Containers[0].Command = []string{"/nothing"}
	m.create(bad)
	absent := newPod("absent")
	absent.Spec.Containers[0].Image = "127.0.0.1:1/none:v1"
	m.create(absent)
	unset := newPod("unset", "env=A", "sleep=1h")
	unset.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "late"}, Key: "a"}}}}
	m.create(unset)
	hungry := newPod("hungry", "eat=200")
	hungry.Spec.RestartPolicy = corev1.RestartPolicyNever
	hungry.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("32Mi")}
	m.create(hungry)

	p := m.until("done", "done", phaseIs(corev1.PodSucceeded))
	if s := p.Status.ContainerStatuses[0].State.Terminated; s == nil || s.Reason != "Completed" || s.Message != "all is well" {
		t.Errorf("done: %+v", p.Status.ContainerStatuses[0])
	}
	p = m.until("failed", "failed", phaseIs(corev1.PodFailed))
	if s := p.Status.ContainerStatuses[0].State.Terminated; s == nil || s.ExitCode != 3 || s.Message != "oh no\n" {
		t.Errorf("failed: %+v", p.Status.ContainerStatuses[0])
	}
	p = m.until("crash", "in back-off", waitingFor("CrashLoopBackOff"))
	if s := p.Status.ContainerStatuses[0]; s.RestartCount != 1 || s.LastTerminationState.Terminated == nil || s.LastTerminationState.Terminated.ExitCode != 1 {
		t.Errorf("crash: %+v", s)
	}
	p = m.until("bad", "in back-off", waitingFor("CrashLoopBackOff"))
	if s := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; s == nil || s.Reason != "StartError" || !strings.Contains(s.Message, "/nothing") {
		t.Errorf("bad: %+v", p.Status.ContainerStatuses[0])
	}
	m.until("absent", "failing to pull", waitingFor("ErrImagePull"))
	m.until("absent", "backing off", waitingFor("ImagePullBackOff"))
	p = m.until("hungry", "failed", phaseIs(corev1.PodFailed))
	if s := p.Status.ContainerStatuses[0].State.Terminated; s == nil || s.Reason != "OOMKilled" || s.ExitCode != 137 {
		t.Errorf("hungry: %+v", p.Status.ContainerStatuses[0])
	}
	m.until("unset", "waiting", waitingFor("CreateContainerConfigError"))
	late := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "late"}, Data: map[string]string{"a": "1"}}
	if _, err := m.api.Create(m.Context(), client.ConfigMaps.Resource, late, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	m.until("unset", "running", ready)
	for _, name := range []string{"done", "failed", "crash", "bad", "absent", "unset", "hungry"} {
		m.delete(name)
	}
	m.empty()
}

// empty waits until nothing is left of any pod.
func (m *machine) empty() {
	m.Helper()
	var left []string
	for range 100 {
		left = nil
		for _, dir := range []string{"pods", "run/pods", "run/netns", "logs", "r/io.containerd.runtime.v2.task/k8s.io"} {
			entries, _ := os.ReadDir(filepath.Join(m.node.Dir, dir))
			for _, e := range entries {
				left = append(left, filepath.Join(dir, e.Name()))
			}
		}
		if len(left) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond) // files have no events worth their code here
	}
	m.Errorf("left behind: %v", left)
}

// Init containers come in order, sidecars stay and end last.
func TestSidecars(t *testing.T) {
	m := newMachine(t)
	always := corev1.ContainerRestartPolicyAlways
	p := newPod("side", "cat=/shared/log", "sleep=1h")
	p.Spec.Volumes = []corev1.Volume{{Name: "shared"}}
	mount := []corev1.VolumeMount{{Name: "shared", MountPath: "/shared"}}
	p.Spec.Containers[0].VolumeMounts = mount
	p.Spec.InitContainers = []corev1.Container{
		{Name: "first", Image: nodetest.Ref, Args: []string{"write=/shared/log:first"}, VolumeMounts: mount},
		{Name: "proxy", Image: nodetest.Ref, Args: []string{"print=proxy", "serve=:8099"}, RestartPolicy: &always, VolumeMounts: mount,
			StartupProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/app", "stat=/shared/log"}}}, PeriodSeconds: 1, FailureThreshold: 20},
		},
		{Name: "flaky", Image: nodetest.Ref, Args: []string{"stat=/shared/log", "once=/shared/once"}, VolumeMounts: mount},
	}
	m.create(p)
	p = m.until("side", "ready", ready)
	if n := p.Status.InitContainerStatuses[2].RestartCount; n != 1 {
		t.Errorf("restarts of flaky = %d, want 1", n)
	}
	if s := p.Status.InitContainerStatuses[1]; !s.Ready || s.State.Running == nil {
		t.Errorf("proxy: %+v", s)
	}
	m.delete("side")

	job := newPod("job", "print=work")
	job.Spec.RestartPolicy = corev1.RestartPolicyNever
	job.Spec.InitContainers = []corev1.Container{{Name: "proxy", Image: nodetest.Ref, Args: []string{"sleep=1h"}, RestartPolicy: &always}}
	m.create(job)
	m.until("job", "done", phaseIs(corev1.PodSucceeded))
	m.delete("job")

	slow := newPod("slow", "stubborn=ready")
	one := int64(1)
	slow.Spec.TerminationGracePeriodSeconds = &one
	slow.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"/app", "write=/tmp/started:yes"}}}}
	m.create(slow)
	m.until("slow", "ready", ready)
	m.settled("slow", "app", "ready", func(s string) bool { return s == "ready\n" })
	begin := time.Now()
	m.delete("slow")
	if took := time.Since(begin); took < 900*time.Millisecond || took > 20*time.Second {
		t.Errorf("a stubborn container went in %s, want its grace period of 1s", took)
	}
	m.empty()
}

// A shim that dies takes its containers along; the pod gets another.
func TestShimDies(t *testing.T) {
	m := newMachine(t)
	m.create(newPod("orphan", "sleep=1h"))
	p := m.until("orphan", "ready", ready)
	address, err := os.ReadFile(filepath.Join(m.node.Dir, "run/pods", string(p.UID), "shim"))
	if err != nil {
		t.Fatal(err)
	}
	id := filepath.Base(string(address))
	if out, err := exec.Command("pkill", "-KILL", "-f", "containerd-shim-xebec-v2.* -id "+id+" ").CombinedOutput(); err != nil {
		t.Fatalf("kill shim %s: %v %s", id, err, out)
	}
	m.until("orphan", "restarted", func(p *corev1.Pod) bool { return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
	m.delete("orphan")
	m.empty()
	if left, err := m.node.Client.Containers(nodetest.Context(t.Context())); err != nil || len(left) > 0 {
		t.Errorf("containers left: %v, %v", left, err)
	}
}

// Containers that share a process namespace see each other.
func TestSharedProcesses(t *testing.T) {
	m := newMachine(t)
	p := newPod("shared", "cat=/proc/1/cmdline", "print=", "sleep=1h")
	yes := true
	p.Spec.ShareProcessNamespace = &yes
	m.create(p)
	m.until("shared", "ready", ready)
	if log := m.settled("shared", "app", "printed", func(s string) bool { return s != "" }); !strings.Contains(log, "pause") {
		t.Errorf("process 1 is %q", log)
	}
	m.delete("shared")
	m.empty()
}

// A new image in the object replaces the container.
func TestImageChange(t *testing.T) {
	m := newMachine(t)
	m.create(newPod("swap", "sleep=1h"))
	m.until("swap", "ready", ready)
	if _, err := m.pods.Patch(t.Context(), "default", "swap", types.StrategicMergePatchType, []byte(`{"spec":{"containers":[{"name":"app","image":"docker.io/library/none:v2","imagePullPolicy":"Never"}]}}`), ""); err != nil {
		t.Fatal(err)
	}
	m.until("swap", "waiting for the new image", waitingFor("ErrImageNeverPull"))
	m.delete("swap")
	m.empty()
}

// Probes restart what is not alive and mark what is not ready.
func TestProbes(t *testing.T) {
	m := newMachine(t)
	p := newPod("sick", "once=/shared/x", "print=ok", "sleep=1h")
	p.Spec.Volumes = []corev1.Volume{{Name: "shared"}}
	p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "shared", MountPath: "/shared"}}
	p.Spec.Containers[0].Args = []string{"sleep=1h"}
	p.Spec.Containers[0].LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/app", "once=/shared/x"}}}, PeriodSeconds: 1, FailureThreshold: 1}
	m.create(p)
	m.until("sick", "restarted", func(p *corev1.Pod) bool {
		return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	web := newPod("web", "serve=127.0.0.1:8080")
	web.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(8080)}}}
	begin := time.Now()
	m.create(web)
	m.until("web", "ready", ready)
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("a pod that answers at once was ready after %s", took)
	}
	m.delete("sick")
	m.delete("web")
}

// An agent that starts anew adopts what runs and touches nothing.
func TestAdopt(t *testing.T) {
	m := newMachine(t)
	m.create(newPod("stays", "tick=50ms"))
	m.create(newPod("dies", "sleep=1h"))
	old := m.until("stays", "running", ready)
	m.until("dies", "running", ready)
	dies, err := m.mgr.Find(t.Context(), "default", "dies")
	if err != nil {
		t.Fatal(err)
	}
	m.stop()
	if err := dies.Containers["app"].Container.Kill(t.Context(), syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	m.run()
	p := m.until("dies", "restarted", func(p *corev1.Pod) bool { return ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1 })
	if s := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; s == nil || s.ExitCode != 137 {
		t.Errorf("dies: %+v", p.Status.ContainerStatuses[0])
	}
	p = m.until("stays", "running", ready)
	if a, b := old.Status.ContainerStatuses[0], p.Status.ContainerStatuses[0]; a.ContainerID != b.ContainerID || b.RestartCount != 0 {
		t.Errorf("adopted as %+v, was %+v", b, a)
	}
	m.delete("stays")
	m.delete("dies")
	m.empty()
}
