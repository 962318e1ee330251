package ca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// EncodeCerts writes DER certificates as PEM.
func EncodeCerts(ders ...[]byte) []byte {
	var b bytes.Buffer
	for _, der := range ders {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	return b.Bytes()
}

// EncodeKey writes a private key as PKCS#8 PEM.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseCerts reads all certificates of a PEM text.
func ParseCerts(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("parse certificates: there is no CERTIFICATE block")
	}
	return certs, nil
}

// ParseKey reads a private key in PKCS#8, SEC 1 or PKCS#1 PEM. Its errors hold nothing of the key.
func ParseKey(text []byte) (crypto.Signer, error) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil, errors.New("parse private key: there is no unencrypted PRIVATE KEY block")
		}
		text = rest
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		default:
			continue
		}
		signer, ok := key.(crypto.Signer)
		if err != nil || !ok {
			return nil, fmt.Errorf("parse private key: block %q does not hold a key that signs", block.Type)
		}
		return signer, nil
	}
}

// ParseIssuer puts an issuer together from PEM texts: its certificate and key,
// the chain from it towards the root (may be empty), and the roots. It refuses
// parts that do not belong together.
func ParseIssuer(certPEM, keyPEM, chainPEM, rootPEM []byte) (*Issuer, error) {
	certs, err := ParseCerts(certPEM)
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	roots, err := ParseCerts(rootPEM)
	if err != nil {
		return nil, fmt.Errorf("issuer's root: %w", err)
	}
	chain := certs
	if len(bytes.TrimSpace(chainPEM)) > 0 {
		if chain, err = ParseCerts(chainPEM); err != nil {
			return nil, fmt.Errorf("issuer's chain: %w", err)
		}
	}
	i := &Issuer{Cert: certs[0], Key: key, Chain: between(certs[0], chain, roots), Roots: roots}
	return i, i.check()
}

// between is the issuer and its chain without roots, in order, each once.
func between(cert *x509.Certificate, chain, roots []*x509.Certificate) [][]byte {
	var out [][]byte
	seen := map[string]bool{}
	for _, r := range roots {
		seen[string(r.Raw)] = true
	}
	for _, c := range append([]*x509.Certificate{cert}, chain...) {
		if !seen[string(c.Raw)] {
			seen[string(c.Raw)] = true
			out = append(out, c.Raw)
		}
	}
	return out
}

func (i *Issuer) check() error {
	pub, ok := i.Cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(i.Key.Public()) {
		return errors.New("issuer: the private key does not belong to the certificate")
	}
	if !i.Cert.IsCA || i.Cert.KeyUsage != 0 && i.Cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return errors.New("issuer: the certificate may not sign others: want CA:TRUE and key usage certSign")
	}
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	for _, r := range i.Roots {
		roots.AddCert(r)
	}
	for _, der := range i.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("issuer's chain: %w", err)
		}
		middle.AddCert(c)
	}
	_, err := i.Cert.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: middle, CurrentTime: i.Cert.NotBefore,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("issuer does not chain to its root: %w", err)
	}
	return nil
}

// LoadDir reads an operator's certificate authority from the files that Istio's
// plug-in CA uses: ca-cert.pem, ca-key.pem, root-cert.pem and, optional, cert-chain.pem.
func LoadDir(dir string) (*Issuer, error) {
	text := map[string][]byte{}
	for _, name := range []string{"ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !(name == "cert-chain.pem" && errors.Is(err, os.ErrNotExist)) {
			return nil, fmt.Errorf("load certificate authority: %w", err)
		}
		text[name] = b
	}
	i, err := ParseIssuer(text["ca-cert.pem"], text["ca-key.pem"], text["cert-chain.pem"], text["root-cert.pem"])
	if err != nil {
		return nil, fmt.Errorf("load certificate authority %s: %w", dir, err)
	}
	return i, nil
}
