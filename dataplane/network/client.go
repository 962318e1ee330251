package network

import (
	"fmt"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/xebec-mesh/xebec/dataplane/bpfmap"
	"github.com/xebec-mesh/xebec/dataplane/conntrack"
)

// Join opens a network that another process made with Open, to add and delete
// attachments. Leases are shared, under a lock.
func (n *Network) Join() error {
	if err := n.connect(); err != nil {
		return fmt.Errorf("join pod network: %w", err)
	}
	if err := n.leases.open(); err != nil {
		return fmt.Errorf("join pod network: %w", err)
	}
	if m, err := ebpf.LoadPinnedMap(filepath.Join(n.cfg.Pins, "translations"), nil); err == nil { // it may not masquerade
		n.bpf.Translations = m
		n.flows = bpfmap.NewKernel[conntrack.Tuple, conntrack.Translation](m)
	}
	links, err := n.findUplinks()
	if err != nil {
		return fmt.Errorf("join pod network: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mtu = chooseMTU(n.cfg.MTU, links)
	return nil
}

// Ready says why pods cannot be attached, or nil: Open has not been called since
// the node started.
func (n *Network) Ready() error {
	addrs, err := n.host.AddrList(loopbackLink, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("check pod network: %w", err)
	}
	for _, gw := range n.Gateways() {
		if !hasAddr(addrs, gw) {
			return fmt.Errorf("check pod network: the node has no address %s: xebec has not opened the network yet", gw)
		}
	}
	return nil
}
