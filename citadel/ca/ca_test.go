package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 500, time.UTC)

func newLeaf(t testing.TB) (Leaf, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	serial, err := NewSerial()
	if err != nil {
		t.Fatal(err)
	}
	return Leaf{
		TrustDomain: "cluster.local", Identity: Identity{"shop", "cart"},
		PublicKey: key.Public(), Serial: serial, Now: now, TTL: 24 * time.Hour,
	}, key
}

func newRoot(t testing.TB) *Issuer {
	t.Helper()
	root, err := NewRoot("cluster.local", now, 10*365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestSignedLeafIsAnSVID(t *testing.T) {
	root := newRoot(t)
	leaf, key := newLeaf(t)
	chain, cert, err := root.Sign(leaf)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root.Cert)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now}); err != nil {
		t.Fatal(err)
	}
	keyDER, _ := x509.MarshalPKCS8PrivateKey(key)
	svid, err := x509svid.ParseRaw(chain[0], keyDER)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := svid.ID.String(), "spiffe://cluster.local/ns/shop/sa/cart"; got != want {
		t.Fatalf("id %s, want %s", got, want)
	}
}

func TestLeafEndsWithItsIssuer(t *testing.T) {
	root, err := NewRoot("cluster.local", now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := newLeaf(t)
	_, cert, err := root.Sign(leaf)
	if err != nil {
		t.Fatal(err)
	}
	if !cert.NotAfter.Equal(root.Cert.NotAfter) {
		t.Fatalf("ends %s, want the root's end %s", cert.NotAfter, root.Cert.NotAfter)
	}
	leaf.Now = now.Add(2 * time.Hour)
	if _, _, err := root.Sign(leaf); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Fatalf("an expired root signed: %v", err)
	}
}

// TestCheckRefuses signs certificates that differ from what was asked for in one thing each.
func TestCheckRefuses(t *testing.T) {
	root := newRoot(t)
	other, _ := newLeaf(t)
	for name, spoil := range map[string]func(*x509.Certificate, *any){
		"another name": func(c *x509.Certificate, _ *any) {
			c.URIs = []*url.URL{{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/x/sa/y"}}
		},
		"two names":         func(c *x509.Certificate, _ *any) { c.URIs = append(c.URIs, c.URIs[0]) },
		"a DNS name":        func(c *x509.Certificate, _ *any) { c.DNSNames = []string{"x"} },
		"a CA":              func(c *x509.Certificate, _ *any) { c.IsCA = true },
		"may sign":          func(c *x509.Certificate, _ *any) { c.KeyUsage |= x509.KeyUsageCertSign },
		"signs code":        func(c *x509.Certificate, _ *any) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} },
		"outlives its root": func(c *x509.Certificate, _ *any) { c.NotAfter = root.Cert.NotAfter.Add(time.Hour) },
		"lives too long":    func(c *x509.Certificate, _ *any) { c.NotAfter = now.Add(25 * time.Hour) },
		"begins long ago":   func(c *x509.Certificate, _ *any) { c.NotBefore = now.Add(-time.Hour) },
		"another key":       func(_ *x509.Certificate, k *any) { *k = other.PublicKey },
		"another serial":    func(c *x509.Certificate, _ *any) { c.SerialNumber = big.NewInt(7) },
	} {
		t.Run(name, func(t *testing.T) {
			leaf, _ := newLeaf(t)
			template := leaf.template(root.Cert.NotAfter)
			var pub any = leaf.PublicKey
			spoil(template, &pub)
			der, err := x509.CreateCertificate(rand.Reader, template, root.Cert, pub, root.Key)
			if err != nil {
				t.Skip(err)
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				return // refused before the check
			}
			if err := check(cert, leaf, root.Cert); err == nil {
				t.Fatal("it was accepted")
			}
		})
	}
}

func TestCSRSaysNothingButItsKey(t *testing.T) {
	key, _ := NewKey()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"evil"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ParseCSR(der)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := newLeaf(t)
	leaf.PublicKey = pub
	_, cert, err := newRoot(t).Sign(leaf)
	if err != nil {
		t.Fatal(err)
	}
	if len(cert.DNSNames) != 0 {
		t.Fatalf("names %v came from the request", cert.DNSNames)
	}
	der[len(der)-1] ^= 1
	if _, err := ParseCSR(der); err == nil {
		t.Fatal("a request with a false signature was accepted")
	}
	weak, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	der, _ = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, weak)
	if _, err := ParseCSR(der); err == nil {
		t.Fatal("a P-224 key was accepted")
	}
}

func TestIdentityCheck(t *testing.T) {
	for id, ok := range map[Identity]bool{
		{"default", "default"}: true, {"a", "b.c"}: true,
		{"", "x"}: false, {"x", ""}: false, {"../x", "y"}: false, {"x", "y/z"}: false, {"X", "y"}: false,
	} {
		if err := id.Check(); (err == nil) != ok {
			t.Errorf("%q: %v, want ok=%v", id, err, ok)
		}
	}
}

func TestKeysAreNotPrinted(t *testing.T) {
	root := newRoot(t)
	pem, _ := EncodeKey(root.Key)
	d := root.Key.(*ecdsa.PrivateKey)
	for _, s := range []string{fmt.Sprint(root), fmt.Sprintf("%v", root), fmt.Sprintf("%+v", root), fmt.Sprintf("%#v", root), root.LogValue().String()} {
		if strings.Contains(s, string(pem)) || strings.Contains(s, d.D.String()) {
			t.Fatalf("a key was printed: %s", s)
		}
	}
}

func TestOperatorsFiles(t *testing.T) {
	dir := t.TempDir()
	root := newRoot(t)
	key, _ := EncodeKey(root.Key)
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ca-cert.pem", EncodeCerts(root.Cert.Raw))
	write("root-cert.pem", EncodeCerts(root.Cert.Raw))
	if _, err := LoadDir(dir); err == nil || !strings.Contains(err.Error(), "ca-key.pem") {
		t.Fatalf("without a key: %v", err)
	}
	write("ca-key.pem", key)
	i, err := LoadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(i.Chain) != 0 {
		t.Fatal("a root is not sent in the chain")
	}
	other, _ := EncodeKey(newRoot(t).Key)
	write("ca-key.pem", other)
	if _, err := LoadDir(dir); err == nil || !strings.Contains(err.Error(), "does not belong") {
		t.Fatalf("with another's key: %v", err)
	}
	write("ca-key.pem", key)
	write("root-cert.pem", EncodeCerts(newRoot(t).Cert.Raw))
	if _, err := LoadDir(dir); err == nil || !strings.Contains(err.Error(), "chain to its root") {
		t.Fatalf("with another root: %v", err)
	}
}

func BenchmarkSign(b *testing.B) {
	root := newRoot(b)
	leaf, _ := newLeaf(b)
	for b.Loop() {
		if _, _, err := root.Sign(leaf); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzParseCSR(f *testing.F) {
	key, _ := NewKey()
	der, _ := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	f.Add(der)
	f.Fuzz(func(t *testing.T, der []byte) {
		if pub, err := ParseCSR(der); err == nil && pub == nil {
			t.Fatal("no key and no error")
		}
	})
}

func FuzzParseIssuer(f *testing.F) {
	root := newRoot(f)
	key, _ := EncodeKey(root.Key)
	cert := EncodeCerts(root.Cert.Raw)
	f.Add(cert, key, []byte{}, cert)
	f.Fuzz(func(t *testing.T, cert, key, chain, roots []byte) {
		if i, err := ParseIssuer(cert, key, chain, roots); err == nil && (i.Cert == nil || i.Key == nil || len(i.Roots) == 0) {
			t.Fatal("an issuer without its parts")
		}
	})
}
