// Package dataplane_test holds the parts of the dataplane together, as they are
// on a node: a meshed pod calls a Service.
package dataplane_test

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
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xebec-mesh/xebec/dataplane/intercept"
	"github.com/xebec-mesh/xebec/dataplane/kernel/kerneltest"
	"github.com/xebec-mesh/xebec/dataplane/network"
	"github.com/xebec-mesh/xebec/dataplane/service"
)

// A node has a root cgroup with Services, in it a pod network.
type node struct {
	t         *testing.T
	mu        sync.Mutex
	root      string
	ns        *kerneltest.NetNS
	network   *network.Network
	services  *service.Balancer
	intercept *intercept.Interceptor
}

func newNode(t *testing.T) *node {
	kerneltest.Root(t)
	n := &node{t: t, ns: kerneltest.NewNetNS(t), root: kerneltest.Cgroup(t)}
	kerneltest.Join(t, n.root)
	log := slog.New(slog.DiscardHandler)
	var err1, err2, err3 error
	n.network, err1 = network.New(network.Config{
		State: t.TempDir(), Pins: kerneltest.Pins(t), Node: n.ns.Path, Log: log,
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00:10:244::/64")},
	})
	n.services, err2 = service.New(service.Config{
		Pins: kerneltest.Pins(t), Cgroup: n.root, Log: log,
		Ranges: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:10:96::/112")},
	})
	n.intercept, err3 = intercept.New(intercept.Config{Pins: kerneltest.Pins(t), Log: log})
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(n.network.Open(), n.services.Open(), n.intercept.Open()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.network.Close(); n.services.Close(); n.intercept.Close() })
	return n
}

type pod struct {
	*kerneltest.NetNS
	addrs        []netip.Addr
	app, sidecar string // cgroups; both the root's for a pod without a sidecar
}

func (n *node) pod(uid string, meshed bool) *pod {
	n.t.Helper()
	p := &pod{NetNS: kerneltest.NewNetNS(n.t), app: n.root, sidecar: n.root}
	i, err := n.network.Add(context.Background(), network.Attachment{ID: uid, NetNS: p.Path})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, a := range i.Addrs {
		p.addrs = append(p.addrs, a.Addr())
	}
	if !meshed {
		return p
	}
	p.app, p.sidecar = kerneltest.Child(n.t, n.root), kerneltest.Child(n.t, n.root)
	err = errors.Join(n.intercept.Prepare(intercept.Pod{UID: uid, NetNS: p.Path}),
		n.intercept.Attach(uid, p.app, intercept.App), n.intercept.Attach(uid, p.sidecar, intercept.Sidecar))
	if err != nil {
		n.t.Fatal(err)
	}
	return p
}

// as calls f in a pod and a cgroup. The whole process moves, so one at a time.
func (n *node) as(ns *kerneltest.NetNS, cgroup string, f func()) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	move := func(to string) {
		if err := os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte("0"), 0); err != nil {
			n.t.Fatal(err)
		}
	}
	move(cgroup)
	defer move(n.root)
	ns.Do(n.t, f)
}

func (n *node) listen(p *pod, cgroup, addr string, handle func(net.Conn)) {
	n.t.Helper()
	var l net.Listener
	var err error
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	n.as(p.NetNS, cgroup, func() { l, err = lc.Listen(context.Background(), "tcp", addr) })
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
}

func (n *node) dial(p *pod, cgroup, to string) (c net.Conn, err error) {
	n.as(p.NetNS, cgroup, func() { c, err = net.DialTimeout("tcp", to, 2*time.Second) })
	return c, err
}

func (n *node) ask(p *pod, cgroup, to string) string {
	c, err := n.dial(p, cgroup, to)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	data, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s, called %s", data, c.RemoteAddr())
}

// sidecar does what Envoy does for an address that it does not know: it connects
// to where the application wanted, which it says first.
func (n *node) sidecar(p *pod) {
	pass := func(c net.Conn) {
		var dst netip.AddrPort
		raw, _ := c.(*net.TCPConn).SyscallConn()
		_ = raw.Control(func(fd uintptr) {
			if c.LocalAddr().(*net.TCPAddr).IP.To4() != nil {
				if m, err := unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST); err == nil {
					b := m.Multiaddr
					dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3]))
				}
			} else if m, err := unix.GetsockoptIPv6MTUInfo(int(fd), unix.SOL_IPV6, unix.SO_ORIGINAL_DST); err == nil {
				dst = netip.AddrPortFrom(netip.AddrFrom16(m.Addr.Addr), m.Addr.Port<<8|m.Addr.Port>>8)
			}
		})
		var up net.Conn
		var err error
		n.as(p.NetNS, p.sidecar, func() { up, err = net.DialTimeout("tcp", dst.String(), 2*time.Second) })
		if err != nil {
			fmt.Fprintf(c, "sidecar: %s: %v", dst, err)
			return
		}
		defer up.Close()
		data, _ := io.ReadAll(up)
		fmt.Fprintf(c, "sidecar for %s: %s", dst, data)
	}
	n.listen(p, p.sidecar, "127.0.0.1:15001", pass)
	n.listen(p, p.sidecar, "[::1]:15001", pass)
}

// TestMeshedPodCallsService: the sidecar is asked first, sees the Service's
// address, and its own connection to that address is load-balanced.
func TestMeshedPodCallsService(t *testing.T) {
	n := newNode(t)
	client, server := n.pod("client", true), n.pod("server", false)
	plain := n.pod("plain", false)
	n.sidecar(client)
	var ports []service.Port
	for _, a := range server.addrs {
		n.listen(server, n.root, netip.AddrPortFrom(a, 8080).String(), func(c net.Conn) { fmt.Fprintf(c, "server at %s", c.LocalAddr()) })
		ports = append(ports, service.Port{Protocol: service.TCP, Port: 80, Endpoints: []service.Endpoint{{Addr: netip.AddrPortFrom(a, 8080), Ready: true}}})
	}
	ports[0].Endpoints = append(ports[0].Endpoints, ports[1].Endpoints...)
	err := n.services.Apply([]service.Service{{
		Name: "default/web", Addrs: []netip.Addr{netip.MustParseAddr("10.96.0.9"), netip.MustParseAddr("fd00:10:96::9")}, Ports: ports[:1],
	}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i, vip := range []string{"10.96.0.9:80", "[fd00:10:96::9]:80"} {
		backend := netip.AddrPortFrom(server.addrs[i], 8080)
		got := n.ask(client, client.app, vip)
		if want := fmt.Sprintf("sidecar for %s: server at %s, called %s", vip, backend, vip); got != want {
			t.Errorf("meshed: %q, want %q", got, want)
		}
		if got, want := n.ask(plain, n.root, vip), fmt.Sprintf("server at %s, called %s", backend, vip); got != want {
			t.Errorf("not meshed: %q, want %q", got, want)
		}
	}
	// A Service that nobody serves: the application's connection is the sidecar's
	// to answer, the sidecar's own is refused.
	if got := n.ask(client, client.app, "10.96.0.10:80"); !strings.Contains(got, "sidecar: 10.96.0.10:80") || !strings.Contains(got, "connection refused") {
		t.Errorf("no such service, meshed: %q", got)
	}
	if _, err := n.dial(plain, n.root, "10.96.0.10:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("no such service, not meshed: %v", err)
	}
	// Nothing from outside reaches a meshed pod whose sidecar does not listen.
	n.listen(client, client.app, ":9090", func(c net.Conn) { fmt.Fprint(c, "application") })
	for _, a := range client.addrs {
		to := netip.AddrPortFrom(a, 9090).String()
		if got := n.ask(plain, n.root, to); !strings.Contains(got, "connection refused") {
			t.Errorf("%s from a pod: %q, want it refused", to, got)
		}
	}
}
