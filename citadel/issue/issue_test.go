package issue

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/xebec-mesh/xebec/citadel/authority"
	"github.com/xebec-mesh/xebec/citadel/ca"
)

// only lets one node have one identity.
type only struct {
	node string
	id   ca.Identity
}

func (o only) Attest(_ context.Context, node string, id ca.Identity) error {
	if node != o.node || id != o.id {
		return errors.New("not bound")
	}
	return nil
}

var cart = ca.Identity{Namespace: "shop", ServiceAccount: "cart"}

func issuer(t testing.TB, ttl time.Duration) (*Issuer, *authority.Authority) {
	t.Helper()
	a, err := authority.New(authority.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	i, err := New(Config{Keys: a, Attestor: only{"n1", cart}, TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	return i, a
}

func csr(t testing.TB) []byte {
	t.Helper()
	key, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestOnlyWhatIsAttested(t *testing.T) {
	i, a := issuer(t, time.Hour)
	chain, err := i.ForNode("n1").X509(t.Context(), cart, csr(t))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	b, _ := a.Bundle().Get()
	for _, r := range b.Roots {
		roots.AddCert(r)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots}); err != nil {
		t.Fatal(err)
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life < time.Hour || life > time.Hour+2*ca.Backdate {
		t.Fatalf("it lives %s", life)
	}
	for name, try := range map[string]func() error{
		"another node": func() error { _, err := i.ForNode("n2").X509(t.Context(), cart, csr(t)); return err },
		"another identity": func() error {
			_, err := i.ForNode("n1").X509(t.Context(), ca.Identity{Namespace: "shop", ServiceAccount: "web"}, csr(t))
			return err
		},
		"a name that is a path": func() error {
			_, err := i.ForNode("n1").X509(t.Context(), ca.Identity{Namespace: "shop/sa/cart", ServiceAccount: "x"}, csr(t))
			return err
		},
		"no request":          func() error { _, err := i.ForNode("n1").X509(t.Context(), cart, nil); return err },
		"a token for another": func() error { _, err := i.ForNode("n2").JWT(t.Context(), cart, []string{"x"}); return err },
		"a token for nobody":  func() error { _, err := i.ForNode("n1").JWT(t.Context(), cart, nil); return err },
	} {
		if err := try(); err == nil {
			t.Errorf("%s: it was issued", name)
		}
	}
	var text strings.Builder
	if err := i.WriteMetrics(&text); err != nil || !strings.Contains(text.String(), `{kind="any",outcome="denied"} 4`) {
		t.Errorf("%v\n%s", err, text.String())
	}
}

func TestLifetimeIsChecked(t *testing.T) {
	if _, err := New(Config{Keys: &authority.Authority{}, Attestor: only{}, TTL: time.Second}); err == nil {
		t.Fatal("a second is accepted")
	}
}

// BenchmarkX509 is from a request to a chain: parse, verify, attest, sign, check.
func BenchmarkX509(b *testing.B) {
	i, _ := issuer(b, time.Hour)
	request := csr(b)
	for b.Loop() {
		if _, err := i.X509(b.Context(), "n1", cart, request); err != nil {
			b.Fatal(err)
		}
	}
}
