// Package ca makes certificates and looks at them before they leave.
//
//	in:   a certificate signing request, an identity that somebody has attested, an issuer
//	out:  an X.509-SVID and its chain
//
// Nothing of a request but its public key is believed; every name, usage and date
// comes from the template. What was signed is parsed again and compared with what
// was asked for, so that a mistake in a template or a signer cannot become a
// certificate in somebody's hands. Keys never appear in a log or an error.
package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/big"
	"time"
)

// Issuer signs SVIDs. It is immutable.
type Issuer struct {
	Cert  *x509.Certificate
	Key   crypto.Signer
	Chain [][]byte            // what a leaf's holder must send after the leaf: Cert and those between it and the root; empty under a root
	Roots []*x509.Certificate // what a verifier must trust
}

// LogValue keeps the key out of logs.
func (i *Issuer) LogValue() slog.Value {
	return slog.StringValue(i.String())
}

// String names the issuer by subject and end.
func (i *Issuer) String() string {
	return fmt.Sprintf("%s until %s", i.Cert.Subject, i.Cert.NotAfter.Format(time.RFC3339))
}

// GoString keeps the key out of %#v.
func (i *Issuer) GoString() string { return i.String() }

// NewKey makes an ECDSA P-256 key.
func NewKey() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// NewSerial makes a positive random serial number of 127 bits.
func NewSerial() (*big.Int, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:]), nil
}

// NewRoot makes a self-signed root.
func NewRoot(trustDomain string, now time.Time, ttl time.Duration) (*Issuer, error) {
	key, err := NewKey()
	if err != nil {
		return nil, fmt.Errorf("make root key: %w", err)
	}
	serial, err := NewSerial()
	if err != nil {
		return nil, fmt.Errorf("make root serial: %w", err)
	}
	t := rootTemplate(trustDomain, serial, now, ttl)
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign root of %s: %w", trustDomain, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse root of %s: %w", trustDomain, err)
	}
	return &Issuer{Cert: cert, Key: key, Roots: []*x509.Certificate{cert}}, nil
}

// Sign makes the leaf's certificate and checks it. The result is the chain that
// its holder presents, leaf first, DER.
func (i *Issuer) Sign(leaf Leaf) ([][]byte, *x509.Certificate, error) {
	if err := checkKey(leaf.PublicKey); err != nil {
		return nil, nil, err
	}
	if !leaf.Now.Before(i.Cert.NotAfter) {
		return nil, nil, fmt.Errorf("issuer %s has expired", i)
	}
	t := leaf.template(i.Cert.NotAfter)
	// CreateCertificate verifies the signature it got from the key.
	der, err := x509.CreateCertificate(rand.Reader, t, i.Cert, leaf.PublicKey, i.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("sign %s: %w", leaf.Identity, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("parse what was signed for %s: %w", leaf.Identity, err)
	}
	if err := check(cert, leaf, i.Cert); err != nil {
		return nil, nil, fmt.Errorf("check what was signed for %s: %w", leaf.Identity, err)
	}
	return append([][]byte{der}, i.Chain...), cert, nil
}

// ParseCSR reads a DER request and verifies that its sender holds the key.
func ParseCSR(der []byte) (crypto.PublicKey, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("parse signing request: %w", err)
	}
	if err := checkKey(csr.PublicKey); err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("verify signing request: %w", err)
	}
	return csr.PublicKey, nil
}

func checkKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n >= 2048 && n <= 4096 {
			return nil
		}
	}
	return fmt.Errorf("public key %T is not accepted: use ECDSA P-256 or P-384, or RSA of 2048 to 4096 bits", pub)
}
