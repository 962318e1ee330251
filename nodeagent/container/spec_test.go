package container

import (
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func request() Request {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-0", UID: "u1", Labels: map[string]string{"app": "web"}}}
	return Request{
		ID: "c1", Pod: pod, Container: &corev1.Container{Name: "app", Image: "web:v1"}, Cgroup: "/xebec/podu1",
		Image: ocispec.ImageConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"default"}, Env: []string{"PATH=/bin", "A=image"}, WorkingDir: "/work"},
		Host:  Host{MemoryBytes: 1 << 30, LowerOOM: true},
	}
}

func build(t *testing.T, r Request) *specs.Spec {
	t.Helper()
	s, err := BuildSpec(r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCommand(t *testing.T) {
	for _, c := range []struct{ command, args, want []string }{
		{nil, nil, []string{"/entry", "default"}},
		{nil, []string{"$(A)", "$$(A)"}, []string{"/entry", "1", "$(A)"}},
		{[]string{"/own"}, nil, []string{"/own"}},
		{[]string{"/own"}, []string{"x"}, []string{"/own", "x"}},
	} {
		r := request()
		r.Env = []string{"A=1"}
		r.Container.Command, r.Container.Args = c.command, c.args
		if got := build(t, r).Process.Args; !slices.Equal(got, c.want) {
			t.Errorf("command %v args %v = %v, want %v", c.command, c.args, got, c.want)
		}
	}
	r := request()
	r.Image = ocispec.ImageConfig{}
	if _, err := BuildSpec(r); err == nil {
		t.Error("a container without a command was accepted")
	}
}

func TestEnvironmentOrder(t *testing.T) {
	r := request()
	r.Env = []string{"A=pod", "B=2"}
	if got := build(t, r).Process.Env; !slices.Equal(got, []string{"PATH=/bin", "A=pod", "B=2"}) {
		t.Errorf("env = %v", got)
	}
}

func TestResources(t *testing.T) {
	r := request()
	r.Container.Resources = corev1.ResourceRequirements{
		Requests: corev1.ResourceList{"cpu": resource.MustParse("500m"), "memory": resource.MustParse("512Mi")},
		Limits:   corev1.ResourceList{"cpu": resource.MustParse("1500m"), "memory": resource.MustParse("1Gi")},
	}
	r.Pod.Status.QOSClass = corev1.PodQOSBurstable
	s := build(t, r)
	if c := s.Linux.Resources.CPU; *c.Shares != 512 || *c.Quota != 150000 || *c.Period != 100000 {
		t.Errorf("cpu = %d %d/%d", *c.Shares, *c.Quota, *c.Period)
	}
	if *s.Linux.Resources.Memory.Limit != 1<<30 {
		t.Errorf("memory = %d", *s.Linux.Resources.Memory.Limit)
	}
	if *s.Process.OOMScoreAdj != 500 {
		t.Errorf("oom score = %d", *s.Process.OOMScoreAdj)
	}
	r.Pod.Status.QOSClass = corev1.PodQOSGuaranteed
	if got := *build(t, r).Process.OOMScoreAdj; got != -997 {
		t.Errorf("oom score = %d", got)
	}
	r.Host.LowerOOM = false
	if got := *build(t, r).Process.OOMScoreAdj; got != 0 {
		t.Errorf("oom score without the capability = %d", got)
	}
}

func TestSecurity(t *testing.T) {
	yes, no := true, false
	r := request()
	r.User = specs.User{UID: 1000, GID: 1000}
	r.Container.SecurityContext = &corev1.SecurityContext{
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_BIND_SERVICE"}},
		AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	s := build(t, r)
	if got := s.Process.Capabilities.Bounding; !slices.Equal(got, []string{"CAP_NET_BIND_SERVICE"}) {
		t.Errorf("capabilities = %v", got)
	}
	if len(s.Process.Capabilities.Effective) > 0 {
		t.Error("a user who is not root has effective capabilities")
	}
	if !s.Process.NoNewPrivileges || !s.Root.Readonly || s.Linux.Seccomp == nil || len(s.Linux.MaskedPaths) == 0 {
		t.Errorf("not hardened: %+v", s)
	}
	r.Container.SecurityContext.Capabilities.Add = []corev1.Capability{"FLY"}
	if _, err := BuildSpec(r); err == nil || !strings.Contains(err.Error(), "FLY") {
		t.Errorf("an unknown capability: %v", err)
	}
	r = request()
	r.Container.SecurityContext = &corev1.SecurityContext{Privileged: &yes}
	s = build(t, r)
	if len(s.Linux.MaskedPaths) > 0 || s.Linux.Seccomp != nil || !s.Linux.Resources.Devices[0].Allow {
		t.Errorf("privileged, but %+v", s.Linux)
	}
}

func TestHostNamespaces(t *testing.T) {
	r := request()
	r.Namespaces = Namespaces{Net: "/n", IPC: "/i", UTS: "/u"}
	kinds := func() string {
		var out []string
		for _, n := range build(t, r).Linux.Namespaces {
			out = append(out, string(n.Type)+"="+n.Path)
		}
		return strings.Join(out, " ")
	}
	if got := kinds(); got != "mount= network=/n pid= ipc=/i uts=/u" {
		t.Errorf("namespaces = %s", got)
	}
	r.Pod.Spec.HostNetwork, r.Pod.Spec.HostPID, r.Pod.Spec.HostIPC = true, true, true
	if got := kinds(); got != "mount=" {
		t.Errorf("namespaces = %s", got)
	}
}

func TestServiceLinks(t *testing.T) {
	svc := func(ns, name, ip string, ports ...corev1.ServicePort) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: ports}}
	}
	src := Sources{Services: []*corev1.Service{
		svc("default", "kubernetes", "10.96.0.1", corev1.ServicePort{Name: "https", Port: 443}),
		svc("other", "no", "10.96.0.9", corev1.ServicePort{Port: 1}),
		svc("default", "redis-main", "10.96.0.3", corev1.ServicePort{Port: 6379, Protocol: corev1.ProtocolTCP}),
		svc("default", "headless", "None", corev1.ServicePort{Port: 1}),
	}}
	r := request()
	env, err := Environment(r.Pod, r.Container, src)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(env, "\n")
	for _, want := range []string{
		"KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT_HTTPS=443", "KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443",
		"REDIS_MAIN_SERVICE_HOST=10.96.0.3", "REDIS_MAIN_PORT_6379_TCP_ADDR=10.96.0.3",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("env =\n%s\nwant %s", got, want)
		}
	}
	if strings.Contains(got, "NO_") || strings.Contains(got, "HEADLESS") {
		t.Errorf("env =\n%s", got)
	}
	no := false
	r.Pod.Spec.EnableServiceLinks = &no
	if env, _ = Environment(r.Pod, r.Container, src); strings.Contains(strings.Join(env, "\n"), "REDIS") {
		t.Error("links that were not wanted")
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("a $(B) $$(B) $(NONE) $")
	f.Add("$(")
	f.Fuzz(func(t *testing.T, s string) {
		got := Expand(s, func(name string) (string, bool) { return name, false })
		if !strings.Contains(s, "$$") && got != s {
			t.Errorf("Expand(%q) = %q without a variable that has a value", s, got)
		}
	})
}

func BenchmarkBuildSpec(b *testing.B) {
	for b.Loop() {
		if _, err := BuildSpec(request()); err != nil {
			b.Fatal(err)
		}
	}
}
