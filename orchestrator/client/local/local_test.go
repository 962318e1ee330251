package local_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"

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
