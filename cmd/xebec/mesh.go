package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/citadel/attest"
	"github.com/xebec-mesh/xebec/citadel/authority"
	"github.com/xebec-mesh/xebec/citadel/issue"
	"github.com/xebec-mesh/xebec/citadel/serve"
	"github.com/xebec-mesh/xebec/citadel/svid"
	"github.com/xebec-mesh/xebec/galley/admit"
	"github.com/xebec-mesh/xebec/galley/status"
	"github.com/xebec-mesh/xebec/mixer"
	"github.com/xebec-mesh/xebec/mixer/dashboard"
	"github.com/xebec-mesh/xebec/mixer/export"
	"github.com/xebec-mesh/xebec/orchestrator/bootstrap"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
	"github.com/xebec-mesh/xebec/pilot/inject"
	"github.com/xebec-mesh/xebec/pilot/model"
	pilotregistry "github.com/xebec-mesh/xebec/pilot/registry"
	"github.com/xebec-mesh/xebec/pilot/xds"
)

// mesh is routing, identity and telemetry.
type mesh struct {
	inject   *inject.Plugin
	validate *admit.Plugin
	world    *status.World
	xds      *xds.Server
	identity *serve.Server
	svids    *svid.Cache
	issuer   *issue.Issuer
	mixer    *mixer.Mixer
}

// makeMeshAdmission makes the plugins that the API server asks.
func (c *cluster) makeMeshAdmission() (err error) {
	m := &mesh{world: status.NewWorld(c.control.client, c.s.ClusterDomain)}
	c.mesh = m
	if m.inject, err = inject.New(inject.Config{Client: c.control.client, Image: c.s.SidecarImage, Log: c.part("inject")}); err != nil {
		return err
	}
	m.validate, err = admit.New(admit.Config{World: m.world, ClusterDomain: c.s.ClusterDomain})
	return err
}

// startMesh starts the mesh's control plane.
func (c *cluster) startMesh(ctx context.Context, g *errgroup.Group) error {
	if err := c.startIdentity(ctx, g); err != nil {
		return err
	}
	if err := c.startTelemetry(ctx, g); err != nil {
		return err
	}
	if err := c.startRouting(ctx, g); err != nil {
		return err
	}
	c.progress.done("mesh", "sidecars, identities of spiffe://%s and telemetry", c.s.TrustDomain)
	return nil
}

// startIdentity starts the certificate authority and what this node gets from it.
func (c *cluster) startIdentity(ctx context.Context, g *errgroup.Group) error {
	m := c.mesh
	ca, err := authority.New(authority.Config{
		TrustDomain: c.s.TrustDomain, Dir: c.s.path("ca"), CADir: c.s.MeshCA, LeafTTL: c.s.SVIDLifetime, Log: c.part("ca"),
	})
	if err != nil {
		return err
	}
	run(ctx, g, "certificate authority", ca.Run)
	attestor, err := attest.New(attest.Config{Client: c.control.client})
	if err != nil {
		return err
	}
	if m.issuer, err = issue.New(issue.Config{Keys: ca, Attestor: attestor, TTL: c.s.SVIDLifetime, Log: c.part("ca")}); err != nil {
		return err
	}
	node := m.issuer.ForNode(c.s.Node)
	if m.svids, err = svid.New(svid.Config{Issuer: node, TrustDomain: c.s.TrustDomain, Log: c.part("svid")}); err != nil {
		return err
	}
	run(ctx, g, "workload certificates", m.svids.Run)
	m.identity, err = serve.New(serve.Config{
		Cache: m.svids, Bundle: ca.Bundle(), Tokens: node, TrustDomain: c.s.TrustDomain, Log: c.part("sds"),
	})
	return err
}

// startTelemetry starts receivers, stores and the dashboard.
func (c *cluster) startTelemetry(ctx context.Context, g *errgroup.Group) error {
	token, err := c.dashboardToken()
	if err != nil {
		return err
	}
	cfg := mixer.Config{
		Client: c.control.client, Dir: c.s.path("telemetry"), TrustDomain: c.s.TrustDomain,
		TraceAge: c.s.TraceRetention, TraceBytes: c.s.TraceSpace,
		Dashboard: dashboard.Config{Listen: c.s.DashboardListen, Token: token},
		Log:       c.part("mixer"),
	}
	if c.s.OTLPExport != "" {
		cfg.Export = []export.Config{{Endpoint: c.s.OTLPExport}}
	}
	if c.mesh.mixer, err = mixer.New(cfg); err != nil {
		return err
	}
	run(ctx, g, "telemetry", c.mesh.mixer.Run)
	if c.s.DashboardListen == "" {
		if err := os.Remove(c.s.dashboardFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return os.WriteFile(c.s.dashboardFile(), []byte(c.mesh.mixer.Dashboard().URL()), 0o600)
}

// dashboardToken is made once, so that a bookmark stays good.
func (c *cluster) dashboardToken() (string, error) {
	file := c.s.path("dashboard.token")
	data, err := os.ReadFile(file)
	if err == nil && len(data) >= 32 {
		return strings.TrimSpace(string(data)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	random := make([]byte, 16)
	rand.Read(random)
	token := hex.EncodeToString(random)
	return token, os.WriteFile(file, []byte(token), 0o600)
}

// startRouting starts the xDS control plane and what it says on objects.
func (c *cluster) startRouting(ctx context.Context, g *errgroup.Group) error {
	ms := model.NewSettings()
	ms.TrustDomain, ms.ClusterDomain, ms.Sampling = c.s.TrustDomain, c.s.ClusterDomain, c.s.TraceSampling
	ms.AgentHosts = model.TupleOf("otel." + bootstrap.SystemNamespace + ".svc." + c.s.ClusterDomain)
	conditions, err := status.New(status.Config{Client: c.control.client, World: c.mesh.world, Log: c.part("status")})
	if err != nil {
		return err
	}
	run(ctx, g, "mesh conditions", conditions.Run)
	report := func(r xds.Rejection) {
		for _, o := range r.Objects {
			conditions.Rejected(status.Rejection{
				Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, Generation: o.Generation,
				Proxy: r.Proxy, TypeURL: r.TypeURL, Resource: r.Resource, Detail: r.Detail, Resolved: r.Resolved,
			})
		}
	}
	if c.mesh.xds, err = xds.New(xds.Config{Settings: ms, Report: report, Log: c.part("xds")}); err != nil {
		return err
	}
	run(ctx, g, "xDS", c.mesh.xds.Run)
	reg, err := pilotregistry.New(pilotregistry.Config{
		Client: c.control.client, Settings: ms, Publish: c.mesh.xds.Update, Log: c.part("pilot"),
	})
	if err != nil {
		return err
	}
	run(ctx, g, "mesh registry", reg.Run)
	return nil
}

// podServices is what a pod may use over its own socket; the socket is its identity.
func (c *cluster) podServices(reg grpc.ServiceRegistrar, pod *corev1.Pod) {
	discovery.RegisterAggregatedDiscoveryServiceServer(reg, c.mesh.xds.For(pod))
	c.mesh.identity.For(pod.Namespace, pod.Spec.ServiceAccountName).Register(reg)
	c.mesh.mixer.Receiver().For(pod).Register(reg)
}

// podHTTP is the same for what speaks HTTP/1.
func (c *cluster) podHTTP(pod *corev1.Pod) http.Handler {
	return c.mesh.mixer.Receiver().For(pod).Handler()
}

// serveTelemetry answers the query API.
func (c *cluster) serveTelemetry(w http.ResponseWriter, r *http.Request) {
	if c.mesh.mixer == nil {
		http.Error(w, "telemetry is starting", http.StatusServiceUnavailable)
		return
	}
	c.mesh.mixer.API().ServeHTTP(w, r)
}

// counters are the parts that count beside the API server.
func (c *cluster) counters() []func(io.Writer) error {
	return []func(io.Writer) error{
		func(w io.Writer) error { return reconcile.WriteMetrics(w, c.control.controllers.Stats()) },
		c.control.scheduler.WriteMetrics, c.mesh.svids.WriteMetrics, c.mesh.identity.WriteMetrics,
		c.mesh.issuer.WriteMetrics, c.mesh.mixer.WriteMetrics,
	}
}
