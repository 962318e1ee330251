package auth

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// bootstrap looks a bootstrap token up in its secret.
// https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
func (a *Authenticator) bootstrap(ctx context.Context, id, secret string) (user.Info, error) {
	s, err := client.For(a.cfg.Client, client.Secrets).Get(ctx, "kube-system", "bootstrap-token-"+id)
	if err != nil || s.Type != corev1.SecretTypeBootstrapToken || s.DeletionTimestamp != nil {
		return nil, errToken{"unknown bootstrap token"}
	}
	if !equalSecret(string(s.Data["token-secret"]), secret) || string(s.Data["token-id"]) != id {
		return nil, errToken{"unknown bootstrap token"}
	}
	if string(s.Data["usage-bootstrap-authentication"]) != "true" {
		return nil, errToken{"the bootstrap token is not for authentication"}
	}
	if at, err := time.Parse(time.RFC3339, string(s.Data["expiration"])); err == nil && a.cfg.Now().After(at) {
		return nil, errToken{"the bootstrap token has expired"}
	}
	groups := []string{GroupBootstrappers}
	for _, g := range strings.Split(string(s.Data["auth-extra-groups"]), ",") {
		if strings.HasPrefix(g, GroupBootstrappers+":") {
			groups = append(groups, g)
		}
	}
	return &user.DefaultInfo{Name: prefixBootstrap + id, Groups: groups}, nil
}

func equalSecret(a, b string) bool {
	return len(a) > 0 && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}

// splitBootstrap splits a token of the form abcdef.0123456789abcdef.
func splitBootstrap(token string) (id, secret string, ok bool) {
	id, secret, ok = strings.Cut(token, ".")
	return id, secret, ok && len(id) == 6 && len(secret) == 16 && lowerAlnum(id) && lowerAlnum(secret)
}

func lowerAlnum(s string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			return false
		}
	}
	return true
}

func decodeBase64URL(s string) string {
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil {
		return ""
	}
	return string(raw)
}
