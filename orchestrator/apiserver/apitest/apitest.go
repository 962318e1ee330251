// Package apitest is a whole API server for tests: the store in memory, the real
// registry, authentication, authorization, custom kinds, OpenAPI, and TLS on a
// free port.
package apitest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/rest"

	"github.com/xebec-mesh/xebec/orchestrator/admission"
	"github.com/xebec-mesh/xebec/orchestrator/apiserver"
	"github.com/xebec-mesh/xebec/orchestrator/auth"
	"github.com/xebec-mesh/xebec/orchestrator/bootstrap"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/local"
	"github.com/xebec-mesh/xebec/orchestrator/custom"
	"github.com/xebec-mesh/xebec/orchestrator/openapi"
	"github.com/xebec-mesh/xebec/orchestrator/registry"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
	"github.com/xebec-mesh/xebec/orchestrator/store"
)

// Server is a running API server.
type Server struct {
	URL        string
	Kubeconfig string // of an administrator
	PKI        *auth.PKI
	Registry   *registry.Registry
	Client     client.Interface
	Handler    http.Handler
}

// Trusted are definitions that need no validation, as custom.Definition takes them.
var Trusted []custom.Source

// Start runs a server until the test ends.
func Start(t testing.TB, change func(*apiserver.Config)) *Server {
	t.Helper()
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	dir := t.TempDir()
	pki, err := auth.EnsurePKI(auth.PKIConfig{Dir: dir, Hosts: []string{"127.0.0.1", "localhost"}})
	must(t, err)

	var docs *openapi.Server
	kinds := append(resource.Kinds()[:len(resource.Kinds()):len(resource.Kinds())], custom.Definition(Trusted...))
	escalation := &auth.Escalation{}
	chain, err := admission.New(admission.Config{Mutators: admission.Builtins(), Validators: []admission.Validator{auth.NodeRestriction{}, escalation}, Log: log})
	must(t, err)
	reg, err := registry.New(registry.Config{
		Store: store.NewMemory(), Kinds: kinds, Admission: chain, Log: log,
		Types: func(k *resource.Kind) (managedfields.TypeConverter, error) { return docs.Types(k) },
	})
	must(t, err)
	c, err := local.New(local.Config{Registry: reg, Log: log})
	must(t, err)
	definitions, err := custom.New(custom.Config{Client: c, Registry: reg, Log: log})
	must(t, err)
	docs, err = openapi.New(openapi.Config{Kinds: reg.Kinds, Log: log, Custom: func(gvk schema.GroupVersionKind) (openapi.Schema, bool) {
		return definitions.Schema(gvk)
	}})
	must(t, err)
	tokens, err := auth.NewTokens(auth.TokensConfig{Client: c, Key: pki.SAKey})
	must(t, err)
	authn, err := auth.NewAuthenticator(auth.AuthenticatorConfig{ClientCAs: pki.ClientCAs(), Tokens: tokens, Client: c})
	must(t, err)
	authz, err := auth.NewAuthorizer(auth.AuthorizerConfig{Client: c})
	must(t, err)

	escalation.Authorizer = authz

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	cfg := apiserver.Config{
		Registry: reg, Authn: authn, Authz: authz, Tokens: tokens, OpenAPI: docs,
		Listener: listener, TLS: &pki.Server, ClientCAs: pki.ClientCAs(), Log: log, Drain: time.Second,
	}
	if change != nil {
		change(&cfg)
	}
	api, err := apiserver.New(cfg)
	must(t, err)
	s := &Server{URL: "https://" + listener.Addr().String(), PKI: pki, Registry: reg, Client: c, Handler: api.Handler()}
	admin, err := pki.AdminCert()
	must(t, err)
	s.Kubeconfig = filepath.Join(dir, "kubeconfig")
	must(t, auth.Kubeconfig{Server: s.URL, CAPEM: pki.CAPEM, Client: admin}.WriteFile(s.Kubeconfig))

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 3)
	for _, run := range []func(context.Context) error{reg.Run, api.Run, definitions.Run} {
		go func() {
			_ = run(ctx)
			done <- struct{}{}
		}()
	}
	t.Cleanup(func() {
		cancel()
		for range 3 {
			<-done
		}
		c.Close()
	})
	<-definitions.Ready()
	must(t, authz.Ready(ctx))
	must(t, bootstrap.Ensure(ctx, c, bootstrap.Objects(bootstrap.Config{})))
	return s
}

// Config reaches the server as a user.
func (s *Server) Config(t testing.TB, user string, groups ...string) *rest.Config {
	t.Helper()
	cert, err := s.PKI.ClientCert("user-"+user, user, groups...)
	must(t, err)
	certPEM, keyPEM, err := auth.EncodePair(cert)
	must(t, err)
	return &rest.Config{Host: s.URL, QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAData: s.PKI.CAPEM, CertData: certPEM, KeyData: keyPEM}}
}

// HTTP reaches the server as a user, "" as nobody.
func (s *Server) HTTP(t testing.TB, user string, groups ...string) *http.Client {
	t.Helper()
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(s.PKI.CAPEM)
	if user != "" {
		cert, err := s.PKI.ClientCert("user-"+user, user, groups...)
		must(t, err)
		config.Certificates = []tls.Certificate{cert}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}
