package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/xebec-mesh/xebec/dataplane/kernel/kerneltest"
)

// world is a network namespace with pod addresses on its loopback, and a
// Balancer for the cgroup that this process is in.
type world struct {
	t    testing.TB
	ns   *kerneltest.NetNS
	cfg  Config
	b    *Balancer
	pods []netip.Addr
}

func newWorld(t testing.TB) *world {
	kerneltest.Root(t)
	w := &world{t: t, ns: kerneltest.NewNetNS(t)}
	cgroup := kerneltest.Cgroup(t)
	kerneltest.Join(t, cgroup)
	lo, err := w.ns.Net.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"10.244.0.2/32", "10.244.0.3/32", "fd00:10:244::2/128", "fd00:10:244::3/128"} {
		p := netip.MustParsePrefix(a)
		w.pods = append(w.pods, p.Addr())
		addr, _ := netlink.ParseAddr(a)
		addr.Flags = syscall.IFA_F_NODAD
		if err := w.ns.Net.AddrAdd(lo, addr); err != nil {
			t.Fatal(err)
		}
	}
	w.cfg = Config{
		Pins: kerneltest.Pins(t), Cgroup: cgroup, Log: slog.New(slog.DiscardHandler),
		Ranges: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:10:96::/112")},
	}
	w.open()
	return w
}

// open is what a new process does.
func (w *world) open() {
	w.t.Helper()
	b, err := New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := b.Open(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { b.Close() })
	w.b = b
}

// serveTCP answers every connection with the address it came to.
func (w *world) serveTCP(addr netip.AddrPort) {
	w.t.Helper()
	var l net.Listener
	var err error
	w.ns.Do(w.t, func() { l, err = net.Listen("tcp", addr.String()) })
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
			fmt.Fprint(c, c.LocalAddr())
			c.Close()
		}
	}()
}

// serveUDP answers every datagram with the address it came to.
func (w *world) serveUDP(addr netip.AddrPort) {
	w.t.Helper()
	var c *net.UDPConn
	var err error
	w.ns.Do(w.t, func() { c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr)) })
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 64)
		for {
			_, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort([]byte(addr.String()), from)
		}
	}()
}

// dial connects in the namespace and returns who answered and whom the socket says it called.
func (w *world) dial(network, addr string) (answer, peer string, err error) {
	var c net.Conn
	w.ns.Do(w.t, func() { c, err = net.DialTimeout(network, addr, time.Second) })
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if network == "udp" {
		if _, err := c.Write([]byte("x")); err != nil {
			return "", "", err
		}
		buf := make([]byte, 64)
		n, err := c.Read(buf)
		return string(buf[:n]), c.RemoteAddr().String(), err
	}
	data, err := io.ReadAll(c)
	return string(data), c.RemoteAddr().String(), err
}

func endpoints(addrs ...netip.Addr) (out []Endpoint) {
	for _, a := range addrs {
		out = append(out, Endpoint{Addr: netip.AddrPortFrom(a, 8080), Ready: true})
	}
	return out
}

func web(endpoints []Endpoint) Service {
	return Service{
		Name:  "default/web",
		Addrs: []netip.Addr{netip.MustParseAddr("10.96.0.5"), netip.MustParseAddr("fd00:10:96::5")},
		Ports: []Port{
			{Name: "tcp", Protocol: TCP, Port: 80, Endpoints: endpoints},
			{Name: "udp", Protocol: UDP, Port: 80, Endpoints: endpoints},
		},
	}
}

func TestKernelConnect(t *testing.T) {
	w := newWorld(t)
	for _, p := range w.pods {
		w.serveTCP(netip.AddrPortFrom(p, 8080))
		w.serveUDP(netip.AddrPortFrom(p, 8080))
	}
	if err := w.b.Apply([]Service{web(endpoints(w.pods...))}, 1); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"tcp", "udp"} {
		for _, vip := range []string{"10.96.0.5:80", "[fd00:10:96::5]:80", "[::ffff:10.96.0.5]:80"} {
			seen := map[string]int{}
			for range 64 {
				answer, peer, err := w.dial(network, vip)
				if err != nil {
					t.Fatalf("%s %s: %v", network, vip, err)
				}
				seen[answer]++
				if want := netip.MustParseAddrPort(vip); netip.MustParseAddrPort(peer) != netip.AddrPortFrom(want.Addr().Unmap(), 80) {
					t.Errorf("%s %s: the application sees %s", network, vip, peer)
				}
			}
			if len(seen) != 2 {
				t.Errorf("%s %s: backends %v, want two", network, vip, seen)
			}
		}
	}
}

func TestKernelRefuses(t *testing.T) {
	w := newWorld(t)
	if err := w.b.Apply([]Service{web(nil)}, 1); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"10.96.0.5:80", "[fd00:10:96::5]:80", "10.96.0.5:81", "10.96.77.77:80", "[fd00:10:96::99]:80"} {
		for _, network := range []string{"tcp", "udp"} {
			start := time.Now()
			if _, _, err := w.dial(network, addr); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s %s: %v, want connection refused", network, addr, err)
			}
			if d := time.Since(start); d > 500*time.Millisecond {
				t.Errorf("%s %s: refused after %v", network, addr, d)
			}
		}
	}
}

// TestKernelDatagrams: an unconnected socket stays with one backend, sees the
// Service's address as the source, and moves on when the backend is gone.
func TestKernelDatagrams(t *testing.T) {
	w := newWorld(t)
	for _, p := range w.pods {
		w.serveUDP(netip.AddrPortFrom(p, 8080))
	}
	if err := w.b.Apply([]Service{web(endpoints(w.pods...))}, 1); err != nil {
		t.Fatal(err)
	}
	for _, vip := range []string{"10.96.0.5:80", "[fd00:10:96::5]:80"} {
		var c *net.UDPConn
		var err error
		w.ns.Do(t, func() { c, err = net.ListenUDP("udp", nil) })
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		to := netip.MustParseAddrPort(vip)
		first := w.ask(c, to)
		for range 20 {
			if again := w.ask(c, to); again != first {
				t.Fatalf("%s: answer from %s after %s", vip, again, first)
			}
		}
		left := w.pods[0]
		for _, p := range w.pods {
			if p.Is4() == to.Addr().Is4() && netip.AddrPortFrom(p, 8080).String() != first {
				left = p
			}
		}
		if err := w.b.Update(web(endpoints(left))); err != nil {
			t.Fatal(err)
		}
		if now := w.ask(c, to); now != netip.AddrPortFrom(left, 8080).String() {
			t.Errorf("%s: answer from %s, which is gone; want %s", vip, now, left)
		}
		if err := w.b.Update(web(endpoints(w.pods...))); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *world) ask(c *net.UDPConn, to netip.AddrPort) string {
	w.t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte("x"), to); err != nil {
		w.t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	buf := make([]byte, 64)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		w.t.Fatal(err)
	}
	if got := netip.AddrPortFrom(from.Addr().Unmap(), from.Port()); got != to {
		w.t.Errorf("the answer comes from %s, want %s", got, to)
	}
	return string(buf[:n])
}

// TestKernelConnectedDatagrams: a connected socket whose backend is gone is told,
// and its next connection reaches a live one. Others are left alone.
func TestKernelConnectedDatagrams(t *testing.T) {
	w := newWorld(t)
	for _, p := range w.pods {
		w.serveUDP(netip.AddrPortFrom(p, 8080))
	}
	if err := w.b.Apply([]Service{web(endpoints(w.pods[0], w.pods[2]))}, 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.b.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	stay := w.ns.Command(t, "", "sleep", "100") // a namespace with a process in it, as a pod's
	kerneltest.Start(t, stay)
	var byService, direct net.Conn
	var err1, err2 error
	w.ns.Do(t, func() {
		byService, err1 = net.Dial("udp", "10.96.0.5:80")
		direct, err2 = net.Dial("udp", netip.AddrPortFrom(w.pods[0], 8080).String())
	})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	defer byService.Close()
	defer direct.Close()
	exchange := func(c net.Conn) error {
		_ = c.SetDeadline(time.Now().Add(time.Second))
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		_, err := c.Read(make([]byte, 64))
		return err
	}
	if err := errors.Join(exchange(byService), exchange(direct)); err != nil {
		t.Fatal(err)
	}
	if err := w.b.Update(web(endpoints(w.pods[1], w.pods[2]))); err != nil {
		t.Fatal(err)
	}
	var err error
	for deadline := time.Now().Add(5 * time.Second); err == nil && time.Now().Before(deadline); {
		err = exchange(byService)
	}
	if !errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("a socket whose backend is gone: %v, want it aborted", err)
	}
	if err := exchange(direct); err != nil {
		t.Errorf("a socket connected to the pod itself: %v", err)
	}
	if answer, _, err := w.dial("udp", "10.96.0.5:80"); answer != netip.AddrPortFrom(w.pods[1], 8080).String() {
		t.Errorf("connected again: %q, %v", answer, err)
	}
}

func TestKernelAffinity(t *testing.T) {
	w := newWorld(t)
	for _, p := range w.pods {
		w.serveTCP(netip.AddrPortFrom(p, 8080))
	}
	s := web(endpoints(w.pods...))
	s.Affinity = time.Hour
	if err := w.b.Apply([]Service{s}, 1); err != nil {
		t.Fatal(err)
	}
	first, _, err := w.dial("tcp", "10.96.0.5:80")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if again, _, err := w.dial("tcp", "10.96.0.5:80"); again != first {
			t.Fatalf("%s after %s (%v)", again, first, err)
		}
	}
	left := w.pods[0]
	if netip.AddrPortFrom(left, 8080).String() == first {
		left = w.pods[1]
	}
	gone := web(endpoints(left))
	gone.Affinity = time.Hour
	if err := w.b.Update(gone); err != nil {
		t.Fatal(err)
	}
	if now, _, err := w.dial("tcp", "10.96.0.5:80"); now != netip.AddrPortFrom(left, 8080).String() {
		t.Errorf("answer from %q (%v), want %s", now, err, left)
	}
}

// TestKernelSurvives: the tables serve on without the process; the next one
// adopts them while connections go on.
func TestKernelSurvives(t *testing.T) {
	w := newWorld(t)
	w.serveTCP(netip.AddrPortFrom(w.pods[0], 8080))
	if err := w.b.Apply([]Service{web(endpoints(w.pods[0]))}, 5); err != nil {
		t.Fatal(err)
	}
	must := func(when string) {
		t.Helper()
		if _, _, err := w.dial("tcp", "10.96.0.5:80"); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	w.b.Close()
	must("after the process ended")
	w.open()
	must("after adoption")
	if n := len(w.b.entries); n != 4 {
		t.Errorf("%d frontends adopted, want 4", n)
	}
	if err := w.b.Apply([]Service{web(endpoints(w.pods[0]))}, 1); err != nil {
		t.Fatal(err)
	}
	must("after the first full state")
	if err := w.b.Apply(nil, 2); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.dial("tcp", "10.96.0.5:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a removed service: %v", err)
	}
	w.b.Close()
	if err := Reset(w.cfg.Pins); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkUpdate: one endpoint of one of many Services changes.
func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{100, 10000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			w := newWorld(b)
			services := make([]Service, n)
			for i := range services {
				services[i] = Service{
					Name:  fmt.Sprintf("default/s%d", i),
					Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})},
					Ports: []Port{{Protocol: TCP, Port: 80, Endpoints: endpoints(w.pods[0], w.pods[1])}},
				}
			}
			start := time.Now()
			if err := w.b.Apply(services, 1); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms/first-apply")
			for i := 0; b.Loop(); i++ {
				s := services[i%n]
				s.Ports = []Port{{Protocol: TCP, Port: 80, Endpoints: endpoints(w.pods[0], netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)}))}}
				if err := w.b.Update(s); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkConnect compares connections through a ClusterIP with connections to
// the pod itself, made in turn, among many Services.
func BenchmarkConnect(b *testing.B) {
	for _, n := range []int{1, 30000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			w := newWorld(b)
			w.serveTCP(netip.AddrPortFrom(w.pods[0], 8080))
			services := []Service{web(endpoints(w.pods[0]))}
			for i := 1; i < n; i++ {
				services = append(services, Service{
					Name:  fmt.Sprintf("default/s%d", i),
					Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 97, byte(i >> 8), byte(i)})},
					Ports: []Port{{Protocol: TCP, Port: 80, Endpoints: endpoints(w.pods...)}},
				})
			}
			if err := w.b.Apply(services, 1); err != nil {
				b.Fatal(err)
			}
			var direct, clusterIP time.Duration
			w.ns.Do(b, func() {
				for i := 0; b.Loop(); i++ { // in turn, and in turn first
					if i%2 == 0 {
						direct += connect(b, netip.AddrPortFrom(w.pods[0], 8080))
					}
					clusterIP += connect(b, netip.MustParseAddrPort("10.96.0.5:80"))
					if i%2 == 1 {
						direct += connect(b, netip.AddrPortFrom(w.pods[0], 8080))
					}
				}
			})
			b.ReportMetric(float64(direct.Nanoseconds())/float64(b.N), "direct-ns")
			b.ReportMetric(float64(clusterIP.Nanoseconds())/float64(b.N), "clusterip-ns")
			b.ReportMetric(float64(clusterIP)/float64(direct), "ratio")
		})
	}
}

// connect connects, and closes without a TIME_WAIT, as ports would run out.
func connect(b *testing.B, to netip.AddrPort) time.Duration {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		b.Error(err)
		return 0
	}
	defer syscall.Close(fd)
	start := time.Now()
	err = syscall.Connect(fd, &syscall.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	took := time.Since(start)
	_ = syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
	if err != nil {
		b.Error(err)
	}
	return took
}
