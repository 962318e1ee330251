package pod

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/nodeagent/container"
)

// View is a snapshot of what the streaming server needs to reach a pod.
type View struct {
	Pod        *corev1.Pod
	NetNS      string // "" is the host's
	IP         netip.Addr
	Containers map[string]ContainerView
}

// ContainerView is one container of it.
type ContainerView struct {
	Container *container.Container // nil unless it runs
	Attempts  int
	Log       string          // of the newest attempt; "" if there was none
	Previous  string          // of the one before; "" if there was none
	Attach    string          // Unix socket
	Ended     <-chan struct{} // closed when its log is complete
}

// Cgroup is the path of the pod's cgroup, below every hierarchy's root.
func (m *Manager) Cgroup(pod *corev1.Pod) string { return cgroup(m.cfg, pod) }

type viewed struct{ to chan<- *View }

func (e viewed) hear(a *actor) {
	v := &View{Pod: a.pod, Containers: map[string]ContainerView{}}
	if !a.pod.Spec.HostNetwork {
		v.NetNS = a.home.spaces().Net()
	}
	if len(a.o.Sandbox.IPs) > 0 {
		v.IP, _ = netip.ParseAddr(a.o.Sandbox.IPs[0])
	}
	for name, u := range a.o.Units {
		c := ContainerView{Attempts: u.Attempt}
		if u.Attempt > 0 {
			c.Log = a.m.logPath(a.pod, name, u.Attempt-1)
		}
		if u.Attempt > 1 {
			c.Previous = a.m.logPath(a.pod, name, u.Attempt-2)
		}
		if in := a.live[name]; in != nil {
			c.Container, c.Ended, c.Attach = in.c, in.drained, a.home.attach(in.c.ID)
		} else {
			ended := make(chan struct{})
			close(ended)
			c.Ended = ended
		}
		v.Containers[name] = c
	}
	e.to <- v
}

func (a *actor) view(ctx context.Context) (*View, error) {
	to := make(chan *View, 1)
	a.post(viewed{to})
	select {
	case v := <-to:
		return v, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("look at pod: %w", ctx.Err())
	case <-a.ctx.Done():
		return nil, fmt.Errorf("look at pod: %w", a.ctx.Err())
	}
}
