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
	"log/slog"
	"net/netip"
)

// Config describes the node's pod network.
type Config struct {
	State      string         // directory for leases; default /var/lib/xebec/network
	Pins       string         // directory in a bpffs; default /sys/fs/bpf/xebec/network
	PodCIDRs   []netip.Prefix // of this node, at most one of each family; the first address is the gateway
	Cluster    []netip.Prefix // destinations that keep the pod's source address: all nodes' pods; default PodCIDRs
	Uplinks    []string       // interfaces where pods leave the node; default those of the default routes
	Masquerade bool           // translate the source of what leaves through the uplinks
	MTU        int            // default the uplink's
	Log        *slog.Logger
}

// Network is the node's pod network.
type Network struct {
	cfg Config
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
func New(cfg Config) (*Network, error) { return &Network{cfg: cfg}, nil }

// Open makes the node ready for pods: gateway interface, forwarding, masquerade.
// It may be called on a node that is ready.
func (n *Network) Open() error { return errors.ErrUnsupported }

// Run follows the uplinks' addresses and expires translations until ctx ends.
// Pods keep their network when it returns.
func (n *Network) Run(ctx context.Context) error { return errors.ErrUnsupported }

// Close releases file descriptors; everything stays in force.
func (n *Network) Close() error { return nil }

// Gateways are the addresses of the node in the pod network: where cluster DNS listens.
func (n *Network) Gateways() []netip.Addr { return nil }

// Add gives a pod its interface. For an attachment that has one it returns that.
func (n *Network) Add(ctx context.Context, a Attachment) (*Interface, error) {
	return nil, errors.ErrUnsupported
}

// Del takes the interface away and frees the addresses; nothing there is not an error.
func (n *Network) Del(ctx context.Context, a Attachment) error { return errors.ErrUnsupported }

// Check says what is wrong with an attachment, or nil.
func (n *Network) Check(ctx context.Context, a Attachment) error { return errors.ErrUnsupported }

// Retain removes every attachment whose ID is not in ids. Call it after a
// restart, when all sandboxes of the node are known.
func (n *Network) Retain(ctx context.Context, ids []string) error { return errors.ErrUnsupported }

// Reset removes interfaces, routes, programs, pins and leases of cfg's network.
func Reset(cfg Config) error { return errors.ErrUnsupported }
