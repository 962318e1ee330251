package auth

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	clientcmdv1 "k8s.io/client-go/tools/clientcmd/api/v1"
	"sigs.k8s.io/yaml"
)

// Kubeconfig is what a client needs to reach the server.
type Kubeconfig struct {
	Server string // https://host:port
	CAPEM  []byte
	Client tls.Certificate
	Name   string // of the cluster and the context; default xebec
	User   string // default admin
}

// YAML renders the configuration as kubectl reads it.
func (k Kubeconfig) YAML() ([]byte, error) {
	name, userName := orDefault(k.Name, "xebec"), orDefault(k.User, "admin")
	certPEM, keyPEM, err := EncodePair(k.Client)
	if err != nil {
		return nil, fmt.Errorf("write kubeconfig: %w", err)
	}
	return yaml.Marshal(clientcmdv1.Config{
		APIVersion:     "v1",
		Kind:           "Config",
		CurrentContext: name,
		Clusters: []clientcmdv1.NamedCluster{{Name: name, Cluster: clientcmdv1.Cluster{
			Server: k.Server, CertificateAuthorityData: k.CAPEM,
		}}},
		AuthInfos: []clientcmdv1.NamedAuthInfo{{Name: userName, AuthInfo: clientcmdv1.AuthInfo{
			ClientCertificateData: certPEM, ClientKeyData: keyPEM,
		}}},
		Contexts: []clientcmdv1.NamedContext{{Name: name, Context: clientcmdv1.Context{
			Cluster: name, AuthInfo: userName,
		}}},
	})
}

// WriteFile writes the configuration, readable by its owner only.
func (k Kubeconfig) WriteFile(file string) error {
	raw, err := k.YAML()
	if err != nil {
		return err
	}
	return writeAtomic(file, raw, 0o600)
}

// EncodePair returns a certificate and its key as PEM.
func EncodePair(c tls.Certificate) (certPEM, keyPEM []byte, err error) {
	for _, der := range c.Certificate {
		certPEM = append(certPEM, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, nil, err
	}
	return certPEM, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
