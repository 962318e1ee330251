package intercept

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/xebec-mesh/xebec/dataplane/envoy/envoytest"
	"github.com/xebec-mesh/xebec/dataplane/kernel/kerneltest"
)

// sidecarConfig is the least that a sidecar needs: what the application dials
// goes where it wanted, what arrives goes to the port it was meant for.
const sidecarConfig = `
static_resources:
  listeners:
  - name: virtualOutbound
    address: {socket_address: {address: 127.0.0.1, port_value: 15001}}
    additional_addresses: [{address: {socket_address: {address: "::1", port_value: 15001}}}]
    listener_filters:
    - name: envoy.filters.listener.original_dst
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: out, cluster: out}
  - name: virtualInbound
    address: {socket_address: {address: 0.0.0.0, port_value: 15006}}
    additional_addresses: [{address: {socket_address: {address: "::", port_value: 15006}}}]
    filter_chains:
    - filter_chain_match: {prefix_ranges: [{address_prefix: "0.0.0.0", prefix_len: 0}]}
      filters:
      - &remember
        name: remember
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config
          on_new_connection:
          - object_key: envoy.network.transport_socket.original_dst_address
            format_string: {text_format_source: {inline_string: "%DOWNSTREAM_LOCAL_ADDRESS%"}}
      - name: tcp
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: in4, cluster: in4}
    - filter_chain_match: {prefix_ranges: [{address_prefix: "::", prefix_len: 0}]}
      filters:
      - *remember
      - name: tcp
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: in6, cluster: in6}
  clusters:
  - {name: out, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, connect_timeout: 2s}
  - name: in4
    type: ORIGINAL_DST
    lb_policy: CLUSTER_PROVIDED
    connect_timeout: 2s
    upstream_bind_config: {source_address: {address: 127.0.0.6, port_value: 0}}
  - name: in6
    type: ORIGINAL_DST
    lb_policy: CLUSTER_PROVIDED
    connect_timeout: 2s
    upstream_bind_config: {source_address: {address: "::1", port_value: 0}}
`

// startEnvoy runs the real Envoy as a sidecar does: as a user without any
// privilege, in its own cgroup. It returns a function that kills it.
func (w *world) startEnvoy() (kill func()) {
	w.t.Helper()
	cmd := w.pod.Command(w.t, w.sidecar, "setpriv", "--reuid", "1337", "--regid", "1337", "--clear-groups",
		"--bounding-set", "-all", "--no-new-privs", envoytest.Shared(w.t), "--config-yaml", sidecarConfig,
		"--concurrency", "2", "--disable-hot-restart", "--log-level", "warning")
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	kill = kerneltest.Start(w.t, cmd)
	for deadline := time.Now().Add(20 * time.Second); ; {
		if w.listens("127.0.0.1:15001") && w.listens("[::1]:15001") {
			return kill
		}
		if time.Now().After(deadline) {
			kill()
			w.t.Fatalf("Envoy does not listen:\n%s", log.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (w *world) listens(addr string) (ok bool) {
	w.as(w.pod, w.home, func() {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
			ok = true
		}
	})
	return ok
}

// TestRealEnvoy: both directions and both families through Envoy itself, and
// nothing at all while it is dead.
func TestRealEnvoy(t *testing.T) {
	w := newWorld(t)
	w.mesh(Pod{})
	kill := w.startEnvoy()
	for _, f := range families {
		w.serve(w.pod, w.app, "app", net.JoinHostPort(f.pod, "8080"))
		w.serve(w.outside, w.home, "outside", net.JoinHostPort(f.outside, "8080"))
	}
	working := func(when string) {
		t.Helper()
		for _, f := range families {
			in, out := net.JoinHostPort(f.pod, "8080"), net.JoinHostPort(f.outside, "8080")
			w.want(w.outside, w.home, "", in, "app local="+in)
			w.want(w.pod, w.app, "", out, "outside local="+out)
			w.want(w.pod, w.app, "", in, "app local="+in) // itself: out and in again
		}
		if t.Failed() {
			t.Fatal(when)
		}
	}
	working("with Envoy")
	kill()
	for _, f := range families {
		w.wantRefused(w.outside, w.home, net.JoinHostPort(f.pod, "8080"))
		w.wantRefused(w.pod, w.app, net.JoinHostPort(f.outside, "8080"))
	}
	w.i.Close() // nobody needs to be there when it comes back
	kill = w.startEnvoy()
	working("with Envoy back")
	kill()
}

// TestManyConnections: none of many connections at once loses its destination.
func TestManyConnections(t *testing.T) {
	w := newWorld(t)
	w.mesh(Pod{})
	w.startEnvoy()
	w.serve(w.outside, w.home, "outside", "10.0.0.2:8080")
	w.serve(w.pod, w.app, "app", "10.0.0.1:8080")
	const clients, each = 8, 100
	errs := make(chan error, 2*clients)
	w.as(w.pod, w.app, func() {
		for range clients {
			go func() { errs <- w.hammer(w.pod, "10.0.0.2:8080", "outside local=10.0.0.2:8080", each) }()
			go func() { errs <- w.hammer(w.outside, "10.0.0.1:8080", "app local=10.0.0.1:8080", each) }()
		}
		for range 2 * clients {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}

// hammer dials without changing cgroups: the caller has seen to that.
func (w *world) hammer(ns *kerneltest.NetNS, addr, want string, times int) (err error) {
	for range times {
		var c net.Conn
		if e := kerneltest.In(ns.Handle, func() { c, err = net.DialTimeout("tcp", addr, 5*time.Second) }); e != nil || err != nil {
			return fmt.Errorf("dial %s: %v, %w", addr, e, err)
		}
		buf := make([]byte, 200)
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		n, err := c.Read(buf)
		c.Close()
		if err != nil || string(buf[:n]) != want {
			return fmt.Errorf("%s: %q, %w; want %q", addr, buf[:n], err, want)
		}
	}
	return nil
}
