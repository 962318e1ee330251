package nodelifecycle

import (
	"testing"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/controllertest"
	"github.com/xebec-mesh/xebec/tests/script"
)

func TestScripts(t *testing.T) {
	script.RunInBubble(t, "testdata/*.txtar", func(t *testing.T) map[string]script.Command {
		w := controllertest.New(t, func(c client.Interface) ([]controllertest.Runner, error) {
			controller, err := New(Config{Client: c})
			return []controllertest.Runner{controller}, err
		})
		return script.From(w.Commands())
	})
}
