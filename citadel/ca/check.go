package ca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// check compares a certificate with what was asked for. It is pure, and written
// against the X.509-SVID specification, not against the template.
//
// https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md
func check(cert *x509.Certificate, leaf Leaf, issuer *x509.Certificate) error {
	return errors.Join(
		checkNames(cert, leaf),
		checkUsage(cert),
		checkDates(cert, leaf, issuer),
		checkKeys(cert, leaf, issuer),
	)
}

func checkNames(cert *x509.Certificate, leaf Leaf) error {
	want := leaf.Identity.URI(leaf.TrustDomain).String()
	if len(cert.URIs) != 1 || cert.URIs[0].String() != want {
		return fmt.Errorf("URI names %v, want only %s", cert.URIs, want)
	}
	if len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses) > 0 {
		return errors.New("there are names beside the SPIFFE ID")
	}
	return nil
}

func checkUsage(cert *x509.Certificate) error {
	if cert.IsCA || !cert.BasicConstraintsValid {
		return errors.New("it is not an end entity's certificate")
	}
	if cert.KeyUsage != x509.KeyUsageDigitalSignature {
		return fmt.Errorf("key usage %b, want digital signature alone", cert.KeyUsage)
	}
	want := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	if !slices.Equal(cert.ExtKeyUsage, want) || len(cert.UnknownExtKeyUsage) > 0 {
		return fmt.Errorf("extended key usage %v, want server and client authentication", cert.ExtKeyUsage)
	}
	return nil
}

func checkDates(cert *x509.Certificate, leaf Leaf, issuer *x509.Certificate) error {
	if cert.NotAfter.After(issuer.NotAfter) {
		return fmt.Errorf("it ends %s, after its issuer's %s", cert.NotAfter, issuer.NotAfter)
	}
	if cert.NotAfter.After(leaf.Now.Add(leaf.TTL)) || !cert.NotAfter.After(leaf.Now) {
		return fmt.Errorf("it ends %s, want within %s of %s", cert.NotAfter, leaf.TTL, leaf.Now)
	}
	// A certificate has whole seconds.
	if begin := leaf.Now.Add(-Backdate).Truncate(time.Second); !cert.NotBefore.Equal(begin) {
		return fmt.Errorf("it begins %s, want %s", cert.NotBefore, begin)
	}
	return nil
}

func checkKeys(cert *x509.Certificate, leaf Leaf, issuer *x509.Certificate) error {
	pub, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(leaf.PublicKey) {
		return errors.New("its key is not the requester's")
	}
	if !bytes.Equal(cert.AuthorityKeyId, issuer.SubjectKeyId) {
		return errors.New("its authority key is not its issuer's")
	}
	if cert.SerialNumber.Sign() <= 0 || cert.SerialNumber.Cmp(leaf.Serial) != 0 {
		return errors.New("its serial number is not the one chosen")
	}
	return nil
}
