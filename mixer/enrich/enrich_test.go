package enrich

import (
	"context"
	"net/netip"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
)

var yes = true

func pod(name, ip string, labels map[string]string, owner string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: labels},
		Spec:       corev1.PodSpec{NodeName: "n1", ServiceAccountName: "sa"},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}, {IP: "fd00::" + name[len(name)-1:]}}},
	}
	if owner != "" {
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: owner, Controller: &yes}}
	}
	if change != nil {
		change(p)
	}
	return p
}

func TestFromPod(t *testing.T) {
	for name, tc := range map[string]struct {
		pod                      *corev1.Pod
		kind, name, app, version string
	}{
		"deployment": {pod("web-0", "", map[string]string{"app": "web", "version": "v1", "pod-template-hash": "abc"}, "web-v1-abc", nil), "Deployment", "web-v1", "web", "v1"},
		"replicaset": {pod("web-0", "", nil, "web", nil), "ReplicaSet", "web", "web", ""},
		"bare":       {pod("web-0", "", nil, "", nil), "Pod", "web-0", "web-0", ""},
		"canonical": {pod("web-0", "", map[string]string{"app": "a", "service.istio.io/canonical-name": "c", "service.istio.io/canonical-revision": "r", "version": "v"}, "", nil),
			"Pod", "web-0", "c", "r"},
	} {
		w := FromPod(tc.pod)
		if w.Kind != tc.kind || w.Name != tc.name || w.App != tc.app || w.Version != tc.version {
			t.Errorf("%s: %+v", name, w)
		}
	}
}

func TestAttributes(t *testing.T) {
	w := FromPod(pod("web-0", "10.0.0.1", map[string]string{"app": "web", "pod-template-hash": "abc"}, "web-abc", nil))
	data, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
		{Key: "k8s.pod.name", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "bank-0"}}},
	}}}}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := w.Overlay.Apply(nil, data)
	if err != nil {
		t.Fatal(err)
	}
	var got tracepb.TracesData
	if err := proto.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, kv := range got.ResourceSpans[0].Resource.Attributes {
		seen[kv.Key] = kv.Value.GetStringValue()
	}
	for k, v := range map[string]string{"k8s.pod.name": "web-0", "k8s.deployment.name": "web", "k8s.replicaset.name": "web-abc", "service.name": "web", "k8s.node.name": "n1"} {
		if seen[k] != v {
			t.Errorf("%s is %q, want %q", k, seen[k], v)
		}
	}
}

func TestDirectory(t *testing.T) {
	ctx := context.Background()
	api := memory.New(nil)
	defer api.Close()
	pods := client.For(api, client.Pods)
	for _, p := range []*corev1.Pod{
		pod("old-1", "10.0.0.1", map[string]string{"app": "old"}, "", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
		pod("new-2", "10.0.0.1", map[string]string{"app": "new"}, "", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "other" }),
		pod("host-3", "192.168.0.1", nil, "", func(p *corev1.Pod) { p.Spec.HostNetwork = true; p.Spec.ServiceAccountName = "other2" }),
		pod("a-4", "10.0.0.4", map[string]string{"app": "a", "version": "v1"}, "", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "a" }),
		pod("a-5", "10.0.0.5", map[string]string{"app": "a", "version": "v2"}, "", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "a" }),
	} {
		if _, err := pods.Create(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	d := NewDirectory(api)
	<-d.Synced()
	for ip, want := range map[string]string{"10.0.0.1": "new", "::ffff:10.0.0.1": "new", "fd00::2": "new", "192.168.0.1": "", "10.9.9.9": "", "127.0.0.1": ""} {
		got := ""
		if w := d.ByIP(netip.MustParseAddr(ip)); w != nil {
			got = w.App
		}
		if got != want {
			t.Errorf("%s is %q, want %q", ip, got, want)
		}
	}
	if w := d.ByPrincipal("spiffe://cluster.local/ns/shop/sa/a"); w == nil || w.App != "a" || w.Version != "" {
		t.Errorf("principal of two versions: %+v", w)
	}
	if w := d.ByPrincipal("spiffe://cluster.local/ns/shop/sa/nobody"); w != nil {
		t.Errorf("principal of nobody: %+v", w)
	}
	for _, bad := range []string{"", "spiffe://x", "spiffe://x/ns/a", "http://x/ns/a/sa/b", "spiffe://x/ns//sa/b"} {
		if _, ok := AccountOf(bad); ok {
			t.Errorf("%q names an account", bad)
		}
	}
	p, err := pods.Get(ctx, "shop", "a-4")
	if err != nil {
		t.Fatal(err)
	}
	if first, second := d.Of(p), d.Of(p); first != second {
		t.Error("a workload is made anew for the same version of its pod")
	}
}

func BenchmarkByIP(b *testing.B) {
	api := memory.New(nil)
	defer api.Close()
	if _, err := client.For(api, client.Pods).Create(context.Background(), pod("web-0", "10.0.0.1", nil, "", nil)); err != nil {
		b.Fatal(err)
	}
	d := NewDirectory(api)
	<-d.Synced()
	ip := netip.MustParseAddr("10.0.0.1")
	for b.Loop() {
		if d.ByIP(ip) == nil {
			b.Fatal("not found")
		}
	}
}
