// Package tokensecret fills Secrets of type kubernetes.io/service-account-token.
//
//	in:   Secrets of that type, ServiceAccounts
//	out:  their token, CA bundle and namespace; deletion of those without account
//
// Such Secrets are made by users who need a token without expiry; pods get theirs by
// TokenRequest. Invariant: a Secret never holds a token for an account that is gone,
// or that has another UID than its annotation says.
package tokensecret

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

// byAccount indexes Secrets by namespace/name of the account in their annotation.
const byAccount = "service-account"

// Signer makes tokens.
type Signer interface {
	// Legacy signs a token that lives as long as the secret that keeps it.
	Legacy(account *corev1.ServiceAccount, secret *corev1.Secret) (string, error)
}

// Config says what the controller works with.
type Config struct {
	Client client.Interface
	Signer Signer
	CA     []byte // PEM
	Log    *slog.Logger
}

// Controller reconciles Secrets.
type Controller struct {
	cfg      Config
	queue    *reconcile.Queue
	secrets  client.Typed[*corev1.Secret]
	accounts client.Typed[*corev1.ServiceAccount]
	view     client.View[*corev1.Secret]
}

// New checks the configuration.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Signer == nil || len(cfg.CA) == 0 {
		return nil, fmt.Errorf("token secret controller: client, signer and CA are required")
	}
	c := &Controller{cfg: cfg, secrets: client.For(cfg.Client, client.Secrets), accounts: client.For(cfg.Client, client.ServiceAccounts)}
	c.view = c.secrets.Informer(client.ListOptions{FieldSelector: "type=" + string(corev1.SecretTypeServiceAccountToken)})
	c.view.AddIndex(byAccount, func(o client.Object) []string {
		return []string{o.GetNamespace() + "/" + o.GetAnnotations()[corev1.ServiceAccountNameKey]}
	})
	accounts := c.accounts.Informer(client.ListOptions{})
	var err error
	c.queue, err = reconcile.New(reconcile.Config{
		Name: "tokensecret", Reconcile: c.reconcile, Log: cfg.Log,
		Watch: []reconcile.Watch{
			{Informer: c.view.Informer, Keys: reconcile.Self},
			{Informer: accounts.Informer, Keys: c.keysOfAccount},
		},
	})
	return c, err
}

func (c *Controller) keysOfAccount(ev client.Event) []types.NamespacedName {
	if ev.Type == client.Modified {
		return nil
	}
	var keys []types.NamespacedName
	for _, s := range c.view.ByIndex(byAccount, client.Key(ev.Object).String()) {
		keys = append(keys, client.Key(s))
	}
	return keys
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.queue.Run(ctx) }

// Stats returns the queue's counters.
func (c *Controller) Stats() reconcile.Stats { return c.queue.Stats() }

func (c *Controller) reconcile(ctx context.Context, key types.NamespacedName) (time.Duration, error) {
	secret, ok := c.view.Get(key.Namespace, key.Name)
	if !ok {
		return 0, nil
	}
	// Absence deletes: ask the server, not the informer.
	account, err := c.accounts.Get(ctx, key.Namespace, secret.Annotations[corev1.ServiceAccountNameKey])
	if apierrors.IsNotFound(err) {
		account, err = nil, nil
	}
	if err != nil {
		return 0, fmt.Errorf("get service account of secret %s: %w", key, err)
	}
	return 0, c.apply(ctx, secret, account, compute(secret, account, c.cfg.CA))
}
