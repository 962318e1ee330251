package tokensecret

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/controllertest"
	"github.com/xebec-mesh/xebec/tests/script"
)

// signer signs with nothing.
type signer struct{}

func (signer) Legacy(account *corev1.ServiceAccount, secret *corev1.Secret) (string, error) {
	return account.Name + " in " + secret.Name, nil
}

func TestScripts(t *testing.T) {
	script.RunInBubble(t, "testdata/*.txtar", func(t *testing.T) map[string]script.Command {
		w := controllertest.New(t, func(c client.Interface) ([]controllertest.Runner, error) {
			controller, err := New(Config{Client: c, Signer: signer{}, CA: []byte("PEM")})
			return []controllertest.Runner{controller}, err
		})
		return script.From(w.Commands())
	})
}
