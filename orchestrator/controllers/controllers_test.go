package controllers_test

import (
	"net/netip"
	"testing"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/controllertest"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/nodeipam"
	"github.com/xebec-mesh/xebec/tests/script"
)

// TestScripts runs all controllers together, behind the election.
func TestScripts(t *testing.T) {
	script.RunInBubble(t, "testdata/*.txtar", func(t *testing.T) map[string]script.Command {
		w := controllertest.New(t, func(c client.Interface) ([]controllertest.Runner, error) {
			all, err := controllers.New(controllers.Config{
				Client: c, Discovery: controllertest.Discovery{}, Identity: "test", CA: []byte("PEM"),
				PodRanges:  []nodeipam.Range{{Cluster: netip.MustParsePrefix("10.244.0.0/16"), Bits: 24}},
				APIService: netip.MustParseAddr("10.96.0.1"),
				APIServers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:6443")},
			})
			return []controllertest.Runner{all}, err
		})
		return script.From(w.Commands())
	})
}
