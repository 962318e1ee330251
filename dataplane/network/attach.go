package network

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	hostPrefix = "xb" // of the interfaces on the node that belong to pods
	protocol   = 158  // marks our routes (rtnetlink's rtm_protocol)
	loopback   = 1    // index of lo in every network namespace
)

// names are what follows from an attachment's identity alone: whoever looks at
// an interface can tell to whom it belongs, and nothing need be remembered.
type names struct {
	host             string
	hostMAC, peerMAC net.HardwareAddr
}

func makeNames(id, ifName string) names {
	sum := sha256.Sum256([]byte(id + "@" + ifName))
	mac := func(b []byte) net.HardwareAddr {
		m := net.HardwareAddr{0x0a, 0, 0, 0, 0, 0} // locally administered
		copy(m[1:], b)
		return m
	}
	return names{
		host:    hostPrefix + fmt.Sprintf("%x", sum[:6]),
		hostMAC: mac(sum[6:11]),
		peerMAC: mac(sum[11:16]),
	}
}

func (a *Attachment) check() error {
	if a.ID == "" {
		return errors.New("no sandbox id")
	}
	if a.IfName == "" {
		a.IfName = "eth0"
	}
	return nil
}

// Add gives a pod its interface. For an attachment that has one it returns that.
func (n *Network) Add(ctx context.Context, a Attachment) (*Interface, error) {
	if err := a.check(); err != nil {
		return nil, fmt.Errorf("add pod interface: %w", err)
	}
	i, err := n.add(a)
	if err != nil {
		return nil, fmt.Errorf("add interface %s of sandbox %s: %w", a.IfName, a.ID, err)
	}
	return i, nil
}

func (n *Network) add(a Attachment) (*Interface, error) {
	ns, err := netns.GetFromPath(a.NetNS)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", a.NetNS, err)
	}
	defer ns.Close()
	pod, err := netlink.NewHandleAt(ns)
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", a.NetNS, err)
	}
	defer pod.Close()
	le, isNew, err := n.leases.acquire(a.ID, a.IfName, a.NetNS)
	if err != nil {
		return nil, err
	}
	w := n.wiring(le)
	if !isNew && w.check(n.host, pod) == nil {
		return w.result(), nil
	}
	if err := w.build(n.host, pod, ns); err != nil {
		return nil, errors.Join(err, w.remove(n.host), n.leases.release(a.ID, a.IfName))
	}
	return w.result(), nil
}

// wiring is one pod's connection as it should be.
type wiring struct {
	names
	ifName   string
	mtu      int
	pods     []netip.Addr
	gateways []netip.Addr
}

func (n *Network) wiring(le lease) *wiring {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := &wiring{names: makeNames(le.ID, le.IfName), ifName: le.IfName, mtu: n.mtu}
	for _, p := range n.cfg.PodCIDRs {
		w.pods = append(w.pods, nth(p, le.Index))
		w.gateways = append(w.gateways, nth(p, 1))
	}
	return w
}

func (w *wiring) result() *Interface {
	i := &Interface{Gateways: w.gateways, MAC: w.peerMAC.String(), HostName: w.host, MTU: w.mtu}
	for _, a := range w.pods {
		i.Addrs = append(i.Addrs, netip.PrefixFrom(a, a.BitLen()))
	}
	return i
}

// build makes the pair, with one end in the pod, and then both sides of it.
func (w *wiring) build(host, pod *netlink.Handle, ns netns.NsHandle) error {
	if err := w.remove(host); err != nil { // of an attempt that was cut short
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr, attrs.Flags = w.host, w.mtu, w.hostMAC, net.FlagUp
	veth := &netlink.Veth{
		LinkAttrs: attrs, PeerName: w.ifName, PeerHardwareAddr: w.peerMAC, PeerNamespace: netlink.NsFd(ns),
	}
	if err := host.LinkAdd(veth); err != nil {
		return fmt.Errorf("create veth pair: %w", err)
	}
	if err := w.buildPod(pod); err != nil {
		return err
	}
	if err := w.buildHost(host, veth.Attrs().Index); err != nil {
		return err
	}
	if err := awaitUp(host, veth.Attrs().Index); err != nil {
		return err
	}
	return w.awaitLocal(pod)
}

// awaitLocal waits until the pod accepts packets to its addresses. For IPv6 the
// kernel adds the local route of an address without duplicate detection from a
// work queue; packets that come before are dropped.
func (w *wiring) awaitLocal(pod *netlink.Handle) error {
	for _, a := range w.pods {
		if a.Is4() {
			continue
		}
		for deadline, try := time.Now().Add(2*time.Second), 0; ; try++ {
			routes, err := pod.RouteGet(a.AsSlice())
			if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
				break
			}
			if time.Now().After(deadline) {
				return errors.Join(fmt.Errorf("wait for address %s: it is not local after two seconds", a), err)
			}
			pause(try)
		}
	}
	return nil
}

// awaitUp waits until an interface transmits. The end of a veth pair that was up
// first is told of its peer a moment later, by the kernel's link watch; until then
// it drops what it should send, and a pod that connects to something at once would
// wait a second for the retransmission of what was dropped. Since Linux 6.8 asking
// is enough: RTM_GETLINK runs the link watch first.
func awaitUp(h *netlink.Handle, index int) error {
	for deadline, try := time.Now().Add(2*time.Second), 0; ; try++ {
		link, err := h.LinkByIndex(index)
		if err != nil {
			return fmt.Errorf("wait for interface %d: %w", index, err)
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("wait for interface %s: it is %s after two seconds", link.Attrs().Name, link.Attrs().OperState)
		}
		pause(try)
	}
}

// pause sleeps between questions to the kernel, but not between the first few:
// a sleep is longer than most waits.
func pause(try int) {
	if try >= 20 {
		time.Sleep(100 * time.Microsecond)
	}
}

func (w *wiring) buildPod(pod *netlink.Handle) error {
	if err := pod.LinkSetUp(loopbackLink); err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	link, err := pod.LinkByName(w.ifName)
	if err != nil {
		return fmt.Errorf("find the pod's end: %w", err)
	}
	for _, a := range w.pods {
		addr := &netlink.Addr{IPNet: single(a), Flags: unix.IFA_F_NODAD} // nobody else can have it
		if err := pod.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("add address %s: %w", a, err)
		}
	}
	if err := pod.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up the pod's end: %w", err)
	}
	for _, gw := range w.gateways {
		if err := neighbour(pod, link.Attrs().Index, gw, w.hostMAC); err != nil {
			return err
		}
		route := &netlink.Route{
			LinkIndex: link.Attrs().Index, Gw: gw.AsSlice(), Dst: everything(gw), Flags: int(netlink.FLAG_ONLINK),
		}
		if err := pod.RouteReplace(route); err != nil {
			return fmt.Errorf("add default route by %s: %w", gw, err)
		}
	}
	return nil
}

func (w *wiring) buildHost(host *netlink.Handle, index int) error {
	for _, a := range w.pods {
		if err := neighbour(host, index, a, w.peerMAC); err != nil {
			return err
		}
		route := &netlink.Route{LinkIndex: index, Dst: single(a), Scope: netlink.SCOPE_LINK, Protocol: protocol}
		if err := host.RouteReplace(route); err != nil {
			return fmt.Errorf("add route to %s: %w", a, err)
		}
	}
	return nil
}

// neighbour says which MAC an address has, so that nobody has to ask.
func neighbour(h *netlink.Handle, index int, a netip.Addr, mac net.HardwareAddr) error {
	err := h.NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac})
	if err != nil {
		return fmt.Errorf("add neighbour %s: %w", a, err)
	}
	return nil
}

func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func everything(like netip.Addr) *net.IPNet {
	return &net.IPNet{IP: make(net.IP, like.BitLen()/8), Mask: net.CIDRMask(0, like.BitLen())}
}

// remove takes the pair away, if it is there.
func (w *wiring) remove(host *netlink.Handle) error { return removeLink(host, w.host) }

func removeLink(host *netlink.Handle, name string) error {
	link, err := host.LinkByName(name)
	if isNotFound(err) {
		return nil
	}
	if err == nil {
		err = host.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove interface %s: %w", name, err)
	}
	return nil
}

func isNotFound(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound)
}

// check says what is not as it should be.
func (w *wiring) check(host, pod *netlink.Handle) error {
	link, err := pod.LinkByName(w.ifName)
	if err != nil {
		return fmt.Errorf("the pod has no interface %s: %w", w.ifName, err)
	}
	if link.Attrs().HardwareAddr.String() != w.peerMAC.String() {
		return fmt.Errorf("the pod's interface %s has MAC %s, want %s", w.ifName, link.Attrs().HardwareAddr, w.peerMAC)
	}
	addrs, err := pod.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list the pod's addresses: %w", err)
	}
	hostLink, err := host.LinkByName(w.host)
	if err != nil {
		return fmt.Errorf("the node has no interface %s: %w", w.host, err)
	}
	routes, err := host.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: hostLink.Attrs().Index}, netlink.RT_FILTER_OIF)
	if err != nil {
		return fmt.Errorf("list routes to the pod: %w", err)
	}
	for _, a := range w.pods {
		if !hasAddr(addrs, a) {
			return fmt.Errorf("the pod's interface %s lacks address %s", w.ifName, a)
		}
		if !hasRoute(routes, a) {
			return fmt.Errorf("the node has no route to %s by %s", a, w.host)
		}
	}
	return nil
}

func hasAddr(addrs []netlink.Addr, a netip.Addr) bool {
	for _, have := range addrs {
		if have.IP.Equal(a.AsSlice()) {
			return true
		}
	}
	return false
}

func hasRoute(routes []netlink.Route, a netip.Addr) bool {
	for _, r := range routes {
		if r.Dst != nil && r.Dst.String() == single(a).String() {
			return true
		}
	}
	return false
}

// Check says what is wrong with an attachment, or nil.
func (n *Network) Check(ctx context.Context, a Attachment) error {
	if err := a.check(); err != nil {
		return fmt.Errorf("check pod interface: %w", err)
	}
	if err := n.checkAttachment(a); err != nil {
		return fmt.Errorf("check interface %s of sandbox %s: %w", a.IfName, a.ID, err)
	}
	return nil
}

func (n *Network) checkAttachment(a Attachment) error {
	le, err := n.leases.get(a.ID, a.IfName)
	if err != nil {
		return err
	}
	ns, err := netns.GetFromPath(a.NetNS)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", a.NetNS, err)
	}
	defer ns.Close()
	pod, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer pod.Close()
	return n.wiring(le).check(n.host, pod)
}

// Del takes the interface away and frees the addresses; nothing there is not an
// error. While Run runs, the interface is out of use at once and gone soon.
func (n *Network) Del(ctx context.Context, a Attachment) error {
	if err := a.check(); err != nil {
		return fmt.Errorf("delete pod interface: %w", err)
	}
	err := n.retire(makeNames(a.ID, a.IfName).host)
	if le, getErr := n.leases.get(a.ID, a.IfName); getErr == nil {
		err = errors.Join(err, n.forgetFlows(le.Index))
	}
	if err == nil { // an address whose interface is still there must not be given away
		err = n.leases.release(a.ID, a.IfName)
	}
	if err != nil {
		return fmt.Errorf("delete interface %s of sandbox %s: %w", a.IfName, a.ID, err)
	}
	return nil
}

// removeLinks removes every interface of ours from the node: with them go their
// routes and the pods' ends.
func (n *Network) removeLinks() error {
	links, err := n.host.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		name := l.Attrs().Name
		_, isVeth := l.(*netlink.Veth)
		if isVeth && strings.HasPrefix(name, hostPrefix) && len(name) == len(hostPrefix)+12 {
			err = errors.Join(err, removeLink(n.host, name))
		}
	}
	if _, statErr := os.Stat(n.cfg.State); statErr == nil {
		err = errors.Join(err, n.setAddresses(nil))
	}
	return errors.Join(err, n.removeRoutes())
}
