package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Lifetimes of what the PKI signs. Leaves are renewed at start when less than a
// third of their life is left.
const (
	authorityLifetime = 10 * 365 * 24 * time.Hour
	leafLifetime      = 365 * 24 * time.Hour
	backdate          = 5 * time.Minute // tolerance for clocks that are behind
)

// PKIConfig says where the cluster's keys are kept and for whom to make them.
type PKIConfig struct {
	Dir   string    // created with mode 0700
	Hosts []string  // DNS names and IP addresses of the API server
	Now   time.Time // zero means the wall clock
}

// PKI is the cluster's own certificate authority and what it signed for the server.
type PKI struct {
	CA       *x509.Certificate
	CAPEM    []byte
	Server   tls.Certificate // for the API server's listener, with every host
	SAKey    *ecdsa.PrivateKey
	caKey    crypto.Signer
	dir      string
	now      time.Time
	requests func() time.Time
}

// EnsurePKI reads the authority, the server's certificate and the key that signs
// service-account tokens from cfg.Dir, and makes what is missing, about to
// expire, or lacks one of cfg.Hosts.
func EnsurePKI(cfg PKIConfig) (*PKI, error) {
	if cfg.Dir == "" {
		return nil, errors.New("open pki: no directory given")
	}
	p := &PKI{dir: cfg.Dir, now: cfg.Now, requests: func() time.Time { return cfg.Now }}
	if cfg.Now.IsZero() {
		p.now, p.requests = time.Now(), time.Now
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create pki directory: %w", err)
	}
	for _, step := range []func() error{
		p.ensureCA,
		p.ensureSAKey,
		func() error { return p.ensureServer(cfg.Hosts) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// ClientCAs is the pool that client certificates must chain to.
func (p *PKI) ClientCAs() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.CA)
	return pool
}

// ClientCert returns the certificate with which a user acts, kept under
// <name>.crt and <name>.key in the PKI's directory and renewed when needed.
func (p *PKI) ClientCert(file, userName string, groups ...string) (tls.Certificate, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: userName, Organization: groups},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	return p.ensureLeaf(file, template, func(have *x509.Certificate) bool {
		return have.Subject.CommonName == userName && slices.Equal(slices.Sorted(slices.Values(have.Subject.Organization)), slices.Sorted(slices.Values(groups)))
	})
}

// AdminCert is the client certificate of the person who owns the cluster.
func (p *PKI) AdminCert() (tls.Certificate, error) {
	return p.ClientCert("admin", "kubernetes-admin", GroupMasters)
}

// NodeCert is the client certificate with which a node's agent acts.
func (p *PKI) NodeCert(node string) (tls.Certificate, error) {
	return p.ClientCert("node-"+node, prefixNode+node, GroupNodes)
}

// ServingCert is a server certificate for hosts, such as a node agent's port.
func (p *PKI) ServingCert(file, commonName string, hosts ...string) (tls.Certificate, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: commonName},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	setHosts(template, hosts)
	return p.ensureLeaf(file, template, func(have *x509.Certificate) bool { return coversHosts(have, hosts) })
}

// SignClient signs a certificate request for a user, as a joining node needs it.
// The subject is the given one; the request's own subject is not believed.
func (p *PKI) SignClient(csr *x509.CertificateRequest, userName string, groups ...string) ([]byte, error) {
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("sign certificate for %q: request signature: %w", userName, err)
	}
	der, err := p.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: userName, Organization: groups},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, csr.PublicKey, p.requests())
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

func (p *PKI) ensureCA() error {
	cert, key, err := readPair(p.path("ca.crt"), p.path("ca.key"))
	if errors.Is(err, fs.ErrNotExist) {
		if err = p.createCA(); err != nil {
			return err
		}
		cert, key, err = readPair(p.path("ca.crt"), p.path("ca.key"))
	}
	if err != nil {
		return fmt.Errorf("open certificate authority: %w", err)
	}
	p.CA, p.caKey = cert, key
	p.CAPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	return nil
}

func (p *PKI) createCA() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("create certificate authority: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "xebec-cluster-ca"},
		NotBefore:             p.now.Add(-backdate),
		NotAfter:              p.now.Add(authorityLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("create certificate authority: %w", err)
	}
	return writePair(p.path("ca.crt"), p.path("ca.key"), der, key)
}

func (p *PKI) ensureSAKey() error {
	raw, err := os.ReadFile(p.path("sa.key"))
	if errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return fmt.Errorf("create token signing key: %w", err)
		}
		p.SAKey = key
		return writeKey(p.path("sa.key"), key)
	}
	if err != nil {
		return fmt.Errorf("read token signing key: %w", err)
	}
	key, err := parseKey(raw)
	if err != nil {
		return fmt.Errorf("read token signing key %s: %w", p.path("sa.key"), err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return fmt.Errorf("read token signing key %s: want an ECDSA key, have %T", p.path("sa.key"), key)
	}
	p.SAKey = ec
	return nil
}

func (p *PKI) ensureServer(hosts []string) (err error) {
	p.Server, err = p.ServingCert("server", "xebec-apiserver", hosts...)
	return err
}

// ensureLeaf reads <file>.crt and .key, or signs a new pair when there is none,
// it nears its end, it is another authority's, or valid finds fault with it.
func (p *PKI) ensureLeaf(file string, template *x509.Certificate, valid func(*x509.Certificate) bool) (tls.Certificate, error) {
	crt, keyFile := p.path(file+".crt"), p.path(file+".key")
	cert, key, err := readPair(crt, keyFile)
	if err == nil && p.fresh(cert) && cert.CheckSignatureFrom(p.CA) == nil && valid(cert) {
		return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return tls.Certificate{}, fmt.Errorf("read certificate %s: %w", file, err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("create key %s: %w", file, err)
	}
	der, err := p.sign(template, leafKey.Public(), p.now)
	if err != nil {
		return tls.Certificate{}, err
	}
	if err := writePair(crt, keyFile, der, leafKey); err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: leafKey, Leaf: leaf}, err
}

func (p *PKI) sign(template *x509.Certificate, pub crypto.PublicKey, now time.Time) ([]byte, error) {
	template.SerialNumber = serial()
	template.NotBefore = now.Add(-backdate)
	template.NotAfter = now.Add(leafLifetime)
	template.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, template, p.CA, pub, p.caKey)
	if err != nil {
		return nil, fmt.Errorf("sign certificate for %q: %w", template.Subject.CommonName, err)
	}
	return der, nil
}

func (p *PKI) fresh(c *x509.Certificate) bool {
	left := c.NotAfter.Sub(p.now)
	return left > c.NotAfter.Sub(c.NotBefore)/3
}

func (p *PKI) path(name string) string { return filepath.Join(p.dir, name) }

func setHosts(template *x509.Certificate, hosts []string) {
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
}

func coversHosts(c *x509.Certificate, hosts []string) bool {
	for _, h := range hosts {
		if c.VerifyHostname(h) != nil {
			return false
		}
	}
	return true
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return n
}

func readPair(certFile, keyFile string) (*x509.Certificate, crypto.Signer, error) {
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return nil, nil, fmt.Errorf("%s: no PEM block", certFile)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", certFile, err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", keyFile, err)
	}
	return cert, key, nil
}

func parseKey(raw []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		if ec, ecErr := x509.ParseECPrivateKey(block.Bytes); ecErr == nil {
			return ec, nil
		}
		return nil, errors.New("not a private key")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("the key cannot sign")
	}
	return signer, nil
}

// writePair writes the key before the certificate: a crash in between leaves no
// certificate whose key is lost.
func writePair(certFile, keyFile string, der []byte, key crypto.Signer) error {
	if err := writeKey(keyFile, key); err != nil {
		return err
	}
	return writeAtomic(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

func writeKey(file string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("write key %s: %w", file, err)
	}
	return writeAtomic(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

func writeAtomic(file string, data []byte, mode os.FileMode) error {
	tmp := file + ".tmp"
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := os.Rename(tmp, file); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}
