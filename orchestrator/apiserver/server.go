package apiserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/xebec-mesh/xebec/orchestrator/auth"
	"github.com/xebec-mesh/xebec/orchestrator/registry"
)

// Config is what the server serves and how.
type Config struct {
	Registry *registry.Registry  // required
	Authn    *auth.Authenticator // required
	Authz    *auth.Authorizer    // required
	Tokens   *auth.Tokens        // answers serviceaccounts/token; nil does not serve it
	OpenAPI  http.Handler        // serves /openapi/; nil does not serve it

	Listen   string           // host:port; default :6443
	Listener net.Listener     // instead of Listen, if the port is already open
	TLS      *tls.Certificate // required
	// ClientCAs is only told to clients, to help them choose a certificate; Authn verifies.
	ClientCAs *x509.CertPool

	// Extra serves further paths, by prefix, behind authentication and the rules
	// for non-resource URLs. UserFrom tells a handler who asks.
	Extra map[string]http.Handler
	// Checks are asked by /livez and /readyz, by name.
	Checks map[string]func(context.Context) error
	// NodeTLS is how the server shows itself to node agents, and whom it trusts there.
	NodeTLS *tls.Config

	Version version.Info // what /version answers; zero is Kubernetes v1.36
	// Seats that requests of users, and of the system, hold at once. Default 400 each.
	UserSeats, SystemSeats int
	// Timeout bounds a request that is not long-running. Default 60 s.
	Timeout time.Duration
	// Drain is how long running requests may take to end at shutdown. Default 5 s.
	Drain time.Duration
	Log   *slog.Logger
}

// Server is the API server.
type Server struct {
	cfg      Config
	log      *slog.Logger
	registry *registry.Registry
	users    *flow
	system   *flow
	metrics  *metrics
	disco    discovery
	nodes    *nodeProxy
	extra    []extra

	draining context.Context // ends when long-running requests should
	drain    context.CancelFunc
}

type extra struct {
	prefix  string
	handler http.Handler
}

// New checks cfg.
func New(cfg Config) (*Server, error) {
	if cfg.Registry == nil || cfg.Authn == nil || cfg.Authz == nil || cfg.Log == nil {
		return nil, errors.New("create api server: Registry, Authn, Authz and Log are needed")
	}
	setDefaults(&cfg)
	s := &Server{
		cfg: cfg, log: cfg.Log, registry: cfg.Registry,
		users: newFlow("users", cfg.UserSeats, 2*cfg.UserSeats), system: newFlow("system", cfg.SystemSeats, 2*cfg.SystemSeats),
		metrics: newMetrics(), nodes: newNodeProxy(cfg.NodeTLS),
	}
	for prefix, h := range cfg.Extra {
		if !strings.HasPrefix(prefix, "/") {
			return nil, fmt.Errorf("create api server: path %q of an extra handler must begin with /", prefix)
		}
		s.extra = append(s.extra, extra{prefix, h})
	}
	slices.SortFunc(s.extra, func(a, b extra) int { return len(b.prefix) - len(a.prefix) }) // the longest decides
	s.draining, s.drain = context.WithCancel(context.Background())
	return s, nil
}

func setDefaults(cfg *Config) {
	if cfg.Listen == "" {
		cfg.Listen = ":6443"
	}
	if cfg.UserSeats == 0 {
		cfg.UserSeats = 400
	}
	if cfg.SystemSeats == 0 {
		cfg.SystemSeats = 400
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 60 * time.Second
	}
	if cfg.Drain == 0 {
		cfg.Drain = 5 * time.Second
	}
	if cfg.Version.GitVersion == "" {
		cfg.Version = defaultVersion()
	}
}

// Run listens until ctx ends, then ends watches, waits for other requests for
// Config.Drain, and returns.
func (s *Server) Run(ctx context.Context) error {
	if s.cfg.TLS == nil {
		return errors.New("run api server: no TLS certificate given")
	}
	listener := s.cfg.Listener
	if listener == nil {
		var err error
		if listener, err = net.Listen("tcp", s.cfg.Listen); err != nil {
			return fmt.Errorf("listen for the api: %w", err)
		}
	}
	server := s.httpServer()
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(listener, "", "") }()
	select {
	case err := <-done:
		return fmt.Errorf("serve the api on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	s.drain()
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Drain)
	defer cancel()
	if err := server.Shutdown(wait); err != nil {
		_ = server.Close()
	}
	<-done
	return nil
}

func (s *Server) httpServer() *http.Server {
	return &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       10 * time.Minute,
		MaxHeaderBytes:    1 << 20,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{*s.cfg.TLS},
			ClientAuth:   tls.RequestClientCert, // Authn verifies, and answers with a Status
			ClientCAs:    s.cfg.ClientCAs,
			MinVersion:   tls.VersionTLS12,
			NextProtos:   []string{"h2", "http/1.1"},
		},
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          1000, // a client's watches share one connection
			MaxReceiveBufferPerConnection: 4 << 20,
			MaxReceiveBufferPerStream:     1 << 20,
			SendPingTimeout:               30 * time.Second,
		},
	}
}

// Handler is the whole server without its listener.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

// serve takes a request through the steps that doc.go names.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w}
	start := time.Now()
	query := r.URL.Query()
	req := parseRequest(r.Method, r.URL.Path, query)
	defer func() {
		s.recoverPanic(rec, r, recover())
		s.metrics.observe(&req, rec.code, time.Since(start), req.longRunning(query))
	}()
	u, err := s.cfg.Authn.Authenticate(r)
	if err != nil {
		s.log.Debug("authentication failed", "path", r.URL.Path, "err", err)
		s.fail(rec, r, errUnauthorized())
		return
	}
	long := req.longRunning(query)
	if f := s.flowOf(u); f != nil && !long {
		if !f.enter(r.Context(), u.GetName()) {
			s.fail(rec, r, apierrors.NewTooManyRequests("too many requests of yours are waiting: try again", 1))
			return
		}
		defer f.leave()
	}
	if !long {
		ctx, cancel := context.WithTimeout(r.Context(), s.timeout(query.Get("timeout")))
		defer cancel()
		r = r.WithContext(ctx)
	}
	s.authorize(rec, r, &req, u)
}

func (s *Server) timeout(asked string) time.Duration {
	d, err := time.ParseDuration(asked)
	if err != nil || d <= 0 || d > s.cfg.Timeout {
		return s.cfg.Timeout
	}
	return d
}

func (s *Server) authorize(w *recorder, r *http.Request, req *request, u user.Info) {
	ctx := r.Context()
	u, err := s.cfg.Authz.Impersonate(ctx, u, r.Header)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	for _, at := range attributesOf(req, u, r) {
		decision, reason := s.cfg.Authz.Authorize(ctx, at)
		if decision == auth.Allow || alwaysAllowed(req) {
			continue
		}
		if u.GetName() == auth.Anonymous.GetName() {
			s.fail(w, r, errUnauthorized())
			return
		}
		s.fail(w, r, auth.Forbidden(at, reason))
		return
	}
	s.route(w, r.WithContext(withUser(ctx, u)), *req, u)
}

// attributesOf are the checks that a request must pass. Upgrades by GET are held
// to what the same by POST needs.
func attributesOf(req *request, u user.Info, r *http.Request) []auth.Attributes {
	at := auth.Attributes{
		User: u, Verb: req.Verb, Path: req.Path, Group: req.Group, Version: req.Version,
		Resource: req.Resource, Subresource: req.Subresource, Namespace: req.Namespace, Name: req.Name,
		FieldSelector: req.FieldSelector,
	}
	switch req.Subresource {
	case "exec", "attach", "portforward":
		if r.Method == http.MethodGet {
			create := at
			create.Verb = "create"
			return []auth.Attributes{at, create}
		}
	}
	return []auth.Attributes{at}
}

// alwaysAllowed are the paths that need no rule, not even a user.
func alwaysAllowed(req *request) bool {
	switch req.Path {
	case "/healthz", "/livez", "/readyz", "/version", "/version/":
		return req.Verb == "get" || req.Verb == "head"
	}
	return false
}

// recoverPanic answers a panic with 500. http.ErrAbortHandler is the handlers'
// own way to break a connection.
func (s *Server) recoverPanic(w *recorder, r *http.Request, cause any) {
	if cause == nil {
		return
	}
	if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(cause)
	}
	s.log.Error("request panicked", "method", r.Method, "path", r.URL.Path, "err", cause, "stack", string(debug.Stack()))
	if w.code == 0 {
		s.fail(w, r, apierrors.NewInternalError(errors.New("this request caused a panic; the server's log has the details")))
	}
}

// recorder remembers an answer's code.
type recorder struct {
	http.ResponseWriter
	code int
}

func (r *recorder) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
	}
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Flush passes through, so that watches stream.
func (r *recorder) Flush() {
	if f, ok := r.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Hijack passes through, for upgrades.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if r.code == 0 {
		r.code = http.StatusSwitchingProtocols
	}
	return http.NewResponseController(r.ResponseWriter).Hijack()
}
