package xds_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secret "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-mesh/xebec/pilot/envoy"
)

// authority issues identities for tests, and serves them as a node's agent does.
type authority struct {
	secret.UnimplementedSecretDiscoveryServiceServer
	id   string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

var testCA = sync.OnceValues(func() (*x509.Certificate, *ecdsa.PrivateKey) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, _ := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	cert, _ := x509.ParseCertificate(der)
	return cert, key
})

func identity(t *testing.T, id string) *authority {
	t.Helper()
	cert, key := testCA()
	return &authority{id: id, cert: cert, key: key}
}

func block(kind string, der []byte) *core.DataSource {
	return &core.DataSource{Specifier: &core.DataSource_InlineBytes{InlineBytes: pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})}}
}

func (a *authority) issue(name string) *tls.Secret {
	if name == envoy.BundleSecret {
		return &tls.Secret{Name: name, Type: &tls.Secret_ValidationContext{ValidationContext: &tls.CertificateValidationContext{
			TrustedCa: block("CERTIFICATE", a.cert.Raw),
		}}}
	}
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	uri, _ := url.Parse(a.id)
	der, _ := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), URIs: []*url.URL{uri},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, a.cert, &key.PublicKey, a.key)
	raw, _ := x509.MarshalPKCS8PrivateKey(key)
	return &tls.Secret{Name: name, Type: &tls.Secret_TlsCertificate{TlsCertificate: &tls.TlsCertificate{
		CertificateChain: block("CERTIFICATE", der), PrivateKey: block("PRIVATE KEY", raw),
	}}}
}

func (a *authority) DeltaSecrets(g secret.SecretDiscoveryService_DeltaSecretsServer) error {
	for {
		r, err := g.Recv()
		if err != nil {
			return err
		}
		for _, name := range r.GetResourceNamesSubscribe() {
			s := a.issue(name)
			b, _ := proto.Marshal(s)
			any := envoy.MustAny(s)
			any.Value = b
			if err := g.Send(&discovery.DeltaDiscoveryResponse{TypeUrl: any.TypeUrl, Nonce: name,
				Resources: []*discovery.Resource{{Name: name, Version: "1", Resource: any}}}); err != nil {
				return err
			}
		}
	}
}
