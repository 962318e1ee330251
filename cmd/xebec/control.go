package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/xebec-mesh/xebec/orchestrator/admission"
	"github.com/xebec-mesh/xebec/orchestrator/admission/clusterip"
	"github.com/xebec-mesh/xebec/orchestrator/apiserver"
	"github.com/xebec-mesh/xebec/orchestrator/auth"
	"github.com/xebec-mesh/xebec/orchestrator/bootstrap"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/local"
	"github.com/xebec-mesh/xebec/orchestrator/controllers"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/nodeipam"
	"github.com/xebec-mesh/xebec/orchestrator/custom"
	"github.com/xebec-mesh/xebec/orchestrator/openapi"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
	"github.com/xebec-mesh/xebec/orchestrator/registry"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
	"github.com/xebec-mesh/xebec/orchestrator/scheduler"
	"github.com/xebec-mesh/xebec/orchestrator/store"

	meshschema "github.com/xebec-mesh/xebec/galley/schema"
)

// control is the Kubernetes control plane.
type control struct {
	pki       *auth.PKI
	registry  *registry.Registry
	client    *local.Client
	authn     *auth.Authenticator
	authz     *auth.Authorizer
	tokens    *auth.Tokens
	custom    *custom.Controller
	documents *openapi.Server
	addresses *clusterip.Allocator
	scheduler *scheduler.Scheduler

	controllers *controllers.Controllers
}

// startControl starts store, API server, controllers and scheduler.
func (c *cluster) startControl(ctx context.Context, g *errgroup.Group) error {
	db, err := c.openStore()
	if err != nil {
		return err
	}
	c.runStore(ctx, g, db)
	if err := c.makeControl(db); err != nil {
		return err
	}
	k := c.control
	g.Go(func() error {
		<-ctx.Done()
		k.client.Close()
		return nil
	})
	run(ctx, g, "watch cache", k.registry.Run)
	reached := c.progress.waiting("store", "waiting for etcd")
	select {
	case <-k.registry.Ready():
	case <-ctx.Done():
		return ctx.Err() // the reason is the group's
	}
	reached()
	c.progress.done("store", "%s", c.storeName())
	run(ctx, g, "custom kinds", k.custom.Run)
	run(ctx, g, "service addresses", func(ctx context.Context) error {
		return k.addresses.Run(ctx, client.For(k.client, client.Services).Informer(client.ListOptions{}))
	})
	if err := c.startAPI(ctx, g); err != nil {
		return err
	}
	if err := c.ensureObjects(ctx); err != nil {
		return err
	}
	return c.startControllers(ctx, g)
}

func (c *cluster) storeName() string {
	if len(c.s.EtcdEndpoints) > 0 {
		return fmt.Sprintf("etcd at %v", c.s.EtcdEndpoints)
	}
	return "etcd in " + c.s.path("etcd")
}

func (c *cluster) openStore() (*store.Etcd, error) {
	cfg := store.Config{Log: c.part("store")}
	if len(c.s.EtcdEndpoints) == 0 {
		cfg.Dir, cfg.Socket = c.s.path("etcd"), c.s.run("etcd.sock")
		return store.NewEtcd(cfg)
	}
	cfg.Endpoints = c.s.EtcdEndpoints
	if c.s.EtcdCA != "" || c.s.EtcdCert != "" {
		var err error
		if cfg.TLS, err = etcdTLS(c.s); err != nil {
			return nil, err
		}
	}
	return store.NewEtcd(cfg)
}

func etcdTLS(s *settings) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.EtcdCA != "" {
		pem, err := os.ReadFile(s.EtcdCA)
		if err != nil {
			return nil, fmt.Errorf("--etcd-ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--etcd-ca: %s: has no certificate in PEM", s.EtcdCA)
		}
	}
	if s.EtcdCert != "" {
		pair, err := tls.LoadX509KeyPair(s.EtcdCert, s.EtcdKey)
		if err != nil {
			return nil, fmt.Errorf("--etcd-cert, --etcd-key: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// makeControl puts the API server's parts together. Admission, schemas and
// authorization look things up through what is made after them, so they get
// functions that are called when requests come.
func (c *cluster) makeControl(db store.Store) error {
	k := &control{}
	c.control = k
	var err error
	if k.pki, err = auth.EnsurePKI(auth.PKIConfig{Dir: c.s.path("pki"), Hosts: c.hosts()}); err != nil {
		return err
	}
	if k.addresses, err = clusterip.New(clusterip.Config{Ranges: c.s.services, Log: c.part("addresses")}); err != nil {
		return err
	}
	chain, err := admission.New(c.admission(k.addresses))
	if err != nil {
		return err
	}
	kinds := append(resource.Kinds()[:len(resource.Kinds()):len(resource.Kinds())], custom.Definition(meshschema.CRDs))
	k.registry, err = registry.New(registry.Config{
		Store: db, Kinds: kinds, Admission: chain, Log: c.part("registry"),
		Types: func(kind *resource.Kind) (managedfields.TypeConverter, error) { return k.documents.Types(kind) },
	})
	if err != nil {
		return err
	}
	k.client, err = local.New(local.Config{Registry: k.registry, Log: c.part("client"), Actions: map[string]local.Action{
		"serviceaccounts/token": c.issueToken,
	}})
	if err != nil {
		return err
	}
	if err := c.makeMeshAdmission(); err != nil {
		return err
	}
	if k.custom, err = custom.New(custom.Config{Client: k.client, Registry: k.registry, Log: c.part("custom")}); err != nil {
		return err
	}
	k.documents, err = openapi.New(openapi.Config{
		Kinds: k.registry.Kinds, Log: c.part("openapi"),
		Custom: func(gvk schema.GroupVersionKind) (openapi.Schema, bool) { return k.custom.Schema(gvk) },
	})
	if err != nil {
		return err
	}
	if k.tokens, err = auth.NewTokens(auth.TokensConfig{Client: k.client, Key: k.pki.SAKey}); err != nil {
		return err
	}
	k.authn, err = auth.NewAuthenticator(auth.AuthenticatorConfig{ClientCAs: k.pki.ClientCAs(), Tokens: k.tokens, Client: k.client})
	if err != nil {
		return err
	}
	k.authz, err = auth.NewAuthorizer(auth.AuthorizerConfig{Client: k.client})
	return err
}

// issueToken answers TokenRequests of parts in this process.
func (c *cluster) issueToken(ctx context.Context, key types.NamespacedName, body runtime.Object) (runtime.Object, error) {
	request, ok := body.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, fmt.Errorf("serviceaccounts/token: %T is not a TokenRequest", body)
	}
	return c.control.tokens.Issue(ctx, key.Namespace, key.Name, request)
}

// hosts are the names by which the API server is called.
func (c *cluster) hosts() []string {
	out := []string{"localhost", "127.0.0.1", "::1", c.s.Node, c.s.apiAddress.String(),
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + c.s.ClusterDomain}
	for _, r := range c.s.services {
		out = append(out, r.Addr().Next().String())
	}
	return out
}

// Admission is made before the client, so what needs one is reached through the
// cluster: requests come later still.

// escalation asks the authorizer.
type escalation struct{ c *cluster }

func (escalation) Name() string { return auth.Escalation{}.Name() }

func (e escalation) Validate(ctx context.Context, a *admission.Attributes) error {
	return auth.Escalation{Authorizer: e.c.control.authz}.Validate(ctx, a)
}

// plugin is one of the mesh's.
type plugin func() admission.Plugin

func (p plugin) Name() string { return p().Name() }

func (p plugin) Handles(op admissionv1.Operation, gvr schema.GroupVersionResource, subresource string) bool {
	return p().Handles(op, gvr, subresource)
}

func (p plugin) Admit(ctx context.Context, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	return p().Admit(ctx, r)
}

// admission lists the plugins in the order in which they run.
func (c *cluster) admission(addresses *clusterip.Allocator) admission.Config {
	return admission.Config{
		Log: c.part("admission"),
		Mutators: []admission.Mutator{
			admission.NamespaceLifecycle{}, admission.ServiceAccount{}, admission.PodPriority{},
			admission.DefaultTolerationSeconds{}, addresses,
		},
		Mutating:   []admission.Plugin{plugin(func() admission.Plugin { return c.mesh.inject })},
		Validators: []admission.Validator{auth.NodeRestriction{}, escalation{c}},
		Validating: []admission.Plugin{plugin(func() admission.Plugin { return c.mesh.validate })},
	}
}

// startAPI serves HTTPS and writes the kubeconfig.
func (c *cluster) startAPI(ctx context.Context, g *errgroup.Group) error {
	k := c.control
	toNodes, err := k.pki.ClientCert("apiserver-to-nodes", "system:xebec:apiserver", auth.GroupMasters)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", ":"+strconv.Itoa(c.s.APIPort))
	if err != nil {
		return fmt.Errorf("listen for the API: %w (--api-port chooses another port)", err)
	}
	server, err := apiserver.New(apiserver.Config{
		Registry: k.registry, Authn: k.authn, Authz: k.authz, Tokens: k.tokens, OpenAPI: k.documents,
		Listener: listener, TLS: &k.pki.Server, ClientCAs: k.pki.ClientCAs(),
		NodeTLS: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: k.pki.ClientCAs(), Certificates: []tls.Certificate{toNodes}},
		Extra: map[string]http.Handler{
			"/telemetry/":    http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.serveTelemetry(w, r) }),
			"/metrics/parts": http.HandlerFunc(c.metrics),
			"/mesh/":         http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.serveMesh(w, r) }),
		},
		Log: c.part("api"),
	})
	if err != nil {
		return err
	}
	run(ctx, g, "API server", server.Run)
	admin, err := k.pki.AdminCert()
	if err != nil {
		return err
	}
	url := "https://" + net.JoinHostPort(c.s.apiAddress.String(), strconv.Itoa(c.s.APIPort))
	if err := (auth.Kubeconfig{Server: url, CAPEM: k.pki.CAPEM, Client: admin}).WriteFile(c.s.kubeconfig()); err != nil {
		return err
	}
	c.progress.done("api", "Kubernetes API at %s", url)
	return nil
}

// ensureObjects creates what every cluster has, and the mesh's definitions.
func (c *cluster) ensureObjects(ctx context.Context) error {
	var dns []netip.Addr
	for _, r := range c.s.services {
		dns = append(dns, nth(r.Addr(), 10))
	}
	objects := bootstrap.Objects(bootstrap.Config{DNS: dns})
	definitions, err := meshschema.CRDs()
	if err != nil {
		return err
	}
	for _, d := range definitions {
		objects = append(objects, d)
	}
	return bootstrap.Ensure(ctx, c.control.client, objects)
}

// startControllers starts the controllers and the scheduler, which lead by Lease.
func (c *cluster) startControllers(ctx context.Context, g *errgroup.Group) error {
	k := c.control
	roles, err := bootstrap.NewAggregator(bootstrap.AggregatorConfig{Client: k.client, Log: c.part("roles")})
	if err != nil {
		return err
	}
	run(ctx, g, "role aggregation", roles.Run)
	k.controllers, err = controllers.New(controllers.Config{
		Client: k.client, Discovery: served{k.registry}, Identity: c.s.Node, CA: k.pki.CAPEM, Tokens: k.tokens,
		PodRanges: nodeRanges(c.s.pods), APIService: c.s.kubernetesIP,
		APIServers: []netip.AddrPort{netip.AddrPortFrom(c.s.apiAddress, uint16(c.s.APIPort))},
		Log:        c.part("controllers"),
	})
	if err != nil {
		return err
	}
	run(ctx, g, "controllers", k.controllers.Run)
	events, err := reconcile.NewRecorder(reconcile.RecorderConfig{Client: k.client, Controller: "default-scheduler", Log: c.part("scheduler")})
	if err != nil {
		return err
	}
	run(ctx, g, "scheduler's events", events.Run)
	k.scheduler, err = scheduler.New(scheduler.Config{Client: k.client, Events: events, Log: c.part("scheduler")})
	if err != nil {
		return err
	}
	run(ctx, g, "scheduler", func(ctx context.Context) error {
		return reconcile.Leader(ctx, reconcile.ElectionConfig{
			Client: k.client, Name: "xebec-scheduler", Identity: c.s.Node, Run: k.scheduler.Run, Log: c.part("scheduler"),
		})
	})
	return nil
}

// nodeRanges says how large a part of each pod range a node gets: 254 addresses
// of IPv4, and a /64 of IPv6.
func nodeRanges(pods []netip.Prefix) []nodeipam.Range {
	var out []nodeipam.Range
	for _, p := range pods {
		bits := 24
		if p.Addr().Is6() {
			bits = 64
		}
		out = append(out, nodeipam.Range{Cluster: p, Bits: max(bits, p.Bits())})
	}
	return out
}

// served tells the controllers which resources there are.
type served struct{ registry *registry.Registry }

// Resources are the stored ones: other versions are views of these.
func (s served) Resources(context.Context) ([]client.Resource, error) {
	var out []client.Resource
	for _, k := range s.registry.Kinds() {
		if k.View == nil {
			out = append(out, client.Resource{GroupVersionResource: k.GroupVersionResource(), Kind: k.Kind, Namespaced: k.Namespaced})
		}
	}
	return out, nil
}
