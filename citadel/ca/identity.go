package ca

import (
	"fmt"
	"net/url"

	"k8s.io/apimachinery/pkg/api/validate/content"
)

// Identity is what a workload is: its service account. Pods of one service
// account on one node are the same workload and share an SVID.
type Identity struct {
	Namespace      string
	ServiceAccount string
}

// String is namespace/serviceaccount, for logs and errors.
func (i Identity) String() string { return i.Namespace + "/" + i.ServiceAccount }

// Check reports whether the identity can be a SPIFFE ID of Kubernetes' form.
func (i Identity) Check() error {
	if msgs := content.IsDNS1123Label(i.Namespace); len(msgs) > 0 {
		return fmt.Errorf("namespace %q: %s", i.Namespace, msgs[0])
	}
	if msgs := content.IsDNS1123Subdomain(i.ServiceAccount); len(msgs) > 0 {
		return fmt.Errorf("service account %q: %s", i.ServiceAccount, msgs[0])
	}
	return nil
}

// URI is the SPIFFE ID: spiffe://<trust domain>/ns/<namespace>/sa/<service account>.
func (i Identity) URI(trustDomain string) *url.URL {
	return &url.URL{
		Scheme: "spiffe",
		Host:   trustDomain,
		Path:   "/ns/" + i.Namespace + "/sa/" + i.ServiceAccount,
	}
}

// CheckTrustDomain reports whether name can be a SPIFFE trust domain.
//
// https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md#21-trust-domain
func CheckTrustDomain(name string) error {
	if name == "" || len(name) > 255 {
		return fmt.Errorf("trust domain %q: want 1 to 255 characters", name)
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return fmt.Errorf("trust domain %q: %q is not accepted; use a-z, 0-9, dot, dash and underscore", name, c)
		}
	}
	return nil
}
