package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xebec-mesh/xebec/dataplane/conntrack"
	"github.com/xebec-mesh/xebec/dataplane/kernel"
	"github.com/xebec-mesh/xebec/dataplane/kernel/kerneltest"
)

// A world is a node with pods, and somebody outside (192.168.7.2) who knows the
// node (192.168.7.1) and nothing of pods.
type world struct {
	t             testing.TB
	node, outside *kerneltest.NetNS
	cfg           Config
	n             *Network
}

func newWorld(t testing.TB) *world {
	kerneltest.Root(t)
	w := &world{t: t, node: kerneltest.NewNetNS(t), outside: kerneltest.NewNetNS(t)}
	w.join()
	node := &Network{node: w.node.Handle}
	err := node.inNode(func() error { // a new namespace has it from the machine's
		return errors.Join(writeFile("/proc/sys/net/ipv4/ip_forward", "0"), writeFile("/proc/sys/net/ipv6/conf/all/forwarding", "0"))
	})
	if err != nil {
		t.Fatal(err)
	}
	w.cfg = Config{
		State: t.TempDir(), Pins: kerneltest.Pins(t), Node: w.node.Path, Masquerade: true, Log: slog.New(slog.DiscardHandler),
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00:10:244::/64")},
	}
	w.open()
	return w
}

func (w *world) join() {
	w.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Namespace, attrs.MTU = "up0", netlink.NsFd(w.node.Handle), 1400
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "up0", PeerNamespace: netlink.NsFd(w.outside.Handle)}); err != nil {
		w.t.Fatal(err)
	}
	links := map[*kerneltest.NetNS]netlink.Link{}
	for ns, addrs := range map[*kerneltest.NetNS][]string{
		w.node: {"192.168.7.1/24", "fd07::1/64"}, w.outside: {"192.168.7.2/24", "fd07::2/64"},
	} {
		l, err := ns.Net.LinkByName("up0")
		if err != nil {
			w.t.Fatal(err)
		}
		links[ns] = l
		for _, a := range addrs {
			addr, _ := netlink.ParseAddr(a)
			addr.Flags = unix.IFA_F_NODAD
			if err := ns.Net.AddrAdd(l, addr); err != nil {
				w.t.Fatal(err)
			}
		}
		if err := ns.Net.LinkSetUp(l); err != nil {
			w.t.Fatal(err)
		}
	}
	w.node.Up(w.t, "up0")
	w.outside.Up(w.t, "up0")
	for _, gw := range []string{"192.168.7.2", "fd07::2"} {
		ip := netip.MustParseAddr(gw)
		route := &netlink.Route{LinkIndex: links[w.node].Attrs().Index, Gw: ip.AsSlice(), Dst: everything(ip)}
		err := errors.Join(
			neighbour(w.node.Net, links[w.node].Attrs().Index, ip, links[w.outside].Attrs().HardwareAddr),
			neighbour(w.outside.Net, links[w.outside].Attrs().Index, nodeAddr(ip), links[w.node].Attrs().HardwareAddr),
			w.node.Net.RouteAdd(route))
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

func nodeAddr(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.MustParseAddr("192.168.7.1")
	}
	return netip.MustParseAddr("fd07::1")
}

func (w *world) open() {
	w.t.Helper()
	n, err := New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := n.Open(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { n.Close() })
	w.n = n
}

type pod struct {
	*kerneltest.NetNS
	id    string
	addrs []netip.Addr
}

func (w *world) pod(id string) *pod {
	w.t.Helper()
	p := &pod{NetNS: kerneltest.NewNetNS(w.t), id: id}
	i, err := w.n.Add(context.Background(), Attachment{ID: id, NetNS: p.Path})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, a := range i.Addrs {
		p.addrs = append(p.addrs, a.Addr())
	}
	return p
}

// serve answers over TCP and UDP with the address of who asks.
func (w *world) serve(ns *kerneltest.NetNS, addr string) {
	w.t.Helper()
	var l net.Listener
	var c net.PacketConn
	var err1, err2 error
	ns.Do(w.t, func() {
		l, err1 = net.Listen("tcp", addr)
		c, err2 = net.ListenPacket("udp", addr)
	})
	if err := errors.Join(err1, err2); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close(); c.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				n, _ := io.Copy(io.Discard, conn) // until the client has sent all
				fmt.Fprintf(conn, "%s %d", conn.RemoteAddr(), n)
			}()
		}
	}()
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(append([]byte(from.String()+" "), buf[:n]...), from)
		}
	}()
}

// ask sends size bytes and returns whom the server saw.
func (w *world) ask(ns *kerneltest.NetNS, network, to string, size int) (netip.Addr, error) {
	var c net.Conn
	var err error
	ns.Do(w.t, func() { c, err = net.DialTimeout(network, to, 2*time.Second) })
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := c.Write(make([]byte, size)); err != nil {
		return netip.Addr{}, err
	}
	buf := make([]byte, 1<<16)
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
	n, err := c.Read(buf)
	if err != nil {
		return netip.Addr{}, err
	}
	from, rest, _ := strings.Cut(string(buf[:n]), " ")
	if network == "udp" && len(rest) != size || network == "tcp" && rest != fmt.Sprint(size) {
		return netip.Addr{}, fmt.Errorf("sent %d bytes, the answer is of %q", size, rest[:min(len(rest), 20)])
	}
	return netip.MustParseAddrPort(from).Addr(), nil
}

func (w *world) want(ns *kerneltest.NetNS, to netip.Addr, source netip.Addr) {
	w.t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		for _, size := range []int{1, 1300, 20000} { // the last is fragmented over UDP, segmented over TCP
			got, err := w.ask(ns, network, netip.AddrPortFrom(to, 8080).String(), size)
			if err != nil || got != source {
				w.t.Errorf("%s %s, %d bytes: the server sees %s (%v), want %s", network, to, size, got, err, source)
			}
		}
	}
}

func TestPods(t *testing.T) {
	w := newWorld(t)
	a, b := w.pod("a"), w.pod("b")
	w.serve(a.NetNS, ":8080")
	w.serve(w.node, ":8080")
	w.serve(w.outside, ":8080")
	for i, gw := range w.n.Gateways() {
		w.want(b.NetNS, a.addrs[i], b.addrs[i])  // pod to pod
		w.want(a.NetNS, a.addrs[i], a.addrs[i])  // pod to itself
		w.want(w.node, a.addrs[i], nodeAddr(gw)) // node to pod
		w.serve(w.node, netip.AddrPortFrom(gw, 53).String())
		for _, network := range []string{"tcp", "udp"} { // pod to cluster DNS
			if got, err := w.ask(b.NetNS, network, netip.AddrPortFrom(gw, 53).String(), 100); err != nil || got != b.addrs[i] {
				t.Errorf("%s: the gateway sees %s (%v)", network, got, err)
			}
		}
		w.want(b.NetNS, nodeAddr(gw), b.addrs[i]) // pod to the node's own address
		outside := netip.MustParseAddr([]string{"192.168.7.2", "fd07::2"}[i])
		w.want(b.NetNS, outside, nodeAddr(gw)) // out, with the node's address
		w.want(w.node, outside, nodeAddr(gw))  // the node itself is left alone
		ping(t, b.NetNS, outside)
		ping(t, b.NetNS, a.addrs[i])
	}
	noRules(t, w.node)
}

// noRules: neither iptables nor nftables has anything in this namespace.
func noRules(t testing.TB, ns *kerneltest.NetNS) {
	t.Helper()
	for _, file := range []string{"/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"} {
		out, err := ns.Command(t, "", "cat", file).Output()
		if err == nil && len(strings.TrimSpace(string(out))) > 0 {
			t.Errorf("%s: %s", file, out)
		}
	}
}

// ping sends an ICMP echo from an unprivileged socket and waits for the answer.
func ping(t testing.TB, ns *kerneltest.NetNS, to netip.Addr) {
	t.Helper()
	family, proto, request := unix.AF_INET, unix.IPPROTO_ICMP, byte(8)
	var sa unix.Sockaddr
	if to.Is4() {
		sa = &unix.SockaddrInet4{Addr: to.As4()}
	} else {
		family, proto, request = unix.AF_INET6, unix.IPPROTO_ICMPV6, 128
		sa = &unix.SockaddrInet6{Addr: to.As16()}
	}
	ns.Do(t, func() {
		fd, err := unix.Socket(family, unix.SOCK_RAW, proto)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		msg := []byte{request, 0, 0, 0, 0x12, 0x34, 0, 1, 'x', 'e', 'b', 'e'}
		if to.Is4() {
			sum := checksum(msg)
			msg[2], msg[3] = byte(sum>>8), byte(sum)
		}
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2})
		if err := unix.Sendto(fd, msg, 0, sa); err != nil {
			t.Error(err)
			return
		}
		buf := make([]byte, 256)
		for {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				t.Errorf("ping %s: %v", to, err)
				return
			}
			if got := string(buf[max(n-8, 0):n]); got == "\x12\x34\x00\x01xebe" && (n < 12 || buf[n-12] != request) {
				return
			}
		}
	})
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// TestErrorsComeBack: a port that nobody listens on outside is refused at once,
// because the ICMP error finds its way to the pod.
func TestErrorsComeBack(t *testing.T) {
	w := newWorld(t)
	a := w.pod("a")
	for _, to := range []string{"192.168.7.2:9", "[fd07::2]:9"} {
		start := time.Now()
		if _, err := w.ask(a.NetNS, "udp", to, 1); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v after %v, want connection refused", to, err, time.Since(start))
		}
	}
}

// TestPathMTU: a smaller link further on is found by the errors about it.
func TestPathMTU(t *testing.T) {
	w := newWorld(t)
	a := w.pod("a")
	far := kerneltest.NewNetNS(t)
	w.extend(far)
	w.serve(far, ":8080")
	for i, to := range []string{"192.168.8.2:8080", "[fd08::2]:8080"} {
		if got, err := w.ask(a.NetNS, "tcp", to, 20000); err != nil || got != nodeAddr(a.addrs[i]) {
			t.Errorf("%s: the server sees %s (%v)", to, got, err)
		}
		w.ask(a.NetNS, "udp", to, 1300) // the error about it shortens the path
		if got, err := w.ask(a.NetNS, "udp", to, 1300); err != nil || got != nodeAddr(a.addrs[i]) {
			t.Errorf("%s: the server sees %s (%v)", to, got, err)
		}
	}
}

// extend puts a namespace behind outside, by a link with a smaller MTU.
func (w *world) extend(far *kerneltest.NetNS) {
	w.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Namespace, attrs.MTU = "far0", netlink.NsFd(w.outside.Handle), 1300
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "far0", PeerNamespace: netlink.NsFd(far.Handle)}); err != nil {
		w.t.Fatal(err)
	}
	there := map[*kerneltest.NetNS]*kerneltest.NetNS{w.outside: far, far: w.outside}
	for ns, side := range map[*kerneltest.NetNS]string{w.outside: "1", far: "2"} {
		l, _ := ns.Net.LinkByName("far0")
		peer, _ := there[ns].Net.LinkByName("far0")
		for _, a := range []string{"192.168.8." + side + "/24", "fd08::" + side + "/64"} {
			addr, _ := netlink.ParseAddr(a)
			addr.Flags = unix.IFA_F_NODAD
			if err := ns.Net.AddrAdd(l, addr); err != nil {
				w.t.Fatal(err)
			}
		}
		if err := ns.Net.LinkSetUp(l); err != nil {
			w.t.Fatal(err)
		}
		for _, net := range []string{"192.168.8.", "fd08::"} {
			ip := netip.MustParseAddr(net + map[string]string{"1": "2", "2": "1"}[side])
			if err := neighbour(ns.Net, l.Attrs().Index, ip, peer.Attrs().HardwareAddr); err != nil {
				w.t.Fatal(err)
			}
		}
		if ns == far {
			for _, gw := range []string{"192.168.8.1", "fd08::1"} {
				ip := netip.MustParseAddr(gw)
				if err := far.Net.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: ip.AsSlice(), Dst: everything(ip)}); err != nil {
					w.t.Fatal(err)
				}
			}
		}
	}
	w.outside.Up(w.t, "far0")
	far.Up(w.t, "far0")
	outside := &Network{node: w.outside.Handle}
	err := outside.inNode(func() error {
		return errors.Join(writeFile("/proc/sys/net/ipv4/ip_forward", "1"), writeFile("/proc/sys/net/ipv6/conf/all/forwarding", "1"))
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestManyFlows: flows of two pods from the same ports to the same place stay apart.
func TestManyFlows(t *testing.T) {
	w := newWorld(t)
	a, b := w.pod("a"), w.pod("b")
	w.serve(w.outside, ":8080")
	for port := 40000; port < 40050; port++ {
		seen := map[string]bool{}
		for _, p := range []*pod{a, b} {
			var c net.Conn
			var err error
			p.Do(t, func() {
				d := net.Dialer{LocalAddr: &net.UDPAddr{Port: port}, Timeout: time.Second}
				c, err = d.Dial("udp", "192.168.7.2:8080")
			})
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(time.Second))
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			n, err := c.Read(buf)
			c.Close()
			if err != nil || seen[string(buf[:n])] {
				t.Fatalf("port %d: %q, %v, seen before %v", port, buf[:n], err, seen)
			}
			seen[string(buf[:n])] = true
		}
	}
	flows, err := conntrack.Flows(w.n.flows, conntrack.SinceBoot())
	if err != nil || len(flows) < 100 {
		t.Errorf("%d flows (%v), want 100 and more", len(flows), err)
	}
	if err := w.n.Del(context.Background(), Attachment{ID: "a"}); err != nil {
		t.Fatal(err)
	}
	flows, _ = conntrack.Flows(w.n.flows, conntrack.SinceBoot())
	for _, f := range flows {
		if f.Pod.Addr() == a.addrs[0] {
			t.Fatalf("a deleted pod has a flow: %+v", f)
		}
	}
}

// TestLife: adding twice is the same, everything survives the process, and what
// is deleted leaves nothing behind.
func TestLife(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	a := w.pod("a")
	again, err := w.n.Add(ctx, Attachment{ID: "a", NetNS: a.Path})
	if err != nil || again.Addrs[0].Addr() != a.addrs[0] {
		t.Fatalf("added again: %+v, %v", again, err)
	}
	w.serve(w.outside, ":8080")
	outside := netip.MustParseAddr("192.168.7.2")
	w.n.Close()
	w.want(a.NetNS, outside, nodeAddr(outside))
	w.open()
	w.want(a.NetNS, outside, nodeAddr(outside))
	b := w.pod("b")
	if b.addrs[0] == a.addrs[0] {
		t.Fatalf("both pods have %s", a.addrs[0])
	}
	if err := errors.Join(w.n.Check(ctx, Attachment{ID: "a", NetNS: a.Path}), w.n.Check(ctx, Attachment{ID: "b", NetNS: b.Path})); err != nil {
		t.Error(err)
	}
	if err := w.n.Retain(ctx, []string{"b"}); err != nil {
		t.Fatal(err)
	}
	if err := w.n.Check(ctx, Attachment{ID: "a", NetNS: a.Path}); err == nil {
		t.Error("a deleted pod is still there")
	}
	if err := w.n.Del(ctx, Attachment{ID: "unknown", NetNS: "/none"}); err != nil {
		t.Error(err)
	}
	if leases, _ := filepath.Glob(filepath.Join(w.cfg.State, "addresses", "*")); len(leases) != 1 {
		t.Errorf("addresses in use: %v, want one", leases)
	}
	w.n.Close()
	if err := Reset(w.cfg); err != nil {
		t.Fatal(err)
	}
	links, _ := w.node.Net.LinkList()
	routes, _ := w.node.Net.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: protocol}, netlink.RT_FILTER_PROTOCOL)
	if len(links) != 2 || len(routes) != 0 {
		t.Errorf("left behind: %d interfaces (want lo and up0), routes %v", len(links), routes)
	}
	out, err := w.node.Command(t, "", "cat", "/proc/sys/net/ipv4/ip_forward").Output()
	if err != nil || strings.TrimSpace(string(out)) != "0" {
		t.Errorf("ip_forward is %q (%v), want as it was", out, err)
	}
}

// TestRetired: while Run runs, deleted pods are unreachable at once, their
// interfaces go together soon after, and the others stay.
func TestRetired(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.n.Run(ctx) }()
	for deadline := time.Now().Add(5 * time.Second); !w.n.running.Load() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	stays := w.pod("stays")
	w.serve(stays.NetNS, ":8080")
	var gone []netip.Addr
	for i := range 10 {
		p := w.pod(fmt.Sprint("goes", i))
		w.serve(p.NetNS, ":8080")
		gone = append(gone, p.addrs[0])
	}
	for i, a := range gone {
		if err := w.n.Del(ctx, Attachment{ID: fmt.Sprint("goes", i)}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.ask(w.node, "udp", netip.AddrPortFrom(a, 8080).String(), 1); err == nil {
			t.Errorf("%s answers after it was deleted", a)
		}
	}
	count := 0
	for deadline := time.Now().Add(5 * time.Second); count != 3 && time.Now().Before(deadline); {
		links, err := w.node.Net.LinkList()
		if err != nil {
			t.Fatal(err)
		}
		count = len(links)
	}
	if count != 3 {
		t.Errorf("%d interfaces, want lo, up0 and that of the pod that stays", count)
	}
	w.want(w.node, stays.addrs[0], nodeAddr(stays.addrs[0]))
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestUplinkChanges: another address of the uplink is used at once.
func TestUplinkChanges(t *testing.T) {
	w := newWorld(t)
	a := w.pod("a")
	w.serve(w.outside, ":8080")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.n.Run(ctx) }()
	l, _ := w.node.Net.LinkByName("up0")
	old, _ := netlink.ParseAddr("192.168.7.1/24")
	fresh, _ := netlink.ParseAddr("192.168.7.9/24")
	route := &netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP("192.168.7.2"), Dst: everything(netip.MustParseAddr("0.0.0.0"))}
	if err := errors.Join(w.node.Net.AddrDel(l, old), w.node.Net.AddrAdd(l, fresh), w.node.Net.RouteReplace(route)); err != nil {
		t.Fatal(err)
	}
	want := netip.MustParseAddr("192.168.7.9")
	var got netip.Addr
	for deadline := time.Now().Add(5 * time.Second); got != want && time.Now().Before(deadline); {
		got, _ = w.ask(a.NetNS, "udp", "192.168.7.2:8080", 1)
	}
	if got != want {
		t.Errorf("the server sees %s, want %s", got, want)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestRouterAdvertisements: they are heard on the uplink as before, and never from pods.
func TestRouterAdvertisements(t *testing.T) {
	w := newWorld(t)
	w.pod("a")
	links, err := w.node.Net.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		name := l.Attrs().Name
		out, err := w.node.Command(t, "", "cat", "/proc/sys/net/ipv6/conf/"+name+"/accept_ra").Output()
		got := strings.TrimSpace(string(out))
		if err != nil || name == "up0" && got != "2" || name != "up0" && got == "2" {
			t.Errorf("%s: accept_ra is %q (%v)", name, got, err)
		}
	}
}

// TestClassicFilters: what kernels before 6.6 get instead of tcx links.
func TestClassicFilters(t *testing.T) {
	w := newWorld(t)
	a := w.pod("a")
	w.serve(w.outside, ":8080")
	pins, _ := filepath.Glob(filepath.Join(w.cfg.Pins, "link_*"))
	if len(pins) != 2 {
		t.Fatalf("links %v, want two", pins)
	}
	for _, pin := range pins {
		if err := kernel.Unpin(pin); err != nil {
			t.Fatal(err)
		}
	}
	outside := netip.MustParseAddr("192.168.7.2")
	if got, err := w.ask(a.NetNS, "udp", "192.168.7.2:8080", 1); err == nil {
		t.Fatalf("without programs the server sees %s", got)
	}
	l, _ := w.node.Net.LinkByName("up0")
	for range 2 { // attaching again is fine
		if err := w.n.attachFilters(l.Attrs().Index); err != nil {
			t.Fatal(err)
		}
	}
	w.want(a.NetNS, outside, nodeAddr(outside))
	w.n.Close()
	if err := Reset(w.cfg); err != nil {
		t.Fatal(err)
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		if left, _ := w.node.Net.FilterList(l, parent); len(left) > 0 {
			t.Errorf("filters are left: %v", left)
		}
	}
}

func TestUnreachable(t *testing.T) {
	w := newWorld(t)
	a := w.pod("a")
	start := time.Now()
	if _, err := w.ask(a.NetNS, "tcp", "10.244.0.200:80", 1); err == nil || time.Since(start) > 3*time.Second {
		t.Errorf("a pod that does not exist: %v after %v", err, time.Since(start))
	}
}

func writeFile(path, value string) error {
	return os.WriteFile(path, []byte(value), 0)
}

// BenchmarkAdd is what the network adds to a pod's start, BenchmarkDel to its end.
func BenchmarkAdd(b *testing.B) { benchmarkLife(b, true) }
func BenchmarkDel(b *testing.B) { benchmarkLife(b, false) }

func benchmarkLife(b *testing.B, add bool) {
	w := newWorld(b)
	ctx := context.Background()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		a := Attachment{ID: fmt.Sprint(i), NetNS: kerneltest.NewNetNS(b).Path}
		for _, step := range []struct {
			timed bool
			do    func() error
		}{
			{add, func() error { _, err := w.n.Add(ctx, a); return err }},
			{!add, func() error { return w.n.Del(ctx, a) }},
		} {
			if step.timed {
				b.StartTimer()
			}
			err := step.do()
			b.StopTimer()
			if err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
	}
}
