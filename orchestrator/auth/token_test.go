package auth_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/auth"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
)

type cluster struct {
	t      testing.TB
	now    time.Time
	client *memory.Client
	pki    *auth.PKI
	tokens *auth.Tokens
	authn  *auth.Authenticator
	authz  *auth.Authorizer
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{t: t, now: time.Now()}
	clock := func() time.Time { return c.now }
	c.client = memory.New(clock)
	t.Cleanup(c.client.Close)
	c.pki = pki(t, t.TempDir(), c.now, "localhost")
	var err error
	if c.tokens, err = auth.NewTokens(auth.TokensConfig{Client: c.client, Key: c.pki.SAKey, Now: clock}); err != nil {
		t.Fatal(err)
	}
	if c.authn, err = auth.NewAuthenticator(auth.AuthenticatorConfig{ClientCAs: c.pki.ClientCAs(), Tokens: c.tokens, Client: c.client, Now: clock}); err != nil {
		t.Fatal(err)
	}
	if c.authz, err = auth.NewAuthorizer(auth.AuthorizerConfig{Client: c.client}); err != nil {
		t.Fatal(err)
	}
	return c
}

func create[T client.Object](c *cluster, kind client.Kind[T], obj T) T {
	c.t.Helper()
	out, err := client.For(c.client, kind).Create(context.Background(), obj)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func named(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

func (c *cluster) account(namespace, name string) *corev1.ServiceAccount {
	return create(c, client.ServiceAccounts, &corev1.ServiceAccount{ObjectMeta: named(namespace, name)})
}

func (c *cluster) issue(namespace, name string, spec authenticationv1.TokenRequestSpec) (string, error) {
	r, err := c.tokens.Issue(context.Background(), namespace, name, &authenticationv1.TokenRequest{Spec: spec})
	if err != nil {
		return "", err
	}
	return r.Status.Token, nil
}

func (c *cluster) mustIssue(namespace, name string, spec authenticationv1.TokenRequestSpec) string {
	c.t.Helper()
	token, err := c.issue(namespace, name, spec)
	if err != nil {
		c.t.Fatal(err)
	}
	return token
}

func (c *cluster) who(token string) (string, error) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	u, err := c.authn.Authenticate(r)
	if err != nil {
		return "", err
	}
	return u.GetName(), nil
}

func TestTokenOfAnAccount(t *testing.T) {
	c := newCluster(t)
	c.account("shop", "web")
	token := c.mustIssue("shop", "web", authenticationv1.TokenRequestSpec{})
	if who, err := c.who(token); err != nil || who != "system:serviceaccount:shop:web" {
		t.Fatalf("%q, %v", who, err)
	}
	// Twice, since the second comes from memory.
	if _, err := c.who(token); err != nil {
		t.Fatal(err)
	}
	if _, err := c.who(token[:len(token)-4] + "AAAA"); err == nil {
		t.Error("a token with another signature was accepted")
	}
	c.now = c.now.Add(61 * time.Minute)
	if _, err := c.who(token); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an hour later: %v", err)
	}
}

func TestTokenEndsWithItsAccount(t *testing.T) { synctest.Test(t, testTokenEndsWithItsAccount) }

func testTokenEndsWithItsAccount(t *testing.T) {
	c := newCluster(t)
	c.account("shop", "web")
	token := c.mustIssue("shop", "web", authenticationv1.TokenRequestSpec{})
	if err := client.For(c.client, client.ServiceAccounts).Delete(context.Background(), "shop", "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.account("shop", "web") // the same name is another account
	if _, err := c.who(token); err == nil {
		t.Error("the token of a deleted account was accepted for its successor")
	}
}

func TestTokenBoundToAPod(t *testing.T) { synctest.Test(t, testTokenBoundToAPod) }

func testTokenBoundToAPod(t *testing.T) {
	c := newCluster(t)
	c.account("shop", "web")
	pod := create(c, client.Pods, &corev1.Pod{ObjectMeta: named("shop", "p"), Spec: corev1.PodSpec{ServiceAccountName: "web"}})
	bound := func(uid string) authenticationv1.TokenRequestSpec {
		return authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: "p", UID: pod.UID}}
	}
	token := c.mustIssue("shop", "web", bound(string(pod.UID)))
	review, err := c.authn.Review(context.Background(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}})
	if err != nil || !review.Status.Authenticated || review.Status.User.Extra["authentication.kubernetes.io/pod-name"][0] != "p" {
		t.Fatalf("%+v, %v", review, err)
	}
	c.account("shop", "other")
	if _, err := c.issue("shop", "other", bound("")); !apierrors.IsBadRequest(err) {
		t.Errorf("bound to another account's pod: %v", err)
	}
	zero := int64(0)
	if err := client.For(c.client, client.Pods).Delete(context.Background(), "shop", "p", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	if _, err := c.who(token); err == nil {
		t.Error("the token outlived its pod")
	}
}

func TestTokenRequestsAreChecked(t *testing.T) {
	c := newCluster(t)
	c.account("shop", "web")
	short := int64(60)
	if _, err := c.issue("shop", "web", authenticationv1.TokenRequestSpec{ExpirationSeconds: &short}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "less than 10 minutes") {
		t.Errorf("a minute: %v", err)
	}
	if _, err := c.issue("shop", "nobody", authenticationv1.TokenRequestSpec{}); !apierrors.IsNotFound(err) {
		t.Errorf("no such account: %v", err)
	}
	token := c.mustIssue("shop", "web", authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}})
	if _, err := c.who(token); err == nil {
		t.Error("a token for another audience was accepted")
	}
	review, err := c.authn.Review(context.Background(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{"vault", "other"}}})
	if err != nil || !review.Status.Authenticated || len(review.Status.Audiences) != 1 {
		t.Errorf("review: %+v, %v", review.Status, err)
	}
}

func TestLegacyTokenEndsWithItsSecret(t *testing.T) {
	c := newCluster(t)
	account := c.account("shop", "web")
	secret := &corev1.Secret{ObjectMeta: named("shop", "web-token"), Type: corev1.SecretTypeServiceAccountToken}
	token, err := c.tokens.Legacy(account, secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.who(token); err == nil {
		t.Error("accepted before its secret holds it")
	}
	secret.Data = map[string][]byte{"token": []byte(token)}
	create(c, client.Secrets, secret)
	if who, err := c.who(token); err != nil || who != "system:serviceaccount:shop:web" {
		t.Errorf("%q, %v", who, err)
	}
}

func TestBootstrapToken(t *testing.T) {
	c := newCluster(t)
	create(c, client.Secrets, &corev1.Secret{ObjectMeta: named("kube-system", "bootstrap-token-abcdef"), Type: corev1.SecretTypeBootstrapToken, Data: map[string][]byte{
		"token-id": []byte("abcdef"), "token-secret": []byte("0123456789abcdef"), "usage-bootstrap-authentication": []byte("true"),
		"expiration": []byte(c.now.Add(time.Hour).Format(time.RFC3339)),
	}})
	if who, err := c.who("abcdef.0123456789abcdef"); err != nil || who != "system:bootstrap:abcdef" {
		t.Errorf("%q, %v", who, err)
	}
	if _, err := c.who("abcdef.0123456789abcdee"); err == nil {
		t.Error("a wrong secret was accepted")
	}
	c.now = c.now.Add(2 * time.Hour)
	if _, err := c.who("abcdef.0123456789abcdef"); err == nil {
		t.Error("an expired token was accepted")
	}
}

func TestClientCertificate(t *testing.T) {
	c := newCluster(t)
	request := func(cert tls.Certificate) *http.Request {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert.Leaf}}
		return r
	}
	node, err := c.pki.NodeCert("a")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		u, err := c.authn.Authenticate(request(node))
		if err != nil || u.GetName() != "system:node:a" || u.GetGroups()[0] != auth.GroupNodes {
			t.Fatalf("%v, %v", u, err)
		}
	}
	if _, err := c.authn.Authenticate(request(c.pki.Server)); err == nil {
		t.Error("a server's certificate was accepted from a client")
	}
	foreign, err := pki(t, t.TempDir(), c.now, "localhost").AdminCert()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.authn.Authenticate(request(foreign)); err == nil {
		t.Error("another authority's certificate was accepted")
	}
	c.now = c.now.Add(400 * 24 * time.Hour)
	if _, err := c.authn.Authenticate(request(node)); err == nil {
		t.Error("an expired certificate was accepted from memory")
	}
}

func FuzzToken(f *testing.F) {
	c := newCluster(f)
	f.Add("abcdef.0123456789abcdef")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, token string) {
		if who, err := c.who(token); err == nil && token != "" && who != "system:anonymous" {
			t.Errorf("%q is %s", token, who)
		}
	})
}
