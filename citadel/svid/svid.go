package svid

import (
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"log/slog"
	"time"

	"github.com/xebec-mesh/xebec/citadel/ca"
)

// SVID is a workload's certificate and key, encoded once for all who ask. It is
// immutable, and says nothing of its key when it is printed.
type SVID struct {
	Identity ca.Identity
	URI      string
	Serial   string // hex
	Issued   time.Time
	NotAfter time.Time

	CertPEM []byte // the chain, leaf first
	CertDER []byte // the chain, leaf first, one after the other
	KeyPEM  []byte // PKCS#8
	KeyDER  []byte // PKCS#8
}

// String names the SVID.
func (s *SVID) String() string {
	return fmt.Sprintf("%s serial %s until %s", s.URI, s.Serial, s.NotAfter.UTC().Format(time.RFC3339))
}

// GoString keeps the key out of %#v.
func (s *SVID) GoString() string { return s.String() }

// LogValue keeps the key out of logs.
func (s *SVID) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Expired reports whether the certificate has ended.
func (s *SVID) Expired(now time.Time) bool { return !now.Before(s.NotAfter) }

// renewAt is when to replace an SVID: half its life, moved by up to a tenth of
// its life either way, so that workloads that began together do not renew
// together. spread is in [0, 1).
func renewAt(issued, notAfter time.Time, spread float64) time.Time {
	life := notAfter.Sub(issued)
	return issued.Add(time.Duration(float64(life) * (0.4 + 0.2*spread)))
}

// key is a fresh key and the request to sign it.
type key struct {
	der, pem, csr []byte
}

func newKey() (*key, error) {
	private, err := ca.NewKey()
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	pem, err := ca.EncodeKey(private)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private)
	if err != nil {
		return nil, fmt.Errorf("make signing request: %w", err)
	}
	return &key{der: der, pem: pem, csr: csr}, nil
}

// assemble checks that a chain is what was asked for and encodes it.
func assemble(id ca.Identity, trustDomain string, k *key, chain [][]byte, now time.Time) (*SVID, error) {
	if len(chain) == 0 {
		return nil, fmt.Errorf("the issuer answered %s with no certificate", id)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("parse SVID of %s: %w", id, err)
	}
	uri := id.URI(trustDomain).String()
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != uri {
		return nil, fmt.Errorf("the issuer answered %s with a certificate for %v", uri, leaf.URIs)
	}
	if !leaf.NotAfter.After(now) {
		return nil, fmt.Errorf("the issuer answered %s with a certificate that ended %s: compare the clocks", uri, leaf.NotAfter)
	}
	s := &SVID{
		Identity: id, URI: uri, Serial: leaf.SerialNumber.Text(16), Issued: now, NotAfter: leaf.NotAfter,
		CertPEM: ca.EncodeCerts(chain...), KeyPEM: k.pem, KeyDER: k.der,
	}
	for _, der := range chain {
		s.CertDER = append(s.CertDER, der...)
	}
	return s, nil
}
