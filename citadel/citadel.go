// Package citadel is identity: it puts the certificate authority, the node's SVIDs
// and the services on the pods' sockets together for cmd.
//
//	in:   a state directory, the API client, this node's name
//	out:  for each pod's socket SDS and the Workload API; the trust bundle
//
// A workload is spiffe://<trust domain>/ns/<namespace>/sa/<service account>. Its
// key is made on its node, never stored and never logged.
package citadel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xebec-mesh/xebec/citadel/attest"
	"github.com/xebec-mesh/xebec/citadel/authority"
	"github.com/xebec-mesh/xebec/citadel/bundle"
	"github.com/xebec-mesh/xebec/citadel/issue"
	"github.com/xebec-mesh/xebec/citadel/serve"
	"github.com/xebec-mesh/xebec/citadel/svid"
	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// Config says what a Citadel is made of.
type Config struct {
	TrustDomain string           // default cluster.local
	Dir         string           // where the authority's keys lie, mode 0600; required
	CADir       string           // operator's CA (ca-cert.pem, ca-key.pem, root-cert.pem, cert-chain.pem); "" makes a root of our own
	SVIDTTL     time.Duration    // default 24 h
	RootTTL     time.Duration    // of a root of our own; default 10 years
	Propagate   time.Duration    // how long a new root is only trusted before it signs; default 10 min
	Client      client.Interface // required
	Node        string           // the node of this process; required
	Log         *slog.Logger
}

// Citadel is the authority of a cluster together with the SVIDs of its own node.
type Citadel struct {
	authority *authority.Authority
	issuer    *issue.Issuer
	cache     *svid.Cache
	server    *serve.Server
}

// New opens the authority, making its first root where there is none.
func New(cfg Config) (*Citadel, error) {
	if cfg.Client == nil || cfg.Node == "" {
		return nil, errors.New("citadel: Client and Node are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	auth, err := authority.New(authority.Config{
		TrustDomain: cfg.TrustDomain, Dir: cfg.Dir, CADir: cfg.CADir,
		RootTTL: cfg.RootTTL, LeafTTL: cfg.SVIDTTL, Propagate: cfg.Propagate, Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	attestor, err := attest.New(attest.Config{Client: cfg.Client})
	if err != nil {
		return nil, err
	}
	issuer, err := issue.New(issue.Config{Keys: auth, Attestor: attestor, TTL: cfg.SVIDTTL, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	node := issuer.ForNode(cfg.Node)
	cache, err := svid.New(svid.Config{Issuer: node, TrustDomain: auth.TrustDomain(), Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	server, err := serve.New(serve.Config{
		Cache: cache, Bundle: auth.Bundle(), Tokens: node, TrustDomain: auth.TrustDomain(), Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	return &Citadel{authority: auth, issuer: issuer, cache: cache, server: server}, nil
}

// For is SDS and the Workload API for the pods of one service account.
func (c *Citadel) For(namespace, serviceAccount string) *serve.Workload {
	return c.server.For(namespace, serviceAccount)
}

// Bundle follows the trust bundle.
func (c *Citadel) Bundle() *bundle.Source { return c.authority.Bundle() }

// Issuer signs for other nodes.
func (c *Citadel) Issuer() *issue.Issuer { return c.issuer }

// Rotate prepares a new root; it signs once it has had time to reach everybody.
func (c *Citadel) Rotate() error { return c.authority.Rotate() }

// Run renews what must be renewed until ctx ends.
func (c *Citadel) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.authority.Run(ctx) })
	g.Go(func() error { return c.cache.Run(ctx) })
	if err := g.Wait(); err != nil {
		return fmt.Errorf("citadel: %w", err)
	}
	return nil
}

// WriteMetrics writes the state of all parts in the Prometheus text format.
func (c *Citadel) WriteMetrics(w io.Writer) error {
	return errors.Join(c.issuer.WriteMetrics(w), c.cache.WriteMetrics(w), c.server.WriteMetrics(w))
}
