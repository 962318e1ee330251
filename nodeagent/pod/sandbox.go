package pod

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/nodeagent/container"
	"github.com/xebec-mesh/xebec/nodeagent/network"
	"github.com/xebec-mesh/xebec/nodeagent/shim"
	"github.com/xebec-mesh/xebec/nodeagent/volume"
)

// sandbox is what a pod's containers share, while it is made and after. Its parts
// come at different times, so that a container can be prepared while the network
// is still being connected.
type sandbox struct {
	spaces  chan struct{} // closed when the namespaces are there
	mounted chan struct{} // closed when the volumes are there
	shimmed chan struct{} // closed when it has a shim
	ready   chan struct{} // closed when all is, or when making it has failed

	volumes map[string]volume.Mounted // valid after mounted
	ips     []netip.Addr              // valid after ready
	err     error                     // valid after ready

	mu   sync.Mutex
	shim string // address; valid after shimmed; "" lets containerd start one
}

// address is the pod's shim. Where gone is that very one, the pod gets another.
func (s *sandbox) address(ctx context.Context, h home, shims Shims, gone string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if gone == "" || s.shim != gone {
		return s.shim, nil
	}
	a, err := h.takeShim(ctx, shims)
	if err == nil {
		s.shim = a
	}
	return a, err
}

func newSandbox() *sandbox {
	return &sandbox{spaces: make(chan struct{}), mounted: make(chan struct{}), shimmed: make(chan struct{}), ready: make(chan struct{})}
}

var errSandbox = errors.New("the pod's sandbox could not be made")

// wait waits for a part, or for the failure of the whole.
func (s *sandbox) wait(ctx context.Context, part <-chan struct{}) error {
	select {
	case <-part:
	case <-s.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-s.ready:
		if s.err != nil {
			return errSandbox
		}
	default:
	}
	return nil
}

func (s *sandbox) primary() netip.Addr {
	select {
	case <-s.ready:
		if len(s.ips) > 0 {
			return s.ips[0]
		}
	default:
	}
	return netip.Addr{}
}

// makeSandbox starts to make it.
func (a *actor) makeSandbox() {
	s := newSandbox()
	a.sandbox = s
	pod, host, ctx := a.pod, a.m.cfg.Host(), a.work
	a.save()
	go func() {
		reason, err := a.home.build(ctx, a.m.cfg, pod, host, s)
		s.err = err
		close(s.ready)
		a.post(sandboxMade{ips: addresses(s.ips), reason: reason, err: err})
	}()
}

// build makes the sandbox; the reason is that of the Event when it fails.
func (h home) build(ctx context.Context, cfg Config, pod *corev1.Pod, host Host, s *sandbox) (reason string, err error) {
	name, fqdn := hostname(pod, host)
	if err := h.directories(pod, host, name); err != nil {
		return "FailedCreatePodSandBox", err
	}
	g, ctx := errgroup.WithContext(ctx)
	reason = "FailedCreatePodSandBox"
	g.Go(func() error {
		v, err := cfg.Volumes.Mount(ctx, pod)
		if err != nil {
			reason = "FailedMount"
			return err
		}
		s.volumes = v
		close(s.mounted)
		return nil
	})
	g.Go(func() (err error) {
		if s.shim, err = h.takeShim(ctx, cfg.Shims); err == nil {
			close(s.shimmed)
		}
		return err
	})
	g.Go(func() error {
		if pod.Spec.HostNetwork {
			close(s.spaces)
			for _, ip := range host.IPs {
				if a, err := netip.ParseAddr(ip); err == nil {
					s.ips = append(s.ips, a)
				}
			}
			return h.writeHosts(pod, name, fqdn, s.ips)
		}
		return h.connect(ctx, cfg, pod, host, s, name, fqdn)
	})
	if err := g.Wait(); err != nil {
		if reason != "FailedMount" {
			err = &sandboxError{err}
		}
		return reason, err
	}
	return "", nil
}

// sandboxError has the words that users know.
type sandboxError struct{ err error }

func (e *sandboxError) Error() string { return "Failed to create pod sandbox: " + e.err.Error() }
func (e *sandboxError) Unwrap() error { return e.err }

// connect makes the namespaces and connects them to the pod network.
func (h home) connect(ctx context.Context, cfg Config, pod *corev1.Pod, host Host, s *sandbox, name, fqdn string) error {
	spaces := h.spaces()
	if spaces.Exist() { // a failed attempt's
		_ = cfg.Network.Del(ctx, h.networkPod(pod, host))
		shim.EndPause(spaces.PID())
		if err := spaces.Remove(); err != nil {
			return err
		}
	}
	if err := spaces.Create(name, sysctls(pod)); err != nil {
		return err
	}
	if isTrue(pod.Spec.ShareProcessNamespace) {
		if cfg.Shims == nil {
			return errors.New("shareProcessNamespace is not supported without shims of our own")
		}
		if err := cfg.Shims.Pause(spaces.PID(), cgroup(cfg, pod)+"/pause"); err != nil {
			return err
		}
	}
	close(s.spaces)
	ips, err := cfg.Network.Add(ctx, h.networkPod(pod, host))
	if err != nil {
		return err
	}
	s.ips = ips
	if cfg.Mesh != nil {
		if err := cfg.Mesh.Prepare(ctx, pod, spaces.Net(), ips); err != nil {
			return fmt.Errorf("intercept: %w", err)
		}
	}
	return h.writeHosts(pod, name, fqdn, ips)
}

func sysctls(pod *corev1.Pod) map[string]string {
	out := map[string]string{}
	if sc := pod.Spec.SecurityContext; sc != nil {
		for _, s := range sc.Sysctls {
			out[s.Name] = s.Value
		}
	}
	return out
}

func (h home) networkPod(pod *corev1.Pod, host Host) network.Pod {
	p := network.Pod{
		UID: string(pod.UID), Name: pod.Name, Namespace: pod.Namespace, NetNS: h.spaces().Net(), PodCIDRs: host.PodCIDRs,
	}
	for _, c := range pod.Spec.Containers {
		for _, port := range c.Ports {
			if port.HostPort > 0 {
				p.Ports = append(p.Ports, network.PortMapping{
					HostPort: port.HostPort, ContainerPort: port.ContainerPort, Protocol: lower(port.Protocol), HostIP: port.HostIP,
				})
			}
		}
	}
	return p
}

func lower(p corev1.Protocol) string {
	switch p {
	case corev1.ProtocolUDP:
		return "udp"
	case corev1.ProtocolSCTP:
		return "sctp"
	}
	return "tcp"
}

// directories makes the pod's directories and the files below /etc. The file of
// hosts is written when the addresses are known.
func (h home) directories(pod *corev1.Pod, host Host, name string) error {
	for _, dir := range []string{filepath.Dir(h.etc("x")), filepath.Dir(h.exit("x")), filepath.Dir(h.message("x")), h.run} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make pod directory: %w", err)
		}
	}
	node, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read the node's resolv.conf: %w", err)
	}
	for file, text := range map[string]string{
		"hostname": name + "\n", "resolv.conf": resolvConf(pod, host, string(node)), "hosts": "",
	} {
		if err := os.WriteFile(h.etc(file), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write pod file: %w", err)
		}
	}
	if pod.Spec.HostIPC {
		return nil
	}
	return mountShm(h.shm())
}

func mountShm(dir string) error {
	if err := os.Mkdir(dir, 0o777); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		return fmt.Errorf("make shared memory: %w", err)
	}
	if err := unix.Mount("shm", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=1777,size=64m"); err != nil {
		return fmt.Errorf("mount shared memory: %w", err)
	}
	return nil
}

// writeHosts fills the file in place: containers may have it mounted already.
func (h home) writeHosts(pod *corev1.Pod, name, fqdn string, ips []netip.Addr) error {
	text := hostsFile(pod, addresses(ips), name, fqdn)
	if pod.Spec.HostNetwork {
		if b, err := os.ReadFile("/etc/hosts"); err == nil {
			text = string(b)
		}
	}
	if err := os.WriteFile(h.etc("hosts"), []byte(text), 0o644); err != nil {
		return fmt.Errorf("write pod file: %w", err)
	}
	return nil
}

// removeSandbox removes the containers that have ended and all that they shared.
func (a *actor) removeSandbox() {
	pod, host, h, cfg := a.pod, a.m.cfg.Host(), a.home, a.m.cfg
	dead := a.dead
	a.dead = nil
	ctx := context.WithoutCancel(a.ctx)
	go func() {
		a.sweeps.Wait()
		a.post(sandboxRemoved{h.demolish(ctx, cfg, pod, host, dead), dead})
	}()
}

func (h home) demolish(ctx context.Context, cfg Config, pod *corev1.Pod, host Host, dead []*container.Container) error {
	var g errgroup.Group
	for _, c := range dead {
		g.Go(func() error { return c.Remove(ctx) })
	}
	if !pod.Spec.HostNetwork && h.spaces().Exist() {
		g.Go(func() error {
			if cfg.Mesh != nil {
				if err := cfg.Mesh.Remove(ctx, pod); err != nil {
					return err
				}
			}
			return cfg.Network.Del(ctx, h.networkPod(pod, host))
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	shim.EndPause(h.spaces().PID())
	if address, err := os.ReadFile(h.shim()); err == nil {
		shim.End(string(address))
	}
	if err := h.spaces().Remove(); err != nil {
		return err
	}
	if err := cfg.Volumes.Unmount(ctx, pod.UID); err != nil {
		return err
	}
	container.RemoveCgroup(cgroup(cfg, pod))
	return nil
}

// clean removes the files that a pod keeps until its object goes.
func (h home) clean(logs string) error {
	if err := os.RemoveAll(logs); err != nil {
		return fmt.Errorf("remove logs: %w", err)
	}
	if err := os.RemoveAll(h.state); err != nil {
		return fmt.Errorf("remove pod directory: %w", err)
	}
	return nil
}

func cgroup(cfg Config, pod *corev1.Pod) string {
	return filepath.Join(cfg.Cgroup, "pod"+string(pod.UID))
}
