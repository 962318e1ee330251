package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

const (
	defaultTokenLife = time.Hour
	minTokenLife     = 10 * time.Minute
	maxTokenLife     = 1 << 32 * time.Second

	legacyIssuer = "kubernetes/serviceaccount"

	// deletedGrace is how long a token outlives the deletion of what it is bound
	// to, as Kubernetes has it: a pod that ends may still report so.
	deletedGrace = time.Minute
)

// TokensConfig is what the token issuer works with.
type TokensConfig struct {
	Client    client.Interface  // ServiceAccounts, Secrets, Pods, Nodes
	Key       *ecdsa.PrivateKey // signs and verifies
	Issuer    string            // default https://kubernetes.default.svc.cluster.local
	Audiences []string          // that the API server answers to; default the issuer
	Now       func() time.Time  // default time.Now
}

// Tokens signs and verifies service-account tokens. A token is believed only
// while its service account, and the pod, secret or node that it is bound to,
// exist with the UIDs that it names.
type Tokens struct {
	issuer    string
	audiences []string
	now       func() time.Time
	signer    jose.Signer
	key       *ecdsa.PrivateKey
	keyID     string
	verified  tokenCache

	client   client.Interface
	accounts client.View[*corev1.ServiceAccount]
	secrets  client.View[*corev1.Secret]
	pods     client.View[*corev1.Pod]
	nodes    client.View[*corev1.Node]
}

// NewTokens checks the configuration.
func NewTokens(cfg TokensConfig) (*Tokens, error) {
	if cfg.Key == nil || cfg.Client == nil {
		return nil, errors.New("create token issuer: Key and Client are needed")
	}
	t := &Tokens{issuer: orDefault(cfg.Issuer, "https://kubernetes.default.svc.cluster.local"), audiences: cfg.Audiences, now: cfg.Now, key: cfg.Key, client: cfg.Client}
	if len(t.audiences) == 0 {
		t.audiences = []string{t.issuer}
	}
	if t.now == nil {
		t.now = time.Now
	}
	der, err := x509.MarshalPKIXPublicKey(&cfg.Key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("create token issuer: %w", err)
	}
	sum := sha256.Sum256(der)
	t.keyID = base64.RawURLEncoding.EncodeToString(sum[:])
	t.signer, err = jose.NewSigner(jose.SigningKey{
		Algorithm: jose.ES256,
		Key:       jose.JSONWebKey{Key: cfg.Key, KeyID: t.keyID, Algorithm: string(jose.ES256)},
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("create token issuer: %w", err)
	}
	t.accounts = client.For(cfg.Client, client.ServiceAccounts).Informer(client.ListOptions{})
	t.secrets = client.For(cfg.Client, client.Secrets).Informer(client.ListOptions{})
	t.pods = client.For(cfg.Client, client.Pods).Informer(client.ListOptions{})
	t.nodes = client.For(cfg.Client, client.Nodes).Informer(client.ListOptions{})
	return t, nil
}

// Audiences are those that the API server accepts for itself.
func (t *Tokens) Audiences() []string { return t.audiences }

type boundRef struct {
	Name string `json:"name"`
	UID  string `json:"uid,omitempty"`
}

type privateClaims struct {
	Namespace      string           `json:"namespace,omitempty"`
	Node           *boundRef        `json:"node,omitempty"`
	Pod            *boundRef        `json:"pod,omitempty"`
	Secret         *boundRef        `json:"secret,omitempty"`
	ServiceAccount boundRef         `json:"serviceaccount,omitempty"`
	WarnAfter      *jwt.NumericDate `json:"warnafter,omitempty"`
}

type tokenClaims struct {
	jwt.Claims
	Kubernetes *privateClaims `json:"kubernetes.io,omitempty"`

	// Of tokens that are kept in secrets.
	LegacyNamespace string `json:"kubernetes.io/serviceaccount/namespace,omitempty"`
	LegacySecret    string `json:"kubernetes.io/serviceaccount/secret.name,omitempty"`
	LegacyName      string `json:"kubernetes.io/serviceaccount/service-account.name,omitempty"`
	LegacyUID       string `json:"kubernetes.io/serviceaccount/service-account.uid,omitempty"`
}

// Issue answers a TokenRequest for a service account.
func (t *Tokens) Issue(ctx context.Context, namespace, name string, req *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	account, err := client.For(t.client, client.ServiceAccounts).Get(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	out := req.DeepCopy()
	if len(out.Spec.Audiences) == 0 {
		out.Spec.Audiences = slices.Clone(t.audiences)
	}
	if out.Spec.ExpirationSeconds == nil {
		seconds := int64(defaultTokenLife / time.Second)
		out.Spec.ExpirationSeconds = &seconds
	}
	if errs := validateTokenRequest(name, out); len(errs) > 0 {
		return nil, apierrors.NewInvalid(authenticationv1.SchemeGroupVersion.WithKind("TokenRequest").GroupKind(), "", errs)
	}
	private := &privateClaims{Namespace: namespace, ServiceAccount: boundRef{name, string(account.UID)}}
	if ref := out.Spec.BoundObjectRef; ref != nil {
		if err := t.bind(ctx, account, ref, private); err != nil {
			return nil, err
		}
	}
	now := t.now()
	expires := now.Add(time.Duration(*out.Spec.ExpirationSeconds) * time.Second)
	token, err := t.sign(tokenClaims{Kubernetes: private, Claims: jwt.Claims{
		Issuer: t.issuer, Subject: serviceaccount.MakeUsername(namespace, name),
		Audience: out.Spec.Audiences, ID: string(uuid.NewUUID()),
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(expires),
	}})
	if err != nil {
		return nil, err
	}
	out.Namespace, out.Name, out.CreationTimestamp = namespace, name, metav1.NewTime(now)
	out.Status = authenticationv1.TokenRequestStatus{Token: token, ExpirationTimestamp: metav1.NewTime(expires)}
	return out, nil
}

// Legacy signs the token that a Secret of type kubernetes.io/service-account-token
// keeps. It has no expiry and ends with the secret.
func (t *Tokens) Legacy(account *corev1.ServiceAccount, secret *corev1.Secret) (string, error) {
	return t.sign(tokenClaims{
		Claims:          jwt.Claims{Issuer: legacyIssuer, Subject: serviceaccount.MakeUsername(account.Namespace, account.Name)},
		LegacyNamespace: account.Namespace, LegacySecret: secret.Name,
		LegacyName: account.Name, LegacyUID: string(account.UID),
	})
}

func (t *Tokens) sign(claims tokenClaims) (string, error) {
	token, err := jwt.Signed(t.signer).Claims(claims).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign token for %s: %w", claims.Subject, err)
	}
	return token, nil
}

func validateTokenRequest(account string, r *authenticationv1.TokenRequest) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec").Child("expirationSeconds")
	switch seconds := *r.Spec.ExpirationSeconds; {
	case seconds < int64(minTokenLife/time.Second):
		errs = append(errs, field.Invalid(path, seconds, "may not specify a duration less than 10 minutes"))
	case seconds > int64(maxTokenLife/time.Second):
		errs = append(errs, field.Invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"))
	}
	if r.Name != "" && r.Name != account {
		errs = append(errs, field.Invalid(field.NewPath("metadata").Child("name"), r.Name, "must match the service account name if specified"))
	}
	return errs
}

// bind checks the object that a token is to be bound to, and adds it to the claims.
func (t *Tokens) bind(ctx context.Context, account *corev1.ServiceAccount, ref *authenticationv1.BoundObjectReference, out *privateClaims) error {
	var uid types.UID
	var resource string
	switch {
	case ref.Kind == "Pod" && ref.APIVersion == "v1":
		pod, err := client.For(t.client, client.Pods).Get(ctx, account.Namespace, ref.Name)
		if err != nil {
			return err
		}
		if pod.Spec.ServiceAccountName != account.Name {
			return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", account.Name))
		}
		uid, resource = pod.UID, "pods"
		out.Pod = &boundRef{pod.Name, string(pod.UID)}
		if node, ok := t.nodes.Get("", pod.Spec.NodeName); ok && pod.Spec.NodeName != "" {
			out.Node = &boundRef{node.Name, string(node.UID)}
		}
	case ref.Kind == "Secret" && ref.APIVersion == "v1":
		secret, err := client.For(t.client, client.Secrets).Get(ctx, account.Namespace, ref.Name)
		if err != nil {
			return err
		}
		uid, resource = secret.UID, "secrets"
		out.Secret = &boundRef{secret.Name, string(secret.UID)}
	case ref.Kind == "Node" && ref.APIVersion == "v1":
		node, err := client.For(t.client, client.Nodes).Get(ctx, "", ref.Name)
		if err != nil {
			return err
		}
		uid, resource = node.UID, "nodes"
		out.Node = &boundRef{node.Name, string(node.UID)}
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to a %s/%s", ref.APIVersion, ref.Kind))
	}
	if ref.UID != "" && ref.UID != uid {
		return apierrors.NewConflict(corev1.Resource(resource), ref.Name, fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID))
	}
	return nil
}

// errToken tells clients nothing about why; the cause is for the tests and a debug log.
type errToken struct{ reason string }

func (e errToken) Error() string { return "invalid bearer token: " + e.reason }

// looksLikeJWT tells a service-account token from a bootstrap token.
func looksLikeJWT(token string) bool { return strings.Count(token, ".") == 2 }

// Authenticate verifies a token for any one of audiences (the server's own when
// empty) and returns its user and the audiences that matched.
func (t *Tokens) Authenticate(ctx context.Context, token string, audiences []string) (user.Info, []string, error) {
	if len(audiences) == 0 {
		audiences = t.audiences
	}
	claims, err := t.verify(token)
	if err != nil {
		return nil, nil, err
	}
	if claims.Issuer == legacyIssuer {
		u, err := t.legacyUser(ctx, token, claims)
		return u, intersect(audiences, t.audiences), err
	}
	if now := t.now(); claims.Expiry == nil || now.After(claims.Expiry.Time()) {
		return nil, nil, errToken{"token has expired"}
	} else if claims.NotBefore != nil && now.Add(time.Minute).Before(claims.NotBefore.Time()) {
		return nil, nil, errToken{"token is not valid yet"}
	}
	matched := intersect(audiences, claims.Audience)
	if len(matched) == 0 {
		return nil, nil, errToken{fmt.Sprintf("token audiences %q is invalid for the target audiences %q", []string(claims.Audience), audiences)}
	}
	u, err := t.boundUser(ctx, claims)
	return u, matched, err
}

// verify checks signature and issuer; what it found is remembered by the token's hash.
func (t *Tokens) verify(token string) (*tokenClaims, error) {
	sum := sha256.Sum256([]byte(token))
	if claims, ok := t.verified.get(sum); ok {
		return claims, nil
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return nil, errToken{"not a signed token"}
	}
	claims := &tokenClaims{}
	if err := parsed.Claims(&t.key.PublicKey, claims); err != nil {
		return nil, errToken{"signature does not verify"}
	}
	if claims.Issuer != t.issuer && claims.Issuer != legacyIssuer {
		return nil, errToken{"unknown issuer"}
	}
	if claims.Issuer == t.issuer && claims.Kubernetes == nil {
		return nil, errToken{"no kubernetes.io claims"}
	}
	t.verified.put(sum, claims)
	return claims, nil
}

func (t *Tokens) boundUser(ctx context.Context, c *tokenClaims) (user.Info, error) {
	k := c.Kubernetes
	info := serviceaccount.ServiceAccountInfo{Namespace: k.Namespace, Name: k.ServiceAccount.Name, UID: k.ServiceAccount.UID}
	if c.Subject != serviceaccount.MakeUsername(info.Namespace, info.Name) {
		return nil, errToken{"subject does not match its claims"}
	}
	if c.ID != "" {
		info.CredentialID = "JTI=" + c.ID
	}
	if err := check(ctx, t, t.accounts, client.ServiceAccounts, k.Namespace, k.ServiceAccount); err != nil {
		return nil, err
	}
	if k.Secret != nil {
		if err := check(ctx, t, t.secrets, client.Secrets, k.Namespace, *k.Secret); err != nil {
			return nil, err
		}
	}
	if k.Pod != nil {
		if err := check(ctx, t, t.pods, client.Pods, k.Namespace, *k.Pod); err != nil {
			return nil, err
		}
		info.PodName, info.PodUID = k.Pod.Name, k.Pod.UID
	}
	if k.Node != nil {
		if k.Pod == nil {
			if err := check(ctx, t, t.nodes, client.Nodes, "", *k.Node); err != nil {
				return nil, err
			}
		}
		info.NodeName, info.NodeUID = k.Node.Name, k.Node.UID
	}
	return info.UserInfo(), nil
}

// check holds if the object exists with that UID and was not deleted longer than
// deletedGrace ago. The informer answers; only what it does not know yet is asked
// for, so that a token works at once after the creation of its account.
func check[T client.Object](ctx context.Context, t *Tokens, view client.View[T], kind client.Kind[T], namespace string, ref boundRef) error {
	obj, ok := view.Get(namespace, ref.Name)
	if !ok || string(obj.GetUID()) != ref.UID {
		var err error
		if obj, err = client.For(t.client, kind).Get(ctx, namespace, ref.Name); err != nil {
			return errToken{fmt.Sprintf("%s %s is gone", kind.Kind, ref.Name)}
		}
	}
	if string(obj.GetUID()) != ref.UID {
		return errToken{fmt.Sprintf("%s %s is another one now", kind.Kind, ref.Name)}
	}
	if at := obj.GetDeletionTimestamp(); at != nil && t.now().After(at.Add(deletedGrace)) {
		return errToken{fmt.Sprintf("%s %s has been deleted", kind.Kind, ref.Name)}
	}
	return nil
}

func (t *Tokens) legacyUser(ctx context.Context, token string, c *tokenClaims) (user.Info, error) {
	account := boundRef{c.LegacyName, c.LegacyUID}
	if c.Subject != serviceaccount.MakeUsername(c.LegacyNamespace, c.LegacyName) {
		return nil, errToken{"subject does not match its claims"}
	}
	if err := check(ctx, t, t.accounts, client.ServiceAccounts, c.LegacyNamespace, account); err != nil {
		return nil, err
	}
	secret, err := client.For(t.client, client.Secrets).Get(ctx, c.LegacyNamespace, c.LegacySecret)
	if err != nil || secret.DeletionTimestamp != nil || string(secret.Data[corev1.ServiceAccountTokenKey]) != token {
		return nil, errToken{"its secret is gone"}
	}
	return serviceaccount.UserInfo(c.LegacyNamespace, c.LegacyName, c.LegacyUID), nil
}

// JWKS is the key set that others verify tokens with (/openid/v1/jwks).
func (t *Tokens) JWKS() ([]byte, error) {
	return json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{
		Key: &t.key.PublicKey, KeyID: t.keyID, Algorithm: string(jose.ES256), Use: "sig",
	}}})
}

// Discovery is the issuer's OpenID configuration (/.well-known/openid-configuration).
func (t *Tokens) Discovery(jwksURI string) ([]byte, error) {
	return json.Marshal(map[string]any{
		"issuer":                                t.issuer,
		"jwks_uri":                              jwksURI,
		"response_types_supported":              []string{"id_token"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{string(jose.ES256)},
	})
}

// Issuer is the URL that tokens name as theirs.
func (t *Tokens) Issuer() string { return t.issuer }

func intersect(want, have []string) []string {
	var out []string
	for _, w := range want {
		if slices.Contains(have, w) {
			out = append(out, w)
		}
	}
	return out
}
