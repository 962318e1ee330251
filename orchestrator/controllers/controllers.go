// Package controllers runs all of the cluster's controllers on one server of many.
//
//	in:   a client, what the cluster's networks are, and which resources it serves
//	out:  every controller below this folder, while this server leads
//
// Invariant: at most one server's controllers run at a time.
package controllers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/apiendpoints"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/backends"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/deployment"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/endpointmirror"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/endpoints"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/endpointslice"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/garbagecollector"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/namespace"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/nodeipam"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/nodelifecycle"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/podgc"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/replicaset"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/rootca"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/serviceaccount"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/tainteviction"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/tokensecret"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

// Lease is the name of the lease in kube-system that the leader holds.
const Lease = "xebec-controllers"

// Discovery lists what there is in a cluster.
type Discovery interface {
	// Resources returns every served resource, custom ones included, in one version,
	// that can be listed, watched and deleted.
	Resources(ctx context.Context) ([]client.Resource, error)
}

// Config says what the controllers need to know.
type Config struct {
	Client    client.Interface
	Discovery Discovery

	// Identity is this server: different from all others, and the same after a
	// restart, so that a server that is restarted leads again at once.
	Identity string

	CA         []byte             // PEM, that verifies the API server
	Tokens     tokensecret.Signer // nil: Secrets of type service-account-token stay empty
	PodRanges  []nodeipam.Range   // one for each address family, the primary first
	APIService netip.Addr         // of the Service default/kubernetes
	APIServers []netip.AddrPort   // where pods reach the API servers

	NodeGrace time.Duration // a node's silence before it is unreachable; default 50 s
	Log       *slog.Logger
}

// runner is what every controller is here.
type runner interface {
	Run(ctx context.Context) error
}

// Controllers are all controllers, and the election that they wait for.
type Controllers struct {
	cfg      Config
	runners  map[string]runner
	election *reconcile.Election
}

// New makes every controller and starts none.
func New(cfg Config) (*Controllers, error) {
	if cfg.Client == nil || cfg.Discovery == nil || cfg.Identity == "" {
		return nil, fmt.Errorf("controllers: client, discovery and identity are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Controllers{cfg: cfg, runners: map[string]runner{}}
	if err := c.make(); err != nil {
		return nil, err
	}
	var err error
	c.election, err = reconcile.NewElection(reconcile.ElectionConfig{
		Client: cfg.Client, Name: Lease, Identity: cfg.Identity, Run: c.lead, Log: cfg.Log,
	})
	return c, err
}

func (c *Controllers) make() error {
	cfg, errs := c.cfg, []error(nil)
	add := func(name string, r runner, err error) {
		c.runners[name] = r
		if err != nil {
			errs = append(errs, fmt.Errorf("make %s: %w", name, err))
		}
	}
	recorder := func(name string) *reconcile.Recorder {
		r, err := reconcile.NewRecorder(reconcile.RecorderConfig{Client: cfg.Client, Controller: name, Instance: cfg.Identity, Log: cfg.Log})
		add(name+" events", r, err)
		return r
	}
	index := backends.New(cfg.Client)

	sets, err := replicaset.New(replicaset.Config{Client: cfg.Client, Recorder: recorder("replicaset-controller"), Log: cfg.Log})
	add("replicaset", sets, err)
	deployments, err := deployment.New(deployment.Config{Client: cfg.Client, Recorder: recorder("deployment-controller"), Log: cfg.Log})
	add("deployment", deployments, err)
	slices, err := endpointslice.New(endpointslice.Config{Client: cfg.Client, Backends: index, Log: cfg.Log})
	add("endpointslice", slices, err)
	eps, err := endpoints.New(endpoints.Config{Client: cfg.Client, Backends: index, Log: cfg.Log})
	add("endpoints", eps, err)
	mirror, err := endpointmirror.New(endpointmirror.Config{Client: cfg.Client, Log: cfg.Log})
	add("endpointmirror", mirror, err)
	api, err := apiendpoints.New(apiendpoints.Config{Client: cfg.Client, Service: cfg.APIService, Servers: cfg.APIServers, Log: cfg.Log})
	add("apiendpoints", api, err)
	namespaces, err := namespace.New(namespace.Config{Client: cfg.Client, Discovery: cfg.Discovery, Log: cfg.Log})
	add("namespace", namespaces, err)
	collector, err := garbagecollector.New(garbagecollector.Config{Client: cfg.Client, Discovery: cfg.Discovery, Log: cfg.Log})
	add("garbagecollector", collector, err)
	accounts, err := serviceaccount.New(serviceaccount.Config{Client: cfg.Client, Log: cfg.Log})
	add("serviceaccount", accounts, err)
	ca, err := rootca.New(rootca.Config{Client: cfg.Client, CA: cfg.CA, Log: cfg.Log})
	add("rootca", ca, err)
	nodes := recorder("node-controller")
	lifecycle, err := nodelifecycle.New(nodelifecycle.Config{Client: cfg.Client, Recorder: nodes, Grace: cfg.NodeGrace, Log: cfg.Log})
	add("nodelifecycle", lifecycle, err)
	ipam, err := nodeipam.New(nodeipam.Config{Client: cfg.Client, Ranges: cfg.PodRanges, Recorder: nodes, Log: cfg.Log})
	add("nodeipam", ipam, err)
	taints, err := tainteviction.New(tainteviction.Config{Client: cfg.Client, Recorder: recorder("taint-eviction-controller"), Log: cfg.Log})
	add("tainteviction", taints, err)
	gc, err := podgc.New(podgc.Config{Client: cfg.Client, Log: cfg.Log})
	add("podgc", gc, err)
	if cfg.Tokens != nil {
		secrets, err := tokensecret.New(tokensecret.Config{Client: cfg.Client, Signer: cfg.Tokens, CA: cfg.CA, Log: cfg.Log})
		add("tokensecret", secrets, err)
	}
	return errors.Join(errs...)
}

// Run waits until this server leads, and then runs the controllers, until ctx ends.
func (c *Controllers) Run(ctx context.Context) error { return c.election.Run(ctx) }

// Stats returns the counters of every controller's queue.
func (c *Controllers) Stats() []reconcile.Stats {
	var out []reconcile.Stats
	for _, r := range c.runners {
		if s, ok := r.(interface{ Stats() reconcile.Stats }); ok {
			out = append(out, s.Stats())
		}
	}
	return out
}

// lead runs every controller; when one fails all end.
func (c *Controllers) lead(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	var running sync.WaitGroup
	for name, r := range c.runners {
		running.Go(func() {
			if err := r.Run(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("run %s: %w", name, err))
			}
		})
	}
	running.Wait()
	return context.Cause(ctx)
}
