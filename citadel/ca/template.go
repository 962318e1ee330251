package ca

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"time"
)

// Backdate is how far before now a certificate begins to be valid, so that a
// peer whose clock is a little behind accepts it.
const Backdate = time.Minute

// Leaf is everything that decides what an SVID says.
type Leaf struct {
	TrustDomain string
	Identity    Identity
	PublicKey   crypto.PublicKey
	Serial      *big.Int
	Now         time.Time
	TTL         time.Duration // cut to the issuer's own end
}

// template is the certificate that Leaf asks for, were issuerEnd the end of its issuer.
// The subject is empty, which makes the subject alternative name critical: the
// SPIFFE ID is the only name there is.
func (l Leaf) template(issuerEnd time.Time) *x509.Certificate {
	end := l.Now.Add(l.TTL)
	if end.After(issuerEnd) {
		end = issuerEnd
	}
	return &x509.Certificate{
		SerialNumber:          l.Serial,
		NotBefore:             l.Now.Add(-Backdate),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{l.Identity.URI(l.TrustDomain)},
	}
}

// rootTemplate is a self-signed root of a trust domain.
func rootTemplate(trustDomain string, serial *big.Int, now time.Time, ttl time.Duration) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{trustDomain}, CommonName: "Xebec root " + serial.Text(16)[:8]},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.Add(ttl),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
	}
}
