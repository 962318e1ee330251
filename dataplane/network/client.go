package network

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/xebec-mesh/xebec/dataplane/bpfmap"
	"github.com/xebec-mesh/xebec/dataplane/conntrack"
	"github.com/xebec-mesh/xebec/dataplane/kernel"
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

// Print writes the leases and the translated flows, for `xebec debug network`. It
// needs no running xebec; cfg may be zero for a node with the defaults.
func Print(w io.Writer, cfg Config) error {
	if cfg.State == "" {
		cfg.State = defaultState
	}
	if cfg.Pins == "" {
		cfg.Pins = filepath.Join(kernel.Pins, "network")
	}
	all, err := (&leases{dir: cfg.State}).list()
	if err != nil {
		return fmt.Errorf("print pod network: %w", err)
	}
	for _, le := range all {
		var addrs []string
		for _, p := range cfg.PodCIDRs {
			addrs = append(addrs, nth(p, le.Index).String())
		}
		fmt.Fprintf(w, "sandbox %s %s index %d %s by %s in %s\n", le.ID, le.IfName, le.Index, strings.Join(addrs, " "), makeNames(le.ID, le.IfName).host, le.NetNS)
	}
	m, err := ebpf.LoadPinnedMap(filepath.Join(cfg.Pins, "translations"), nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil // it does not masquerade
	}
	if err != nil {
		return fmt.Errorf("print pod network: %w", err)
	}
	defer m.Close()
	flows, err := conntrack.Flows(bpfmap.NewKernel[conntrack.Tuple, conntrack.Translation](m), conntrack.SinceBoot())
	if err != nil {
		return fmt.Errorf("print pod network: %w", err)
	}
	return conntrack.Print(w, flows)
}
