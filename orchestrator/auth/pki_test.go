package auth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/xebec-mesh/xebec/orchestrator/auth"
)

func pki(t testing.TB, dir string, now time.Time, hosts ...string) *auth.PKI {
	t.Helper()
	p, err := auth.EnsurePKI(auth.PKIConfig{Dir: dir, Hosts: hosts, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The second start finds what the first made; a new host or an old certificate
// renews the leaf and nothing else.
func TestPKIIsKept(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	first := pki(t, dir, now, "127.0.0.1")
	again := pki(t, dir, now, "127.0.0.1")
	if !first.CA.Equal(again.CA) || !first.Server.Leaf.Equal(again.Server.Leaf) || !first.SAKey.Equal(again.SAKey) {
		t.Error("a second start made new keys")
	}
	moved := pki(t, dir, now, "127.0.0.1", "xebec.example")
	if moved.Server.Leaf.Equal(first.Server.Leaf) || moved.Server.Leaf.VerifyHostname("xebec.example") != nil {
		t.Error("the server's certificate does not cover a new host")
	}
	later := pki(t, dir, now.Add(300*24*time.Hour), "127.0.0.1")
	if later.Server.Leaf.Equal(moved.Server.Leaf) || !later.CA.Equal(first.CA) {
		t.Error("a certificate near its end was not renewed, or the authority was")
	}
}

func TestPKIFilesAreSecret(t *testing.T) {
	dir := t.TempDir()
	p := pki(t, dir, time.Now(), "localhost")
	if _, err := p.AdminCert(); err != nil {
		t.Fatal(err)
	}
	keys, err := filepath.Glob(filepath.Join(dir, "*.key"))
	if err != nil || len(keys) < 4 {
		t.Fatalf("keys %v, %v", keys, err)
	}
	for _, k := range keys {
		info, err := os.Stat(k)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", k, info.Mode())
		}
	}
}

func TestKubeconfigIsReadByClients(t *testing.T) {
	p := pki(t, t.TempDir(), time.Now(), "localhost")
	cert, err := p.AdminCert()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := auth.Kubeconfig{Server: "https://localhost:6443", CAPEM: p.CAPEM, Client: cert}.YAML()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.RESTConfigFromKubeConfig(raw)
	if err != nil || cfg.Host != "https://localhost:6443" || len(cfg.KeyData) == 0 {
		t.Errorf("config %v, %v", cfg, err)
	}
}

// A certificate request cannot choose its own name.
func TestSignClientIgnoresTheSubject(t *testing.T) {
	p := pki(t, t.TempDir(), time.Now(), "localhost")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.CertificateRequest{}
	template.Subject.CommonName, template.Subject.Organization = "admin", []string{auth.GroupMasters}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.SignClient(csr, "system:node:a", auth.GroupNodes)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(out)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || cert.Subject.CommonName != "system:node:a" || len(cert.Subject.Organization) != 1 || cert.Subject.Organization[0] != auth.GroupNodes {
		t.Errorf("signed for %v, %v", cert.Subject, err)
	}
}
