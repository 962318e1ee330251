package apiendpoints

import (
	"net/netip"
	"testing"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/controllertest"
	"github.com/xebec-mesh/xebec/tests/script"
)

func TestScripts(t *testing.T) {
	script.RunInBubble(t, "testdata/*.txtar", func(t *testing.T) map[string]script.Command {
		w := controllertest.New(t, func(c client.Interface) ([]controllertest.Runner, error) {
			controller, err := New(Config{Client: c, Service: netip.MustParseAddr("10.96.0.1"), Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.2:6443"), netip.MustParseAddrPort("192.0.2.1:6443")}})
			return []controllertest.Runner{controller}, err
		})
		return script.From(w.Commands())
	})
}
