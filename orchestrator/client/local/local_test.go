package local_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/clienttest"
	"github.com/xebec-mesh/xebec/orchestrator/client/local"
	"github.com/xebec-mesh/xebec/orchestrator/registry"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
	"github.com/xebec-mesh/xebec/orchestrator/store"
)

var virtualServices = &resource.Kind{
	GroupVersionKind: client.VirtualServices.GroupVersionKind(),
	Resource:         client.VirtualServices.Resource.Resource,
	Namespaced:       true,
	Custom:           true,
	New:              func() resource.Object { return &unstructured.Unstructured{} },
}

func open(t *testing.T) client.Interface {
	log := slog.New(slog.DiscardHandler)
	r, err := registry.New(registry.Config{Store: store.NewMemory(), Kinds: append(resource.Kinds(), virtualServices), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.Run(ctx) })
	c, err := local.New(local.Config{Registry: r, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); cancel(); wg.Wait() })
	return c
}

func TestClient(t *testing.T) { clienttest.Run(t, open) }

// TestFaces writes an event as one of its two kinds and reads it as the other,
// listed, watched and selected in each one's own terms.
func TestFaces(t *testing.T) {
	c := open(t)
	core := client.Resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("events"), Kind: "Event", Namespaced: true}
	view := c.Informer(core, client.ListOptions{FieldSelector: "involvedObject.name=web"})
	e := &eventsv1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "e"}, EventTime: metav1.NowMicro(),
		ReportingController: "xebec.io/test", ReportingInstance: "i", Action: "Testing", Reason: "Tested", Type: "Normal", Note: "note",
		Regarding: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "web"}}
	made, err := client.For(c, client.Events).Create(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Get(t.Context(), core, client.Key(made))
	if err != nil {
		t.Fatal(err)
	}
	if ev := got.(*corev1.Event); ev.Message != "note" || ev.InvolvedObject.Name != "web" || ev.UID != made.UID {
		t.Errorf("as a core Event: %+v", ev)
	}
	items, err := client.For(c, client.Events).List(t.Context(), client.ListOptions{FieldSelector: "regarding.name=web"})
	if err != nil || len(items) != 1 || items[0].Note != "note" {
		t.Errorf("listed %v, %v", items, err)
	}
	seen := make(chan client.Object, 1)
	defer view.Subscribe(func(e client.Event) {
		if e.Object != nil {
			seen <- e.Object
		}
	})()
	if ev, ok := (<-seen).(*corev1.Event); !ok || ev.Message != "note" {
		t.Errorf("watched %+v", ev)
	}
}
