package controllers_test

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/local"
	"github.com/xebec-mesh/xebec/orchestrator/controllers"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/controllertest"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/nodeipam"
	"github.com/xebec-mesh/xebec/orchestrator/registry"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
	"github.com/xebec-mesh/xebec/orchestrator/store"
	"github.com/xebec-mesh/xebec/tests/script"
)

// TestScriptsOverRegistry runs the same stories over the real verbs, with defaulting
// and validation.
func TestScriptsOverRegistry(t *testing.T) {
	script.RunInBubble(t, "testdata/registry/*.txtar", func(t *testing.T) map[string]script.Command {
		log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
		r, err := registry.New(registry.Config{Store: store.NewMemory(), Kinds: resource.Kinds(), Log: log})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { _ = r.Run(ctx) })
		t.Cleanup(func() { cancel(); running.Wait() })
		c, err := local.New(local.Config{Registry: r, Log: log})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w := controllertest.Over(t, c, func(c client.Interface) ([]controllertest.Runner, error) {
			all, err := controllers.New(controllers.Config{
				Client: c, Discovery: controllertest.Discovery{}, Identity: "test", CA: []byte("PEM"), Log: log,
				PodRanges:  []nodeipam.Range{{Cluster: netip.MustParsePrefix("10.244.0.0/16"), Bits: 24}},
				APIService: netip.MustParseAddr("10.96.0.1"),
				APIServers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:6443")},
			})
			return []controllertest.Runner{all}, err
		})
		return script.From(w.Commands())
	})
}
