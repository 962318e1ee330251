// Package issue turns a signing request into an SVID.
//
//	in:   a node, an identity, a CSR
//	out:  a certificate chain, or a token
//
// It signs only what attest allows: an identity goes to a node only while one of
// that identity's pods is bound there. Of a CSR only the public key counts.
package issue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/xebec-mesh/xebec/citadel/ca"
)

// Keys is what signs; *authority.Authority has it.
type Keys interface {
	TrustDomain() string
	Issuer() *ca.Issuer
	JWTSigner() *ca.JWTSigner
}

// Attestor says who may have which identity; *attest.Attestor does.
type Attestor interface {
	Attest(ctx context.Context, node string, id ca.Identity) error
}

// Config says what an Issuer needs.
type Config struct {
	Keys     Keys          // required
	Attestor Attestor      // required
	TTL      time.Duration // of an X.509-SVID; default 24 h
	JWTTTL   time.Duration // of a JWT-SVID; default 5 min
	Now      func() time.Time
	Log      *slog.Logger
}

// Issuer signs for nodes.
type Issuer struct {
	cfg                    Config
	issued, denied, failed atomic.Uint64
	tokens                 atomic.Uint64
}

// New checks the configuration.
func New(cfg Config) (*Issuer, error) {
	if cfg.Keys == nil || cfg.Attestor == nil {
		return nil, errors.New("issuer: Keys and Attestor are required")
	}
	if cfg.TTL == 0 {
		cfg.TTL = 24 * time.Hour
	}
	if cfg.TTL < 3*time.Second {
		return nil, fmt.Errorf("issuer: SVID lifetime %s is too short: want at least 3s", cfg.TTL)
	}
	if cfg.JWTTTL == 0 {
		cfg.JWTTTL = 5 * time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Issuer{cfg: cfg}, nil
}

// X509 signs a CSR in DER and returns the chain, leaf first, DER.
func (i *Issuer) X509(ctx context.Context, node string, id ca.Identity, csr []byte) ([][]byte, error) {
	pub, err := ca.ParseCSR(csr)
	if err != nil {
		i.failed.Add(1)
		return nil, fmt.Errorf("issue SVID for %s: %w", id, err)
	}
	if err := i.allow(ctx, node, id); err != nil {
		return nil, fmt.Errorf("issue SVID for %s: %w", id, err)
	}
	serial, err := ca.NewSerial()
	if err != nil {
		return nil, fmt.Errorf("issue SVID for %s: %w", id, err)
	}
	chain, cert, err := i.cfg.Keys.Issuer().Sign(ca.Leaf{
		TrustDomain: i.cfg.Keys.TrustDomain(), Identity: id, PublicKey: pub,
		Serial: serial, Now: i.cfg.Now(), TTL: i.cfg.TTL,
	})
	if err != nil {
		i.failed.Add(1)
		return nil, err
	}
	i.issued.Add(1)
	i.cfg.Log.Debug("svid issued", "identity", id.String(), "node", node, "serial", serial.Text(16), "until", cert.NotAfter)
	return chain, nil
}

// JWT signs a token for an audience.
func (i *Issuer) JWT(ctx context.Context, node string, id ca.Identity, audience []string) (string, error) {
	if err := i.allow(ctx, node, id); err != nil {
		return "", fmt.Errorf("issue JWT-SVID for %s: %w", id, err)
	}
	token, err := i.cfg.Keys.JWTSigner().Sign(ca.JWT{
		TrustDomain: i.cfg.Keys.TrustDomain(), Identity: id, Audience: audience,
		Now: i.cfg.Now(), TTL: i.cfg.JWTTTL,
	})
	if err != nil {
		i.failed.Add(1)
		return "", err
	}
	i.tokens.Add(1)
	return token, nil
}

func (i *Issuer) allow(ctx context.Context, node string, id ca.Identity) error {
	if err := id.Check(); err != nil {
		i.denied.Add(1)
		return err
	}
	if err := i.cfg.Attestor.Attest(ctx, node, id); err != nil {
		i.denied.Add(1)
		return err
	}
	return nil
}

// ForNode is the issuer as one node in this process sees it.
func (i *Issuer) ForNode(node string) *Node { return &Node{issuer: i, node: node} }

// Node issues for the pods of one node.
type Node struct {
	issuer *Issuer
	node   string
}

// X509 signs a CSR for one of the node's workloads.
func (n *Node) X509(ctx context.Context, id ca.Identity, csr []byte) ([][]byte, error) {
	return n.issuer.X509(ctx, n.node, id, csr)
}

// JWT signs a token for one of the node's workloads.
func (n *Node) JWT(ctx context.Context, id ca.Identity, audience []string) (string, error) {
	return n.issuer.JWT(ctx, n.node, id, audience)
}

// WriteMetrics writes the counters in the Prometheus text format.
func (i *Issuer) WriteMetrics(w io.Writer) error {
	_, err := fmt.Fprintf(w, `# HELP citadel_issued_total Signing requests by outcome.
# TYPE citadel_issued_total counter
citadel_issued_total{kind="x509",outcome="issued"} %d
citadel_issued_total{kind="jwt",outcome="issued"} %d
citadel_issued_total{kind="any",outcome="denied"} %d
citadel_issued_total{kind="any",outcome="failed"} %d
# HELP citadel_root_expiry_timestamp_seconds When the active issuer ends.
# TYPE citadel_root_expiry_timestamp_seconds gauge
citadel_root_expiry_timestamp_seconds %d
`, i.issued.Load(), i.tokens.Load(), i.denied.Load(), i.failed.Load(), i.cfg.Keys.Issuer().Cert.NotAfter.Unix())
	return err
}
