package probe

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/xebec-mesh/xebec/nodeagent/network"
)

// source is where probes come from inside a pod. The interception lets through
// what comes from loopback.
var source = netip.MustParseAddr("127.0.0.6")

// Dial connects to a pod's address from inside its network namespace.
func Dial(ctx context.Context, netns string, to netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	d.SetMultipathTCP(false)
	if netns == "" {
		return d.DialContext(ctx, "tcp", to.String())
	}
	if to.Addr().Is4() {
		d.LocalAddr = &net.TCPAddr{IP: source.AsSlice()}
	} else {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv6loopback}
	}
	return network.Within(netns, func() (net.Conn, error) { return d.DialContext(ctx, "tcp", to.String()) })
}

// port finds a container port by number or name.
func port(c *corev1.Container, p intstr.IntOrString) (uint16, error) {
	if p.Type == intstr.Int {
		if p.IntVal <= 0 || p.IntVal > 65535 {
			return 0, fmt.Errorf("port %d: want 1 to 65535", p.IntVal)
		}
		return uint16(p.IntVal), nil
	}
	for _, cp := range c.Ports {
		if cp.Name == p.StrVal {
			return uint16(cp.ContainerPort), nil
		}
	}
	if n, err := strconv.ParseUint(p.StrVal, 10, 16); err == nil {
		return uint16(n), nil
	}
	return 0, fmt.Errorf("port %q: the container has no port of that name", p.StrVal)
}

func (t Target) addr(host string, p intstr.IntOrString) (netip.AddrPort, error) {
	n, err := port(t.Container, p)
	if err != nil {
		return netip.AddrPort{}, err
	}
	ip := t.IP
	if host != "" {
		if ip, err = netip.ParseAddr(host); err != nil {
			ips, err := net.LookupIP(host)
			if err != nil || len(ips) == 0 {
				return netip.AddrPort{}, fmt.Errorf("host %q: %w", host, err)
			}
			ip, _ = netip.AddrFromSlice(ips[0])
		}
	}
	return netip.AddrPortFrom(ip.Unmap(), n), nil
}

// HTTPGet makes one request; answers from 200 to 399 are good ones.
func HTTPGet(ctx context.Context, t Target, a *corev1.HTTPGetAction) error {
	to, err := t.addr(a.Host, a.Port)
	if err != nil {
		return err
	}
	tr := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // probes have never verified: the pod's own address has no name
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return Dial(ctx, t.NetNS, to) },
	}
	defer tr.CloseIdleConnections()
	u, err := url.Parse(a.Path)
	if err != nil {
		u = &url.URL{Path: a.Path}
	}
	u.Scheme, u.Host = strings.ToLower(string(a.Scheme)), to.String()
	if u.Scheme == "" {
		u.Scheme = "http"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "kube-probe/1.36")
	req.Header.Set("Accept", "*/*")
	for _, h := range a.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
			continue
		}
		req.Header.Add(h.Name, h.Value)
	}
	c := &http.Client{Transport: tr, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if r.URL.Hostname() != via[0].URL.Hostname() || len(via) >= 10 {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 10<<10))
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe failed with statuscode: %d", resp.StatusCode)
	}
	return nil
}

func tcp(ctx context.Context, t Target, a *corev1.TCPSocketAction) error {
	to, err := t.addr(a.Host, a.Port)
	if err != nil {
		return err
	}
	c, err := Dial(ctx, t.NetNS, to)
	if err != nil {
		return err
	}
	return c.Close()
}

func grpcHealth(ctx context.Context, t Target, a *corev1.GRPCAction) error {
	to, err := t.addr("", intstr.FromInt32(a.Port))
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+to.String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return Dial(ctx, t.NetNS, to) }))
	if err != nil {
		return err
	}
	defer conn.Close()
	req := &healthv1.HealthCheckRequest{}
	if a.Service != nil {
		req.Service = *a.Service
	}
	resp, err := healthv1.NewHealthClient(conn).Check(ctx, req)
	if err != nil {
		return err
	}
	if resp.Status != healthv1.HealthCheckResponse_SERVING {
		return fmt.Errorf("service %q is %s", req.Service, resp.Status)
	}
	return nil
}
