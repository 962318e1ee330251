package registry_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
	"github.com/xebec-mesh/xebec/pilot/model"
	"github.com/xebec-mesh/xebec/pilot/registry"
)

// TestFollows: what is in the API is in the model, from the first publication on, and
// what concerns nobody in the mesh is not published.
func TestFollows(t *testing.T) {
	c := memory.New(nil)
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"},
		Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}}
	if _, err := client.For(c, client.Services).Create(ctx, svc); err != nil {
		t.Fatal(err)
	}
	published := make(chan []model.Key, 100)
	var last *model.Mesh
	r, err := registry.New(registry.Config{Client: c, Settings: model.NewSettings(), Log: slog.New(slog.DiscardHandler),
		Publish: func(m *model.Mesh, touched []model.Key) { last = m; published <- touched }})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	defer func() { cancel(); <-done }()
	next := func() []model.Key {
		t.Helper()
		select {
		case k := <-published:
			return k
		case <-time.After(10 * time.Second):
			t.Fatal("nothing was published")
			return nil
		}
	}
	next()
	const host = "web.default.svc.cluster.local"
	if s := (&model.Reader{Mesh: last}).Service(host); s == nil || s.Ports.Len() != 1 {
		t.Fatalf("the first model lacks the service: %v", s)
	}

	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-0", Namespace: "default"}}
	pod, err = client.For(c, client.Pods).Create(ctx, pod)
	if err != nil {
		t.Fatal(err)
	}
	if k := next(); len(k) != 1 || k[0] != (model.Key{Kind: model.KindWorkload, Name: "default/web-0"}) {
		t.Errorf("a pod touched %v", k)
	}
	pod = pod.DeepCopy()
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if _, err := client.For(c, client.Pods).UpdateStatus(ctx, pod); err != nil {
		t.Fatal(err)
	}
	name, port := "http", int32(8080)
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "web-1", Namespace: "default", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.244.0.1"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "web-0"}}},
	}
	if _, err := client.For(c, client.EndpointSlices).Create(ctx, slice); err != nil {
		t.Fatal(err)
	}
	if k := next(); len(k) != 2 || k[0] != (model.Key{Kind: model.KindEndpoints, Name: host}) { // and not the pod's readiness
		t.Errorf("a slice touched %v", k)
	}
	eps := (&model.Reader{Mesh: last}).Endpoints(host)
	if got := eps.ByPort["http"]; len(got) != 1 || got[0].Workload == nil || got[0].Port != 8080 {
		t.Errorf("endpoints %+v", got)
	}

	v := &networkingv1.VirtualService{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"},
		Spec: networking.VirtualService{Hosts: []string{"web"}}}
	if v, err = client.For(c, client.VirtualServices).Create(ctx, v); err != nil {
		t.Fatal(err)
	}
	if k := next(); len(k) != 1 || k[0] != (model.Key{Kind: model.KindVirtualService, Name: host}) {
		t.Errorf("a route touched %v", k)
	}
	v = v.DeepCopy()
	v.Labels = map[string]string{"x": "y"} // means nothing to the mesh
	if _, err := client.For(c, client.VirtualServices).Update(ctx, v); err != nil {
		t.Fatal(err)
	}
	if err := client.For(c, client.Services).Delete(ctx, "default", "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if k := next(); k[0] != (model.Key{Kind: model.KindService, Name: host}) {
		t.Errorf("the end of the service touched %v", k)
	}
}
