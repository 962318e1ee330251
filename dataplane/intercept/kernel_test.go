package intercept

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
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xebec-mesh/xebec/dataplane/kernel/kerneltest"
)

// A world is a pod (10.0.0.1) and somebody outside of it (10.0.0.2), each in a
// network namespace, joined by a veth pair, with cgroups for the pod's
// application and sidecar.
type world struct {
	t            testing.TB
	pod, outside *kerneltest.NetNS
	app, sidecar string
	home         string // the cgroup of everything else
	cfg          Config
	i            *Interceptor
}

var families = []struct{ name, pod, outside, loopback, source string }{
	{"ipv4", "10.0.0.1", "10.0.0.2", "127.0.0.1", "127.0.0.6"},
	{"ipv6", "fd00::1", "fd00::2", "::1", "::1"},
}

func newWorld(t testing.TB) *world {
	kerneltest.Root(t)
	w := &world{t: t, pod: kerneltest.NewNetNS(t), outside: kerneltest.NewNetNS(t)}
	w.home = kerneltest.Cgroup(t)
	w.app, w.sidecar = kerneltest.Child(t, w.home), kerneltest.Child(t, w.home)
	kerneltest.Join(t, w.home)
	w.join()
	w.cfg = Config{Pins: kerneltest.Pins(t), Log: slog.New(slog.DiscardHandler)}
	w.open()
	return w
}

func (w *world) join() {
	w.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	attrs.Namespace = netlink.NsFd(w.outside.Handle)
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(w.pod.Handle)}
	if err := netlink.LinkAdd(veth); err != nil {
		w.t.Fatal(err)
	}
	for _, side := range []struct {
		ns    *kerneltest.NetNS
		addrs []string
	}{{w.pod, []string{"10.0.0.1/24", "fd00::1/64"}}, {w.outside, []string{"10.0.0.2/24", "fd00::2/64"}}} {
		l, err := side.ns.Net.LinkByName("eth0")
		if err != nil {
			w.t.Fatal(err)
		}
		for _, a := range side.addrs {
			addr, _ := netlink.ParseAddr(a)
			addr.Flags = unix.IFA_F_NODAD
			if err := side.ns.Net.AddrAdd(l, addr); err != nil {
				w.t.Fatal(err)
			}
		}
		if err := side.ns.Net.LinkSetUp(l); err != nil {
			w.t.Fatal(err)
		}
	}
	w.pod.Up(w.t, "eth0")
	w.outside.Up(w.t, "eth0")
	w.acquaint(w.pod, w.outside, "10.0.0.2", "fd00::2")
	w.acquaint(w.outside, w.pod, "10.0.0.1", "fd00::1")
}

// acquaint spares the first packet the neighbour discovery, as dataplane/network does.
func (w *world) acquaint(ns, other *kerneltest.NetNS, ips ...string) {
	w.t.Helper()
	here, err := ns.Net.LinkByName("eth0")
	if err != nil {
		w.t.Fatal(err)
	}
	there, err := other.Net.LinkByName("eth0")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, ip := range ips {
		err := ns.Net.NeighSet(&netlink.Neigh{
			LinkIndex: here.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: net.ParseIP(ip), HardwareAddr: there.Attrs().HardwareAddr,
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) open() {
	w.t.Helper()
	i, err := New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := i.Open(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { i.Close() })
	w.i = i
}

func (w *world) mesh(pod Pod) {
	w.t.Helper()
	pod.UID, pod.NetNS = "uid-1", w.pod.Path
	if err := w.i.Prepare(pod); err != nil {
		w.t.Fatal(err)
	}
	for cgroup, role := range map[string]Role{w.app: App, w.sidecar: Sidecar} {
		if err := w.i.Attach(pod.UID, cgroup, role); err != nil {
			w.t.Fatal(err)
		}
	}
}

// as calls f on a thread in ns while the process is in cgroup: sockets made by f
// belong there, for ever.
func (w *world) as(ns *kerneltest.NetNS, cgroup string, f func()) {
	w.t.Helper()
	move := func(to string) {
		if err := os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte("0"), 0); err != nil {
			w.t.Fatal(err)
		}
	}
	move(cgroup)
	defer move(w.home)
	ns.Do(w.t, f)
}

// serve answers every connection with name, the address it came to, from whom,
// and its original destination if it has one.
func (w *world) serve(ns *kerneltest.NetNS, cgroup, name, addr string) net.Listener {
	w.t.Helper()
	var l net.Listener
	var err error
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	w.as(ns, cgroup, func() { l, err = lc.Listen(context.Background(), "tcp", addr) })
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s local=%s", name, c.LocalAddr())
			if o := originalDst(c.(*net.TCPConn)); o.IsValid() {
				fmt.Fprintf(c, " original=%s", o)
			}
			c.Close()
		}
	}()
	return l
}

// originalDst asks what Envoy's original_dst listener filter asks.
func originalDst(c *net.TCPConn) (dst netip.AddrPort) {
	raw, err := c.SyscallConn()
	if err != nil {
		return dst
	}
	_ = raw.Control(func(fd uintptr) {
		if c.LocalAddr().(*net.TCPAddr).IP.To4() != nil {
			if m, err := unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST); err == nil {
				b := m.Multiaddr // a struct sockaddr_in: family, port, address
				dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3]))
			}
			return
		}
		if m, err := unix.GetsockoptIPv6MTUInfo(int(fd), unix.SOL_IPV6, unix.SO_ORIGINAL_DST); err == nil {
			p := m.Addr.Port
			dst = netip.AddrPortFrom(netip.AddrFrom16(m.Addr.Addr), p<<8|p>>8)
		}
	})
	return dst
}

// dial returns what the server says, and whom the socket says it called.
func (w *world) dial(ns *kerneltest.NetNS, cgroup, from, to string) (answer, peer string, err error) {
	var c net.Conn
	d := net.Dialer{Timeout: time.Second}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	w.as(ns, cgroup, func() { c, err = d.Dial("tcp", to) })
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	data, err := io.ReadAll(c)
	return string(data), c.RemoteAddr().String(), err
}

func (w *world) want(ns *kerneltest.NetNS, cgroup, from, to, answer string) {
	w.t.Helper()
	got, peer, err := w.dial(ns, cgroup, from, to)
	if err != nil || got != answer {
		w.t.Errorf("dial %s from %q: %q, %v; want %q", to, from, got, err, answer)
	} else if peer != to {
		w.t.Errorf("dial %s: the application sees %s", to, peer)
	}
}

func (w *world) wantRefused(ns *kerneltest.NetNS, cgroup, to string) {
	w.t.Helper()
	if got, _, err := w.dial(ns, cgroup, "", to); !errors.Is(err, syscall.ECONNREFUSED) {
		w.t.Errorf("dial %s: %q, %v; want it refused", to, got, err)
	}
}

func TestOutbound(t *testing.T) {
	w := newWorld(t)
	w.mesh(Pod{
		ExcludeOutboundPorts: []uint16{9090},
		ExcludeOutbound:      []netip.Prefix{netip.MustParsePrefix("10.0.0.16/28"), netip.MustParsePrefix("fd00::100/120")},
	})
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w.t = t
			at := func(ip, port string) string { return net.JoinHostPort(ip, port) }
			w.serve(w.outside, w.home, "outside", at(f.outside, "80"))
			w.serve(w.outside, w.home, "outside", at(f.outside, "9090"))
			w.serve(w.pod, w.sidecar, "sidecar", at(f.loopback, "15001"))
			w.serve(w.pod, w.app, "self", at(f.loopback, "8080"))

			direct := "outside local=" + at(f.outside, "80")
			caught := fmt.Sprintf("sidecar local=%s original=%s", at(f.loopback, "15001"), at(f.outside, "80"))
			w.want(w.pod, w.app, "", at(f.outside, "80"), caught)
			w.want(w.pod, w.app, f.pod, at(f.outside, "80"), caught) // a socket bound to the pod's address
			w.want(w.pod, w.app, "", at(f.outside, "4444"), fmt.Sprintf("sidecar local=%s original=%s", at(f.loopback, "15001"), at(f.outside, "4444")))
			w.want(w.pod, w.app, "", at(f.outside, "9090"), "outside local="+at(f.outside, "9090"))
			w.want(w.pod, w.app, "", at(f.loopback, "8080"), "self local="+at(f.loopback, "8080"))
			w.want(w.pod, w.sidecar, "", at(f.outside, "80"), direct)
			w.want(w.pod, w.home, "", at(f.outside, "80"), direct) // neither application nor sidecar
		})
	}
	w.serve(w.pod, w.sidecar, "sidecar", "127.0.0.1:15001")
	for name, c := range map[string]struct {
		family, proto int
		to            unix.Sockaddr
	}{
		"mapped": {unix.AF_INET6, 0, &unix.SockaddrInet6{Port: 80, Addr: netip.MustParseAddr("::ffff:10.0.0.2").As16()}},
		"mptcp":  {unix.AF_INET, unix.IPPROTO_MPTCP, &unix.SockaddrInet4{Port: 80, Addr: netip.MustParseAddr("10.0.0.2").As4()}},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			fd := -1
			var err error
			w.as(w.pod, w.app, func() {
				if fd, err = unix.Socket(c.family, unix.SOCK_STREAM, c.proto); err == nil {
					err = unix.Connect(fd, c.to)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			f := os.NewFile(uintptr(fd), "socket")
			defer f.Close()
			got, err := io.ReadAll(f)
			if want := "sidecar local=127.0.0.1:15001 original=10.0.0.2:80"; string(got) != want {
				t.Errorf("got %q (%v), want %q", got, err, want)
			}
		})
	}
}

func TestOutboundIncludeOnly(t *testing.T) {
	w := newWorld(t)
	w.mesh(Pod{IncludeOutbound: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}})
	w.serve(w.pod, w.sidecar, "sidecar", "127.0.0.1:15001")
	w.serve(w.outside, w.home, "outside", "10.0.0.2:80")
	w.want(w.pod, w.app, "", "10.0.0.2:80", "outside local=10.0.0.2:80")
	w.want(w.pod, w.app, "", "10.0.1.7:80", "sidecar local=127.0.0.1:15001 original=10.0.1.7:80")
}

func TestInbound(t *testing.T) {
	w := newWorld(t)
	w.mesh(Pod{ExcludeInboundPorts: []uint16{9090}})
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			w.t = t
			at := func(port string) string { return net.JoinHostPort(f.pod, port) }
			w.serve(w.pod, w.app, "app", at("8080"))
			w.serve(w.pod, w.app, "app", at("9090"))

			// Closed until the sidecar listens.
			w.wantRefused(w.outside, w.home, at("8080"))
			w.wantRefused(w.outside, w.home, at("15006"))
			w.want(w.outside, w.home, "", at("9090"), "app local="+at("9090"))

			wildcard := net.JoinHostPort(map[string]string{"ipv4": "0.0.0.0", "ipv6": "::"}[f.name], "15006")
			l := w.serve(w.pod, w.sidecar, "sidecar", wildcard)
			w.want(w.outside, w.home, "", at("8080"), "sidecar local="+at("8080"))
			w.want(w.outside, w.home, "", at("7777"), "sidecar local="+at("7777")) // nobody listens there
			w.want(w.outside, w.home, "", at("9090"), "app local="+at("9090"))
			// The sidecar's own connections and the agent's probes.
			w.want(w.pod, w.sidecar, f.source, at("8080"), "app local="+at("8080"))
			w.want(w.pod, w.home, f.source, at("8080"), "app local="+at("8080"))
			// The sidecar calls the pod's own address: that is from outside.
			w.want(w.pod, w.sidecar, "", at("8080"), "sidecar local="+at("8080"))

			// Closed when it is gone, open when it is back.
			l.Close()
			w.wantRefused(w.outside, w.home, at("8080"))
			l = w.serve(w.pod, w.sidecar, "sidecar", wildcard)
			w.want(w.outside, w.home, "", at("8080"), "sidecar local="+at("8080"))
			l.Close()
		})
	}
}

// TestInboundBelongsToTheSidecar: a listener of the application on the
// sidecar's port gets nothing.
func TestInboundBelongsToTheSidecar(t *testing.T) {
	w := newWorld(t)
	w.mesh(Pod{})
	w.serve(w.pod, w.app, "impostor", "0.0.0.0:15006")
	w.wantRefused(w.outside, w.home, "10.0.0.1:15006")
	w.wantRefused(w.outside, w.home, "10.0.0.1:80")
}

// TestDualStackListener: one socket on :: takes both families.
func TestDualStackListener(t *testing.T) {
	w := newWorld(t)
	w.mesh(Pod{})
	w.serve(w.pod, w.sidecar, "sidecar", "[::]:15006")
	w.want(w.outside, w.home, "", "10.0.0.1:80", "sidecar local=10.0.0.1:80")
	w.want(w.outside, w.home, "", "[fd00::1]:80", "sidecar local=[fd00::1]:80")
}

// TestSurvives: interception does not need the process, the next one adopts it,
// and what is removed is gone.
func TestSurvives(t *testing.T) {
	w := newWorld(t)
	w.mesh(Pod{ExcludeInboundPorts: []uint16{9090}, ExcludeOutbound: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}})
	w.serve(w.pod, w.app, "app", "10.0.0.1:8080")
	w.serve(w.pod, w.sidecar, "sidecar", "0.0.0.0:15006")
	w.serve(w.pod, w.sidecar, "sidecar", "127.0.0.1:15001")
	must := func(when string) {
		t.Helper()
		w.want(w.outside, w.home, "", "10.0.0.1:8080", "sidecar local=10.0.0.1:8080")
		w.want(w.pod, w.app, "", "10.0.0.2:80", "sidecar local=127.0.0.1:15001 original=10.0.0.2:80")
		if t.Failed() {
			t.Fatal(when)
		}
	}
	must("before")
	w.i.Close()
	must("after the process ended")
	w.open()
	must("after adoption")
	w.mesh(Pod{}) // the same pod again, with other rules
	must("after preparing again")
	if ports, prefixes := w.rules(); ports+prefixes != 0 {
		t.Errorf("%d port rules, %d prefix rules are left of the old ones", ports, prefixes)
	}
	if err := w.i.Retain([]string{"uid-1"}); err != nil {
		t.Fatal(err)
	}
	must("after retaining it")
	if err := w.i.Retain(nil); err != nil {
		t.Fatal(err)
	}
	w.want(w.outside, w.home, "", "10.0.0.1:8080", "app local=10.0.0.1:8080")
	w.wantRefused(w.pod, w.app, "10.0.0.2:80")
	if left, _ := filepath.Glob(filepath.Join(w.cfg.Pins, "links", "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := errors.Join(w.i.Remove("uid-1"), w.i.Remove("unknown"), Reset(w.cfg.Pins)); err != nil {
		t.Error(err)
	}
}

func (w *world) rules() (ports, prefixes int) {
	_ = w.i.tables.ports.Range(func(portKey, uint8) bool { ports++; return true })
	_ = w.i.tables.prefixes.Range(func(prefixKey, uint8) bool { prefixes++; return true })
	return ports, prefixes
}

// TestRestartedContainer: links of a container that is gone do not pile up.
func TestRestartedContainer(t *testing.T) {
	w := newWorld(t)
	w.mesh(Pod{})
	for range 3 {
		cgroup := filepath.Join(w.home, "restarted")
		if err := os.Mkdir(cgroup, 0o755); err != nil {
			t.Fatal(err)
		}
		err := w.i.Attach("uid-1", cgroup, App)
		if err := errors.Join(err, syscall.Rmdir(cgroup)); err != nil {
			t.Fatal(err)
		}
	}
	// The kernel detaches the links of a removed cgroup a little later.
	want := 1 + len(hooksOf[App]) + len(hooksOf[Sidecar])
	var pins []string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline) && len(pins) != want; {
		if err := w.i.Attach("uid-1", w.app, App); err != nil {
			t.Fatal(err)
		}
		pins, _ = filepath.Glob(filepath.Join(w.cfg.Pins, "links", "*", "*", "*"))
	}
	if len(pins) != want {
		t.Errorf("%d pins, want %d: %v", len(pins), want, pins)
	}
}

func TestMistakes(t *testing.T) {
	w := newWorld(t)
	for what, err := range map[string]error{
		"unprepared":  w.i.Attach("uid-2", w.app, App),
		"no netns":    w.i.Prepare(Pod{UID: "uid-2", NetNS: "/run/netns/none"}),
		"no uid":      w.i.Prepare(Pod{NetNS: w.pod.Path}),
		"uid is path": w.i.Prepare(Pod{UID: "../x", NetNS: w.pod.Path}),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

// BenchmarkPod is what interception adds to a pod's start.
func BenchmarkPod(b *testing.B) {
	w := newWorld(b)
	for b.Loop() {
		w.mesh(Pod{})
		if err := w.i.Remove("uid-1"); err != nil {
			b.Fatal(err)
		}
	}
}
