package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xebec-mesh/xebec/dataplane/bpf"
	"github.com/xebec-mesh/xebec/dataplane/bpfmap"
	"github.com/xebec-mesh/xebec/dataplane/conntrack"
	"github.com/xebec-mesh/xebec/dataplane/kernel"
)

// The types below are the maps' values, as masquerade.c declares them.

const (
	maxSources = 2
	maxKeeps   = 8
)

type masqueradeConfig struct {
	Sources, Keeps uint32
	Source         [maxSources]bpf.Range
	Keep           [maxKeeps]bpf.Range
}

type uplink struct {
	Addr4, Addr6 bpf.Addr
	Header       uint32
}

func (n *Network) loadMasquerade() error {
	spec, err := bpf.LoadMasquerade()
	if err != nil {
		return fmt.Errorf("read masquerade programs: %w", err)
	}
	if _, err := kernel.Load(spec, &n.bpf, n.cfg.Pins); err != nil {
		return err
	}
	n.flows = bpfmap.NewKernel[conntrack.Tuple, conntrack.Translation](n.bpf.Translations)
	cfg := masqueradeConfig{Sources: uint32(len(n.cfg.PodCIDRs)), Keeps: uint32(len(n.cfg.Cluster))}
	for i, p := range n.cfg.PodCIDRs {
		cfg.Source[i] = bpf.FromPrefix(p)
	}
	for i, p := range n.cfg.Cluster {
		cfg.Keep[i] = bpf.FromPrefix(p)
	}
	if err := n.bpf.MasqueradeConfig.Put(uint32(0), cfg); err != nil {
		return fmt.Errorf("configure masquerade: %w", err)
	}
	return nil
}

// followUplinks makes the programs and their table match the uplinks there are.
func (n *Network) followUplinks() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	links, err := n.findUplinks()
	if err != nil {
		return err
	}
	n.mtu = chooseMTU(n.cfg.MTU, links)
	if !n.cfg.Masquerade {
		return nil
	}
	want := map[int]uplink{}
	for _, l := range links {
		if want[l.Attrs().Index], err = n.describe(l); err != nil {
			return err
		}
	}
	for index, u := range want {
		if have, ok := n.uplinks[index]; ok && have == u {
			continue
		}
		if err := n.bpf.Uplinks.Put(uint32(index), u); err != nil {
			return fmt.Errorf("describe uplink %d: %w", index, err)
		}
		if err := n.attachUplink(index); err != nil {
			return err
		}
		n.uplinks[index] = u
		n.cfg.Log.Info("masquerade on uplink", "index", index, "ipv4", u.Addr4.Netip(), "ipv6", u.Addr6.Netip())
	}
	return n.dropUplinks(want)
}

func chooseMTU(configured int, uplinks []netlink.Link) int {
	if configured > 0 {
		return configured
	}
	mtu := 1500
	for _, l := range uplinks {
		if m := l.Attrs().MTU; m > 0 {
			mtu = min(mtu, m)
		}
	}
	return mtu
}

// findUplinks returns the configured interfaces, or those of the default routes.
// That there is none is fine: then pods reach this node only.
func (n *Network) findUplinks() ([]netlink.Link, error) {
	var out []netlink.Link
	for _, name := range n.cfg.Uplinks {
		l, err := n.host.LinkByName(name)
		if err != nil {
			return nil, fmt.Errorf("find uplink %s: %w", name, err)
		}
		out = append(out, l)
	}
	if len(n.cfg.Uplinks) > 0 {
		return out, nil
	}
	var routes []netlink.Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		r, err := n.host.RouteListFiltered(family, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
		if err != nil {
			return nil, fmt.Errorf("find default routes: %w", err)
		}
		routes = append(routes, r...)
	}
	var seen []int
	for _, r := range routes {
		indices := []int{r.LinkIndex}
		for _, hop := range r.MultiPath {
			indices = append(indices, hop.LinkIndex)
		}
		for _, i := range indices {
			if i <= loopback || slices.Contains(seen, i) {
				continue
			}
			seen = append(seen, i)
			if l, err := n.host.LinkByIndex(i); err == nil { // it may be gone by now
				out = append(out, l)
			}
		}
	}
	return out, nil
}

// describe finds the addresses that stand for pods: the first global one of each family.
func (n *Network) describe(l netlink.Link) (uplink, error) {
	var u uplink
	if l.Attrs().EncapType == "ether" || l.Attrs().EncapType == "" {
		u.Header = 14
	}
	addrs, err := n.host.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return u, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
	}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok || a.Scope != int(netlink.SCOPE_UNIVERSE) || a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DEPRECATED) != 0 {
			continue
		}
		target := &u.Addr6
		if ip = ip.Unmap(); ip.Is4() {
			target = &u.Addr4
		}
		if *target == (bpf.Addr{}) {
			*target = bpf.FromAddr(ip)
		}
	}
	return u, nil
}

func (n *Network) linkPin(index int, direction string) string {
	return filepath.Join(n.cfg.Pins, fmt.Sprintf("link_%d_%s", index, direction))
}

// attachUplink attaches by tcx links; before Linux 6.6 by classic filters, which
// stay with the interface as links stay with their pins.
func (n *Network) attachUplink(index int) error {
	return n.inNode(func() error {
		err := kernel.AttachTCX(n.linkPin(index, "ingress"), index, ebpf.AttachTCXIngress, n.bpf.MasqueradeIngress)
		if err == nil {
			return kernel.AttachTCX(n.linkPin(index, "egress"), index, ebpf.AttachTCXEgress, n.bpf.MasqueradeEgress)
		}
		if !errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, unix.EINVAL) {
			return err
		}
		return n.attachFilters(index)
	})
}

func (n *Network) attachFilters(index int) error {
	return errors.Join(
		n.attachFilter(index, netlink.HANDLE_MIN_INGRESS, n.bpf.MasqueradeIngress),
		n.attachFilter(index, netlink.HANDLE_MIN_EGRESS, n.bpf.MasqueradeEgress))
}

const filterName = "xebec_masquerade"

func (n *Network) attachFilter(index int, parent uint32, prog *ebpf.Program) error {
	attrs := netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}
	if err := n.host.QdiscAdd(&netlink.Clsact{QdiscAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact to interface %d: %w", index, err)
	}
	filter := &netlink.BpfFilter{
		FilterAttrs:  netlink.FilterAttrs{LinkIndex: index, Parent: parent, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL},
		Fd:           prog.FD(),
		Name:         filterName,
		DirectAction: true,
	}
	if err := n.host.FilterReplace(filter); err != nil {
		return fmt.Errorf("attach filter to interface %d: %w", index, err)
	}
	return nil
}

// dropUplinks detaches from interfaces that are uplinks no more.
func (n *Network) dropUplinks(want map[int]uplink) error {
	pins, err := filepath.Glob(filepath.Join(n.cfg.Pins, "link_*"))
	if err != nil {
		return err
	}
	for _, pin := range pins {
		var index int
		var direction string
		if _, err := fmt.Sscanf(filepath.Base(pin), "link_%d_%s", &index, &direction); err != nil {
			continue
		}
		if _, ok := want[index]; ok {
			continue
		}
		if err := os.Remove(pin); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("detach from uplink %d: %w", index, err)
		}
	}
	for index := range n.uplinks {
		if _, ok := want[index]; !ok {
			delete(n.uplinks, index)
			_ = n.bpf.Uplinks.Delete(uint32(index))
		}
	}
	return nil
}

func (n *Network) removeMasquerade() error {
	links, err := n.host.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
			filters, _ := n.host.FilterList(l, parent) // an error: no clsact there
			for _, f := range filters {
				if b, ok := f.(*netlink.BpfFilter); ok && b.Name == filterName {
					err = errors.Join(err, n.host.FilterDel(f))
				}
			}
		}
	}
	return errors.Join(err, kernel.Unpin(n.cfg.Pins))
}

// subscribe wakes changes when an address, a link or a route changes.
func (n *Network) subscribe(ctx context.Context, changes chan<- struct{}) error {
	wake := func() {
		select {
		case changes <- struct{}{}:
		default: // one is pending, and will see this change too
		}
	}
	addrs, routes := make(chan netlink.AddrUpdate, 64), make(chan netlink.RouteUpdate, 64)
	ours := func(index int) bool { // what we do ourselves all the time
		l, err := n.host.LinkByIndex(index)
		return err != nil || len(l.Attrs().Name) == len(hostPrefix)+12 && l.Attrs().Name[:2] == hostPrefix
	}
	if err := netlink.AddrSubscribeWithOptions(addrs, ctx.Done(), netlink.AddrSubscribeOptions{Namespace: &n.node}); err != nil {
		return err
	}
	if err := netlink.RouteSubscribeWithOptions(routes, ctx.Done(), netlink.RouteSubscribeOptions{Namespace: &n.node}); err != nil {
		return err
	}
	go func() {
		for u := range addrs {
			if !ours(u.LinkIndex) {
				wake()
			}
		}
	}()
	go func() {
		for u := range routes {
			if u.Protocol != protocol && (u.Dst == nil || isDefault(u.Dst)) {
				wake()
			}
		}
	}()
	return nil
}

func isDefault(dst *net.IPNet) bool {
	ones, _ := dst.Mask.Size()
	return ones == 0
}

func maskOf(ones, bits int) net.IPMask { return net.CIDRMask(ones, bits) }
