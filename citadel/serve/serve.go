// Package serve hands SVIDs and trust bundles to the workloads of this node.
//
//	in:   the node's SVID cache, the trust bundle, which pod a socket belongs to
//	out:  Envoy's SDS (delta and state of the world) and the SPIFFE Workload API, over gRPC
//
// A Workload is bound to one identity before it is registered: the socket is the
// identity, and nothing in a request selects another. Every stream gets each new
// SVID and bundle as it appears; a stream that had one is never told to drop it.
//
// SDS names: "default" and the SPIFFE ID are the SVID; "ROOTCA" and the trust
// domain's SPIFFE ID are the validation context. Which peers may be believed
// (match_typed_subject_alt_names) is for whoever writes the TLS context to say.
package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"

	"github.com/xebec-mesh/xebec/citadel/bundle"
	"github.com/xebec-mesh/xebec/citadel/ca"
	"github.com/xebec-mesh/xebec/citadel/svid"
)

// Tokens signs JWT-SVIDs; *issue.Node does.
type Tokens interface {
	JWT(ctx context.Context, id ca.Identity, audience []string) (string, error)
}

// Config says what a Server needs.
type Config struct {
	Cache       *svid.Cache    // required
	Bundle      *bundle.Source // required
	Tokens      Tokens         // nil: the Workload API has no JWT-SVIDs
	TrustDomain string         // required
	Now         func() time.Time
	Log         *slog.Logger
}

// Server serves any number of workloads.
type Server struct {
	cfg      Config
	streams  atomic.Int64
	pushes   atomic.Uint64
	rejected atomic.Uint64
}

// New checks the configuration.
func New(cfg Config) (*Server, error) {
	if cfg.Cache == nil || cfg.Bundle == nil || cfg.TrustDomain == "" {
		return nil, errors.New("serve identities: Cache, Bundle and TrustDomain are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg}, nil
}

// For is the services as the pods of one service account see them; "" is the
// namespace's default service account.
func (s *Server) For(namespace, serviceAccount string) *Workload {
	if serviceAccount == "" {
		serviceAccount = "default"
	}
	id := ca.Identity{Namespace: namespace, ServiceAccount: serviceAccount}
	return &Workload{server: s, id: id, uri: id.URI(s.cfg.TrustDomain).String()}
}

// Workload serves one identity.
type Workload struct {
	server *Server
	id     ca.Identity
	uri    string
}

// Register adds SDS and the Workload API to a pod's gRPC server.
func (w *Workload) Register(reg grpc.ServiceRegistrar) {
	secretv3.RegisterSecretDiscoveryServiceServer(reg, &sds{workload: w})
	workload.RegisterSpiffeWorkloadAPIServer(reg, &workloadAPI{workload: w})
}

// view is what one workload may see at one time.
type view struct {
	svid   *svid.SVID // nil as long as there is none
	bundle *bundle.Bundle
}

// follow calls each with the current view, and again whenever it changed, until
// ctx ends or each returns an error. Values on wake call it too.
func (w *Workload) follow(ctx context.Context, each func(view) error, wake <-chan func() error) error {
	w.server.streams.Add(1)
	defer w.server.streams.Add(-1)
	handle := w.server.cfg.Cache.Hold(w.id)
	defer handle.Release()
	for {
		var v view
		var fresh, trusted <-chan struct{}
		v.svid, fresh, _ = handle.Get()
		v.bundle, trusted = w.server.cfg.Bundle.Get()
		if err := each(v); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-fresh:
		case <-trusted:
		case f, ok := <-wake:
			if !ok {
				return nil
			}
			if err := f(); err != nil {
				return err
			}
		}
	}
}

// WriteMetrics writes the server's state in the Prometheus text format.
func (s *Server) WriteMetrics(w io.Writer) error {
	_, err := fmt.Fprintf(w, `# HELP citadel_streams Open SDS and Workload API streams.
# TYPE citadel_streams gauge
citadel_streams %d
# HELP citadel_pushes_total Secrets sent.
# TYPE citadel_pushes_total counter
citadel_pushes_total %d
# HELP citadel_rejected_total Secrets that an Envoy refused.
# TYPE citadel_rejected_total counter
citadel_rejected_total %d
`, s.streams.Load(), s.pushes.Load(), s.rejected.Load())
	return err
}
