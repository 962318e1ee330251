package auth

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// AuthenticatorConfig is what requests are authenticated with.
type AuthenticatorConfig struct {
	ClientCAs *x509.CertPool       // client certificates must chain to it; nil accepts none
	Tokens    *Tokens              // nil accepts no service-account tokens
	Client    client.Interface     // for bootstrap tokens, kept as secrets in kube-system; nil accepts none
	Static    map[string]user.Info // bearer tokens known at start, such as a join token
	Now       func() time.Time     // default time.Now
}

// Authenticator tells who sent a request.
type Authenticator struct {
	cfg      AuthenticatorConfig
	verified certCache
}

// NewAuthenticator checks the configuration.
func NewAuthenticator(cfg AuthenticatorConfig) (*Authenticator, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Authenticator{cfg: cfg}, nil
}

// ErrUnauthenticated says that a credential was shown and is not good.
var ErrUnauthenticated = errors.New("the credential is not valid")

// Authenticate returns who sent r: the owner of its bearer token, else of its
// client certificate, else Anonymous. An error says that a token or certificate
// was shown and is not good; it wraps ErrUnauthenticated.
func (a *Authenticator) Authenticate(r *http.Request) (user.Info, error) {
	if token := bearer(r); token != "" {
		u, _, err := a.Token(r.Context(), token, nil)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
		}
		return u, nil
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		u, err := a.certificate(r.TLS.PeerCertificates)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
		}
		return u, nil
	}
	return Anonymous, nil
}

// Token returns the owner of a bearer token and the audiences that it serves.
func (a *Authenticator) Token(ctx context.Context, token string, audiences []string) (user.Info, []string, error) {
	if u, ok := a.cfg.Static[token]; ok {
		return authenticated(u), audiences, nil
	}
	if looksLikeJWT(token) && a.cfg.Tokens != nil {
		u, matched, err := a.cfg.Tokens.Authenticate(ctx, token, audiences)
		if err != nil {
			return nil, nil, err
		}
		return authenticated(u), matched, nil
	}
	if id, secret, ok := splitBootstrap(token); ok && a.cfg.Client != nil {
		u, err := a.bootstrap(ctx, id, secret)
		if err != nil {
			return nil, nil, err
		}
		return authenticated(u), audiences, nil
	}
	return nil, nil, errToken{"unknown form"}
}

// certificate verifies a client's chain. TLS only asked for it: whether it is
// good is decided here, so that the answer is a Status and not a broken handshake.
// A chain that was verified is remembered until it expires.
func (a *Authenticator) certificate(chain []*x509.Certificate) (user.Info, error) {
	if a.cfg.ClientCAs == nil {
		return nil, errors.New("client certificates are not accepted")
	}
	leaf, now := chain[0], a.cfg.Now()
	key := sha256.Sum256(leaf.Raw)
	if u, ok := a.verified.get(key, now); ok {
		return u, nil
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	found, err := leaf.Verify(x509.VerifyOptions{
		Roots: a.cfg.ClientCAs, Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, fmt.Errorf("verify client certificate of %q: %w", leaf.Subject.CommonName, err)
	}
	if leaf.Subject.CommonName == "" {
		return nil, errors.New("the client certificate has no common name")
	}
	u := authenticated(&user.DefaultInfo{
		Name: leaf.Subject.CommonName, Groups: leaf.Subject.Organization,
		Extra: map[string][]string{user.CredentialIDKey: {fmt.Sprintf("X509SHA256=%x", key)}},
	})
	a.verified.put(key, knownCert{u, earliestEnd(found[0])})
	return u, nil
}

// earliestEnd is when the first certificate of a chain expires.
func earliestEnd(chain []*x509.Certificate) time.Time {
	end := chain[0].NotAfter
	for _, c := range chain[1:] {
		if c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end
}

// certCache remembers the users of verified certificates, by the leaf's hash.
type certCache struct {
	mu    sync.RWMutex
	known map[[32]byte]knownCert
}

type knownCert struct {
	user user.Info
	end  time.Time
}

const certCacheSize = 4096

func (c *certCache) get(key [32]byte, now time.Time) (user.Info, bool) {
	c.mu.RLock()
	k, ok := c.known[key]
	c.mu.RUnlock()
	return k.user, ok && now.Before(k.end)
}

func (c *certCache) put(key [32]byte, k knownCert) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= certCacheSize {
		c.known = map[[32]byte]knownCert{}
	}
	c.known[key] = k
}

// authenticated adds the group of all who showed a credential.
func authenticated(u user.Info) user.Info {
	if hasGroup(u, GroupAuthenticated) {
		return u
	}
	groups := append(append(make([]string, 0, len(u.GetGroups())+1), u.GetGroups()...), GroupAuthenticated)
	return &user.DefaultInfo{Name: u.GetName(), UID: u.GetUID(), Groups: groups, Extra: u.GetExtra()}
}

const bearerProtocol = "base64url.bearer.authorization.k8s.io."

// bearer returns the token of the Authorization header or, for WebSockets from a
// browser, of the subprotocol that carries it.
func bearer(r *http.Request) string {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if ok && strings.EqualFold(scheme, "bearer") {
		return strings.TrimSpace(token)
	}
	for _, header := range r.Header["Sec-Websocket-Protocol"] {
		for _, p := range strings.Split(header, ",") {
			if encoded, ok := strings.CutPrefix(strings.TrimSpace(p), bearerProtocol); ok {
				return decodeBase64URL(encoded)
			}
		}
	}
	return ""
}
