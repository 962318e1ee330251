// Package network gives pods their interfaces and addresses.
//
//	in:   a network namespace and the node's pod address ranges
//	out:  a veth pair, addresses and routes; masquerade programs on the uplink
//
// Each pod has its own /32 and /128, routed by the host to its veth; there is no
// bridge and no neighbour discovery, since both ends know each other's MAC from
// the start. Leases lie in files, so they survive the process and are shared
// with the CNI program. No iptables or nftables rule is ever made.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/xebec-mesh/xebec/dataplane/bpf"
	"github.com/xebec-mesh/xebec/dataplane/conntrack"
	"github.com/xebec-mesh/xebec/dataplane/kernel"
)

const defaultState = "/var/lib/xebec/network"

// Config describes the node's pod network.
type Config struct {
	State      string         // directory for leases; default /var/lib/xebec/network
	Pins       string         // directory in a bpffs; default /sys/fs/bpf/xebec/network
	PodCIDRs   []netip.Prefix // of this node, at most one of each family; the first address is the gateway
	Cluster    []netip.Prefix // destinations that keep the pod's source address: all nodes' pods; default PodCIDRs
	Uplinks    []string       // interfaces where pods leave the node; default those of the default routes
	Masquerade bool           // translate the source of what leaves through the uplinks
	MTU        int            // default the smallest of the uplinks'
	Node       string         // path of the node's network namespace; default this process's
	Log        *slog.Logger
}

// Network is the node's pod network.
type Network struct {
	cfg    Config
	leases leases
	node   netns.NsHandle
	host   *netlink.Handle
	bpf    bpf.MasqueradeObjects
	flows  conntrack.Table

	running atomic.Bool   // Run removes what Del retires
	dying   chan struct{} // wakes it

	mu      sync.Mutex
	mtu     int
	uplinks map[int]uplink // with programs attached, by interface index
}

// Attachment names one interface of one pod.
type Attachment struct {
	ID     string // sandbox (container) id, unique
	NetNS  string // path
	IfName string // in the pod; default eth0
}

// Interface is what an Attachment got.
type Interface struct {
	Addrs    []netip.Prefix // the pod's addresses, as /32 and /128
	Gateways []netip.Addr   // next hops, in the order of Addrs
	MAC      string
	HostName string // interface on the host
	MTU      int
}

// New checks the configuration and touches nothing.
func New(cfg Config) (*Network, error) {
	if cfg.State == "" {
		cfg.State = defaultState
	}
	if cfg.Pins == "" {
		cfg.Pins = filepath.Join(kernel.Pins, "network")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if len(cfg.PodCIDRs) == 0 {
		return nil, errors.New("configure pod network: no pod address range")
	}
	seen := map[bool]bool{}
	for _, p := range cfg.PodCIDRs {
		if !p.IsValid() || seen[p.Addr().Is4()] {
			return nil, fmt.Errorf("configure pod network: pod address ranges %v: want at most one of each family", cfg.PodCIDRs)
		}
		seen[p.Addr().Is4()] = true
	}
	if len(cfg.Cluster) == 0 {
		cfg.Cluster = cfg.PodCIDRs
	}
	n := &Network{cfg: cfg, node: -1, uplinks: map[int]uplink{}, dying: make(chan struct{}, 1)}
	n.leases = leases{dir: cfg.State, first: 2, last: capacity(cfg.PodCIDRs)}
	if n.leases.last < n.leases.first {
		return nil, fmt.Errorf("configure pod network: %v has no address for a pod", cfg.PodCIDRs)
	}
	if len(cfg.Cluster) > maxKeeps {
		return nil, fmt.Errorf("configure pod network: %d cluster address ranges: at most %d", len(cfg.Cluster), maxKeeps)
	}
	return n, nil
}

// Gateways are the addresses of the node in the pod network: where cluster DNS listens.
func (n *Network) Gateways() []netip.Addr {
	out := make([]netip.Addr, len(n.cfg.PodCIDRs))
	for i, p := range n.cfg.PodCIDRs {
		out[i] = nth(p, 1)
	}
	return out
}

// Open makes the node ready for pods: gateway interface, forwarding, masquerade.
// It may be called on a node that is ready.
func (n *Network) Open() error {
	if err := n.open(); err != nil {
		return fmt.Errorf("open pod network: %w", err)
	}
	return nil
}

func (n *Network) open() error {
	if err := n.connect(); err != nil {
		return err
	}
	if err := n.leases.open(); err != nil {
		return err
	}
	if err := n.reap(); err != nil {
		return err
	}
	if err := n.setSysctls(); err != nil {
		return err
	}
	if err := n.setGateway(); err != nil {
		return err
	}
	if n.cfg.Masquerade {
		if err := n.loadMasquerade(); err != nil {
			return err
		}
	}
	return n.followUplinks()
}

// connect opens the node's network namespace.
func (n *Network) connect() (err error) {
	if n.cfg.Node == "" {
		n.node, err = netns.Get()
	} else {
		n.node, err = netns.GetFromPath(n.cfg.Node)
	}
	if err != nil {
		return fmt.Errorf("open the node's network namespace: %w", err)
	}
	n.host, err = netlink.NewHandleAt(n.node)
	return err
}

// Close releases file descriptors; everything stays in force.
func (n *Network) Close() error {
	if n.host != nil {
		n.host.Close()
	}
	if n.node.IsOpen() {
		_ = n.node.Close()
	}
	return n.bpf.Close()
}

// Run follows the uplinks' addresses, removes what Del retired, and expires
// translations until ctx ends.
// Pods keep their network when it returns.
func (n *Network) Run(ctx context.Context) error {
	changes := make(chan struct{}, 1)
	if err := n.subscribe(ctx, changes); err != nil {
		return fmt.Errorf("follow uplinks: %w", err)
	}
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	n.running.Store(true)
	defer n.running.Store(false)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.dying:
			if err := n.reap(); err != nil {
				n.cfg.Log.Error("remove interfaces of pods that are gone", "err", err)
			}
			continue
		case <-changes:
		case <-tick.C: // the kernel drops notices when there are many at once
			n.expire()
		}
		if err := n.followUplinks(); err != nil {
			n.cfg.Log.Error("follow uplinks", "err", err)
		}
	}
}

func (n *Network) expire() {
	if n.flows == nil {
		return
	}
	if _, err := conntrack.Expire(n.flows, conntrack.SinceBoot()); err != nil {
		n.cfg.Log.Error("expire translated flows", "err", err)
	}
}

// Retain removes every attachment whose ID is not in ids. Call it after a
// restart, when all sandboxes of the node are known.
func (n *Network) Retain(ctx context.Context, ids []string) error {
	keep := make(map[string]bool, len(ids))
	for _, id := range ids {
		keep[id] = true
	}
	all, err := n.leases.list()
	if err != nil {
		return fmt.Errorf("retain pod interfaces: %w", err)
	}
	for _, le := range all {
		if !keep[le.ID] {
			err = errors.Join(err, n.Del(ctx, Attachment{ID: le.ID, NetNS: le.NetNS, IfName: le.IfName}))
		}
	}
	return err
}

// Reset removes interfaces, routes, programs, pins and leases of cfg's network.
func Reset(cfg Config) error {
	if len(cfg.PodCIDRs) == 0 { // enough to be called without knowing them
		cfg.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")}
	}
	n, err := New(cfg)
	if err != nil {
		return err
	}
	if err := n.connect(); err != nil {
		return fmt.Errorf("reset pod network: %w", err)
	}
	defer n.Close()
	err = errors.Join(n.removeLinks(), n.restoreSysctls(), n.removeMasquerade(), os.RemoveAll(n.cfg.State))
	if err != nil {
		return fmt.Errorf("reset pod network: %w", err)
	}
	return nil
}
