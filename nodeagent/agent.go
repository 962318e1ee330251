// Package nodeagent is what runs on every node.
//
//	in:   the API; the machine's containerd, CNI configuration and kernel
//	out:  running pods, their status and logs; the Node object; what the kernel and DNS know of Services
//
// The agent may die at any time: pods, their network, their logs and their
// interception go on without it, and the next agent adopts them. Each fact has one
// writer below this package: pod status the pods' actors, the Node nodeagent/node,
// volumes nodeagent/volume.
package nodeagent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/nodeagent/containerd"
	"github.com/xebec-mesh/xebec/nodeagent/image"
	"github.com/xebec-mesh/xebec/nodeagent/network"
	"github.com/xebec-mesh/xebec/nodeagent/node"
	"github.com/xebec-mesh/xebec/nodeagent/pod"
	"github.com/xebec-mesh/xebec/nodeagent/service"
	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// Config is an agent's. The zero values of what is not marked as needed are good.
type Config struct {
	Client  client.Interface // needed
	Node    string           // name of this node; default the host name
	Labels  map[string]string
	Taints  []corev1.Taint // when the node is first registered
	IPs     []string       // of this node; default those that it reaches the world from
	Version string         // Kubernetes version that the node reports; default v1.36.0

	StateDir string // default /var/lib/xebec
	RunDir   string // default /run/xebec; short, for Unix sockets
	Cgroup   string // default /xebec

	Containerd containerd.Config // Root, State and Log are set by the agent where empty
	Images     image.Hosts       // how registries are reached

	CNIConfDir string   // default /etc/cni/net.d; a configuration there is used instead of our network
	CNIBinDirs []string // default /opt/cni/bin, /usr/lib/cni

	// PodNetwork opens our own pod network when the node knows its address ranges.
	// It is called once, with all of them; again after an error.
	PodNetwork func(ctx context.Context, cidrs []netip.Prefix) (network.Attacher, error)

	// Retain is told all pods of the node after a restart, before any new pod is
	// started: what belongs to others may go. The ids are those of Attachment.ID.
	Retain func(ctx context.Context, uids []string) error

	Balancer service.Balancer // nil: Services are served by somebody else
	Resolver service.Resolver // nil: so is DNS
	DNS      []string         // of pods; default 10.96.0.10
	Domain   string           // default cluster.local

	Interceptor Interceptor                                      // nil: pods cannot be meshed
	Services    func(reg grpc.ServiceRegistrar, pod *corev1.Pod) // on each meshed pod's socket
	HTTP        func(pod *corev1.Pod) http.Handler               // the same for HTTP/1; may be nil
	Bootstrap   func(pod *corev1.Pod) ([]byte, error)            // of its sidecar

	Listen  string      // of the HTTPS server; default :10250
	TLS     *tls.Config // server certificate, and the cluster's CA as ClientCAs
	Callers []string    // common names or organisations that may call it; empty: whoever the CA signed
	Metrics func(w io.Writer)

	Log *slog.Logger
}

// Agent is the node agent.
type Agent struct {
	cfg    Config
	daemon *containerd.Daemon

	ready   chan struct{} // closed when images are there
	images  *image.Store
	plugin  atomic.Pointer[network.Plugin]
	started atomic.Bool // pods are followed

	mu    sync.Mutex
	cause error // why the node is not ready
}

// New checks the configuration and starts nothing.
func New(cfg Config) (*Agent, error) {
	if cfg.Client == nil {
		return nil, errors.New("configure node agent: Client is needed")
	}
	if err := defaults(&cfg); err != nil {
		return nil, fmt.Errorf("configure node agent: %w", err)
	}
	if (cfg.Services == nil) != (cfg.Bootstrap == nil) || (cfg.Interceptor == nil) != (cfg.Services == nil) {
		return nil, errors.New("configure node agent: Interceptor, Services and Bootstrap go together")
	}
	d, err := containerd.New(cfg.Containerd)
	if err != nil {
		return nil, err
	}
	return &Agent{cfg: cfg, daemon: d, ready: make(chan struct{}), cause: node.ErrStarting}, nil
}

func defaults(cfg *Config) error {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	if cfg.Node == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find the node's name: %w", err)
		}
		cfg.Node = name
	}
	if len(cfg.IPs) == 0 {
		ips, err := node.Addresses()
		if err != nil {
			return err
		}
		cfg.IPs = ips
	}
	set(&cfg.Version, "v1.36.0")
	set(&cfg.StateDir, "/var/lib/xebec")
	set(&cfg.RunDir, "/run/xebec")
	set(&cfg.Cgroup, "/xebec")
	set(&cfg.Domain, "cluster.local")
	set(&cfg.Containerd.Root, filepath.Join(cfg.StateDir, "containerd"))
	set(&cfg.Containerd.State, filepath.Join(cfg.RunDir, "containerd"))
	if cfg.DNS == nil {
		cfg.DNS = []string{"10.96.0.10"}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Containerd.Log == nil {
		cfg.Containerd.Log = cfg.Log
	}
	return nil
}

// Images waits for containerd and returns the node's images: to import those that
// the node is to have before pods ask for them.
func (a *Agent) Images(ctx context.Context) (*image.Store, error) {
	select {
	case <-a.ready:
		return a.images, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for containerd: %w", ctx.Err())
	}
}

// Socket is where `ctr --address` finds containerd.
func (a *Agent) Socket() string { return a.daemon.Socket() }

// Node is the name of this node.
func (a *Agent) Node() string { return a.cfg.Node }

// Ready says why pods cannot run here, or nil.
func (a *Agent) Ready() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cause
}

func (a *Agent) setReady(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cause = err
}

// Run runs the node until ctx ends. Pods are left as they are.
func (a *Agent) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.daemon.Run(ctx) })
	g.Go(func() error {
		err := a.run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
	return g.Wait()
}

func (a *Agent) run(ctx context.Context) error {
	p, err := a.parts(ctx)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.server.Run(ctx) })
	g.Go(func() error { return p.node.Run(ctx) })
	g.Go(func() error { return p.events.Run(ctx) })
	g.Go(func() error { return p.services.Run(ctx) })
	g.Go(func() error { return p.volumes.Run(ctx, p.pods.Poke) })
	g.Go(func() error { return p.collector.Run(ctx) })
	g.Go(func() error { return p.shims.Run(ctx, p.pods.Shims()) })
	if p.sockets != nil {
		g.Go(func() error { return p.sockets.Run(ctx) })
	}
	g.Go(func() error {
		if err := a.openNetwork(ctx, p); err != nil {
			return err
		}
		if err := p.services.Synced(ctx); err != nil {
			return nil
		}
		a.started.Store(true)
		a.setReady(nil)
		p.node.Changed()
		return p.pods.Run(ctx)
	})
	err = g.Wait()
	p.status.Wait()
	return err
}

// openNetwork waits until pods can be connected.
func (a *Agent) openNetwork(ctx context.Context, p *parts) error {
	if a.cfg.PodNetwork == nil || !p.network.Own() {
		return nil
	}
	a.setReady(fmt.Errorf("%w: the node has no pod address range yet (spec.podCIDRs)", node.ErrStarting))
	cidrs, err := p.podCIDRs(ctx)
	if err != nil {
		return nil
	}
	n, err := a.cfg.PodNetwork(ctx, cidrs)
	if err != nil {
		return fmt.Errorf("open pod network: %w", err)
	}
	plugin := network.Own(n)
	a.plugin.Store(&plugin)
	return nil
}

// host is what pods are told of their node.
func (a *Agent) host(p *parts) pod.Host {
	h := pod.Host{Name: a.cfg.Node, IPs: a.cfg.IPs, DNS: a.cfg.DNS, Domain: a.cfg.Domain, OCI: p.oci}
	if n := p.node.Get(); n != nil {
		h.PodCIDRs = n.Spec.PodCIDRs
	}
	return h
}
