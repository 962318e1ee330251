package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/dataplane/dns"
	"github.com/xebec-mesh/xebec/dataplane/envoy"
	"github.com/xebec-mesh/xebec/dataplane/intercept"
	"github.com/xebec-mesh/xebec/dataplane/network"
	"github.com/xebec-mesh/xebec/dataplane/service"
	"github.com/xebec-mesh/xebec/nodeagent"
	"github.com/xebec-mesh/xebec/nodeagent/containerd"
	agentnetwork "github.com/xebec-mesh/xebec/nodeagent/network"
	"github.com/xebec-mesh/xebec/orchestrator/auth"
)

// node is what runs on this machine.
type node struct {
	agent    *nodeagent.Agent
	services *service.Balancer
	meshed   *intercept.Interceptor
	network  *network.Network
	resolver resolver
}

// startNode opens the kernel's tables and starts the node agent.
func (c *cluster) startNode(ctx context.Context, g *errgroup.Group) error {
	n := &node{}
	c.node = n
	if err := c.openKernel(); err != nil {
		return err
	}
	run(ctx, g, "services", n.services.Run)
	cfg, err := c.agentConfig(ctx, g)
	if err != nil {
		return err
	}
	if n.agent, err = nodeagent.New(cfg); err != nil {
		return err
	}
	run(ctx, g, "node agent", n.agent.Run)
	if foreignNetwork(c.s.CNIConf) {
		// Somebody else connects pods: what they need is at the node's own address.
		return c.serveNode(ctx, ctx, g, []netip.Addr{c.s.apiAddress})
	}
	return nil
}

// foreignNetwork says whether a CNI configuration names another network than ours.
func foreignNetwork(dir string) bool {
	files, err := libcni.ConfFiles(dir, []string{".conf", ".conflist", ".json"})
	return err == nil && len(files) > 0
}

// openKernel loads the eBPF programs, or adopts those that are loaded.
func (c *cluster) openKernel() error {
	n := c.node
	var err error
	n.services, err = service.New(service.Config{Pins: c.s.pins("service"), Ranges: c.s.services, Log: c.part("services")})
	if err != nil {
		return err
	}
	if err := n.services.Open(); err != nil {
		return err
	}
	if n.meshed, err = intercept.New(intercept.Config{Pins: c.s.pins("intercept"), Log: c.part("intercept")}); err != nil {
		return err
	}
	if err := n.meshed.Open(); err != nil {
		return err
	}
	c.progress.done("kernel", "Services and interception by eBPF")
	return nil
}

func (c *cluster) agentConfig(ctx context.Context, g *errgroup.Group) (nodeagent.Config, error) {
	serving, err := c.control.pki.ServingCert("agent-"+c.s.Node, "system:node:"+c.s.Node, c.s.Node, c.s.apiAddress.String())
	if err != nil {
		return nodeagent.Config{}, err
	}
	var dnsIPs []string
	if len(c.s.services) > 0 {
		dnsIPs = []string{c.s.dnsIP.String()}
	}
	return nodeagent.Config{
		Client: c.control.client, Node: c.s.Node, IPs: []string{c.s.apiAddress.String()},
		StateDir: c.s.State, RunDir: c.s.run(), Cgroup: c.s.cgroup(),
		Containerd: containerd.Config{Address: c.s.ContainerdAddress, Runc: c.s.Runc, Log: c.part("containerd")},
		CNIConfDir: c.s.CNIConf, CNIBinDirs: c.s.CNIBin,
		PodNetwork: func(ctx2 context.Context, cidrs []netip.Prefix) (agentnetwork.Attacher, error) {
			return c.openNetwork(ctx, ctx2, g, cidrs)
		},
		Retain:   c.retain,
		Balancer: c.node.services, Resolver: &c.node.resolver, DNS: dnsIPs, Domain: c.s.ClusterDomain,
		Interceptor: c.node.meshed, Services: c.podServices, HTTP: c.podHTTP, Bootstrap: c.sidecarBootstrap,
		Listen: fmt.Sprintf(":%d", c.s.AgentPort),
		TLS: &tls.Config{
			MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{serving},
			ClientCAs: c.control.pki.ClientCAs(), ClientAuth: tls.RequireAndVerifyClientCert,
		},
		Callers: []string{auth.GroupMasters},
		Log:     c.part("node"),
	}, nil
}

// network is the configuration of the pod network, without what depends on the node's ranges.
func (s *settings) network() network.Config {
	return network.Config{State: s.path("network"), Pins: s.pins("network"), Cluster: s.pods, Masquerade: true}
}

// openNetwork makes the node ready for pods, once it knows its address ranges,
// and starts cluster DNS on the node's addresses in them.
func (c *cluster) openNetwork(ctx, call context.Context, g *errgroup.Group, cidrs []netip.Prefix) (agentnetwork.Attacher, error) {
	cfg := c.s.network()
	cfg.PodCIDRs, cfg.Log = cidrs, c.part("network")
	n, err := network.New(cfg)
	if err != nil {
		return nil, err
	}
	if err := n.Open(); err != nil {
		return nil, err
	}
	c.node.network = n
	run(ctx, g, "pod network", n.Run)
	c.progress.done("network", "pods in %s", join(cidrs))
	return n, c.serveNode(ctx, call, g, n.Gateways())
}

// serveNode starts what pods find at the node's addresses: cluster DNS, and the
// receiver of their telemetry. With our own network these are addresses that only
// pods of this node, and the node itself, can reach.
func (c *cluster) serveNode(ctx, call context.Context, g *errgroup.Group, addrs []netip.Addr) error {
	if err := c.startDNS(ctx, g, addrs); err != nil {
		return err
	}
	var overGRPC, overHTTP []string
	for _, a := range addrs {
		overGRPC = append(overGRPC, netip.AddrPortFrom(a, portGRPC).String())
		overHTTP = append(overHTTP, netip.AddrPortFrom(a, portHTTP).String())
	}
	run(ctx, g, "telemetry receiver", func(ctx context.Context) error {
		return c.mesh.mixer.Serve(ctx, overGRPC, overHTTP)
	})
	return c.publishEndpoints(call, addrs)
}

// Ports of OTLP (https://opentelemetry.io/docs/specs/otlp/).
const (
	portGRPC = 4317
	portHTTP = 4318
)

func join(prefixes []netip.Prefix) string {
	var out []string
	for _, p := range prefixes {
		out = append(out, p.String())
	}
	return strings.Join(out, " and ")
}

// retain lets go of what belonged to pods that are gone.
func (c *cluster) retain(ctx context.Context, uids []string) error {
	if c.node.network == nil {
		return nil
	}
	return c.node.network.Retain(ctx, uids)
}

// startDNS starts the DNS program, or adopts it.
func (c *cluster) startDNS(ctx context.Context, g *errgroup.Group, addrs []netip.Addr) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cfg := dns.ProcessConfig{
		Program: filepath.Join(filepath.Dir(self), "xebec-dns"), Dir: c.s.run("dns"), Domain: c.s.ClusterDomain, Log: c.part("dns"),
	}
	for _, a := range addrs {
		cfg.Listen = append(cfg.Listen, netip.AddrPortFrom(a, 53))
	}
	p, err := dns.NewProcess(cfg)
	if err != nil {
		return err
	}
	c.node.resolver.set(p)
	run(ctx, g, "cluster DNS", p.Run)
	return nil
}

// sidecarBootstrap is what a pod's Envoy starts with.
func (c *cluster) sidecarBootstrap(pod *corev1.Pod) ([]byte, error) {
	var ip string
	v6 := false
	for _, a := range pod.Status.PodIPs {
		if ip == "" {
			ip = a.IP
		}
		v6 = v6 || strings.Contains(a.IP, ":")
	}
	name := pod.Labels["service.istio.io/canonical-name"]
	if name == "" {
		name = pod.Name
	}
	b := envoy.Bootstrap{
		ID:      fmt.Sprintf("sidecar~%s~%s.%s~%s.svc.%s", ip, pod.Name, pod.Namespace, pod.Namespace, c.s.ClusterDomain),
		Cluster: name + "." + pod.Namespace,
		Metadata: map[string]any{
			"NAMESPACE": pod.Namespace, "NAME": pod.Name, "SERVICE_ACCOUNT": pod.Spec.ServiceAccountName, "NODE_NAME": c.s.Node,
		},
		IPv6: v6,
	}
	return b.JSON()
}
