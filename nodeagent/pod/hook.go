package pod

import (
	"context"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/nodeagent/probe"
)

// httpHook makes the request of a hook, from inside the pod's network.
func (a *actor) httpHook(ctx context.Context, l *launch, h *corev1.HTTPGetAction, ip string) error {
	t := probe.Target{Pod: l.pod, Container: l.c}
	if ip != "" {
		addr, err := netip.ParseAddr(ip)
		if err != nil {
			return err
		}
		t.IP = addr
	}
	if !l.pod.Spec.HostNetwork {
		t.NetNS = a.home.spaces().Net()
	}
	return probe.HTTPGet(ctx, t, h)
}
