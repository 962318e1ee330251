package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/dataplane/intercept"
	"github.com/xebec-mesh/xebec/nodeagent/network"
	"github.com/xebec-mesh/xebec/nodeagent/socket"
)

// Interceptor puts a pod's sidecar between its application and the world.
type Interceptor interface {
	Prepare(pod intercept.Pod) error
	Attach(uid, cgroup string, role intercept.Role) error
	Remove(uid string) error
	Retain(uids []string) error
}

const (
	sidecarName  = "istio-proxy"
	injected     = "sidecar.istio.io/status"
	outboundPort = 15001
	inboundPort  = 15006

	excludeInbound  = "traffic.sidecar.istio.io/excludeInboundPorts"
	excludeOutbound = "traffic.sidecar.istio.io/excludeOutboundPorts"
	excludeRanges   = "traffic.sidecar.istio.io/excludeOutboundIPRanges"
	includeRanges   = "traffic.sidecar.istio.io/includeOutboundIPRanges"
)

// Meshed says whether a pod has a sidecar: its annotation and its container.
func Meshed(pod *corev1.Pod) bool {
	if _, ok := pod.Annotations[injected]; !ok {
		return false
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == sidecarName {
				return true
			}
		}
	}
	return false
}

// mesh is what meshed pods get around them: their socket and the interception.
type mesh struct {
	sockets     *socket.Sockets // nil: no pod can be meshed
	interceptor Interceptor
	retain      func(ctx context.Context, uids []string) error
}

// meshed says whether a pod is to be meshed, and that this node can do it.
func (m *mesh) meshed(pod *corev1.Pod) (bool, error) {
	if !Meshed(pod) {
		return false, nil
	}
	if m.sockets == nil {
		return false, errors.New("the pod has a sidecar, but this node has no mesh")
	}
	return true, nil
}

func (m *mesh) Prepare(_ context.Context, pod *corev1.Pod, netns string, ips []netip.Addr) error {
	if ok, err := m.meshed(pod); !ok {
		return err
	}
	p, err := interception(pod)
	if err != nil {
		return err
	}
	p.NetNS = netns
	if err := m.interceptor.Prepare(p); err != nil {
		return fmt.Errorf("prepare interception: %w", err)
	}
	pod = pod.DeepCopy()
	pod.Status.PodIPs = nil
	for _, ip := range ips {
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: ip.String()})
	}
	if len(ips) > 0 {
		pod.Status.PodIP = ips[0].String()
	}
	return m.sockets.Serve(pod)
}

func (m *mesh) Attach(_ context.Context, pod *corev1.Pod, container, cgroup string) error {
	if ok, err := m.meshed(pod); !ok {
		return err
	}
	role := intercept.App
	if container == sidecarName {
		role = intercept.Sidecar
	}
	return m.interceptor.Attach(string(pod.UID), cgroup, role)
}

// Adopt serves the socket of a pod that runs; its interception is in the kernel
// and needs nobody.
func (m *mesh) Adopt(_ context.Context, pod *corev1.Pod) error {
	if ok, err := m.meshed(pod); !ok {
		return err
	}
	return m.sockets.Serve(pod)
}

// drain tells Envoy's callers to go elsewhere after their next response; its
// listeners stay open (pilot/inject, DrainPath).
const drain = "http://127.0.0.1:15000/drain_listeners?inboundonly&graceful&skip_exit"

// Drain posts to the sidecar's admin address, which only the pod can reach.
func (m *mesh) Drain(ctx context.Context, pod *corev1.Pod, netns string) error {
	if ok, err := m.meshed(pod); !ok {
		return err
	}
	admin := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return network.Within(netns, func() (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", address)
			})
		},
	}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, drain, nil)
	if err != nil {
		return err
	}
	answer, err := admin.Do(r)
	if err != nil {
		return fmt.Errorf("drain the sidecar: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("drain the sidecar: %s", answer.Status)
	}
	return nil
}

func (m *mesh) Remove(_ context.Context, pod *corev1.Pod) error {
	if ok, err := m.meshed(pod); !ok {
		return err
	}
	if err := m.interceptor.Remove(string(pod.UID)); err != nil {
		return fmt.Errorf("remove interception: %w", err)
	}
	return m.sockets.Close(pod.UID)
}

func (m *mesh) Retain(ctx context.Context, uids []string) error {
	if m.interceptor != nil {
		if err := m.interceptor.Retain(uids); err != nil {
			return fmt.Errorf("retain interception: %w", err)
		}
	}
	if m.retain != nil {
		return m.retain(ctx, uids)
	}
	return nil
}

// interception reads what a pod's annotations exclude.
func interception(pod *corev1.Pod) (intercept.Pod, error) {
	p := intercept.Pod{UID: string(pod.UID), OutboundPort: outboundPort, InboundPort: inboundPort}
	var err error
	if p.ExcludeInboundPorts, err = ports(pod, excludeInbound); err != nil {
		return p, err
	}
	if p.ExcludeOutboundPorts, err = ports(pod, excludeOutbound); err != nil {
		return p, err
	}
	if p.ExcludeOutbound, err = ranges(pod, excludeRanges); err != nil {
		return p, err
	}
	p.IncludeOutbound, err = ranges(pod, includeRanges)
	return p, err
}

func ports(pod *corev1.Pod, annotation string) ([]uint16, error) {
	var out []uint16
	for _, s := range list(pod.Annotations[annotation]) {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %q: want port numbers with commas between", annotation, s)
		}
		out = append(out, uint16(n))
	}
	return out, nil
}

func ranges(pod *corev1.Pod, annotation string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range list(pod.Annotations[annotation]) {
		if s == "*" {
			continue // all, as without the annotation
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %q: want address ranges with commas between", annotation, s)
		}
		out = append(out, p)
	}
	return out, nil
}

func list(s string) []string {
	var out []string
	for _, f := range strings.Split(s, ",") {
		if f = strings.TrimSpace(f); f != "" {
			out = append(out, f)
		}
	}
	return out
}
