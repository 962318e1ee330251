package serve

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// The names of secrets that mesh configuration uses.
const (
	NameSVID   = "default"
	NameBundle = "ROOTCA"

	typeURL = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
)

// secret is one named resource of SDS.
type secret struct {
	version string
	body    *anypb.Any
}

// secret returns a resource by name: ok is whether the name means anything, and
// the secret is nil while there is nothing to send yet.
func (w *Workload) secret(name string, v view) (s *secret, ok bool, err error) {
	switch name {
	case NameSVID, w.uri:
		if v.svid == nil {
			return nil, true, nil
		}
		s, err = certificate(name, v)
		return s, true, err
	case NameBundle, "spiffe://" + w.server.cfg.TrustDomain:
		s, err = validation(name, v)
		return s, true, err
	}
	return nil, false, nil
}

func certificate(name string, v view) (*secret, error) {
	return pack(&tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inline(v.svid.CertPEM),
		PrivateKey:       inline(v.svid.KeyPEM),
	}}}, v.svid.CertPEM)
}

func validation(name string, v view) (*secret, error) {
	return pack(&tlsv3.Secret{Name: name, Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
		TrustedCa: inline(v.bundle.PEM),
	}}}, v.bundle.PEM)
}

// pack encodes a secret; what it says decides its version, so that a proxy that
// reconnects is not sent what it has.
func pack(s *tlsv3.Secret, content []byte) (*secret, error) {
	body, err := anypb.New(s)
	if err != nil {
		return nil, fmt.Errorf("encode secret %s: %w", s.GetName(), err)
	}
	sum := sha256.Sum256(content)
	return &secret{version: hex.EncodeToString(sum[:8]), body: body}, nil
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}
