package nodeagent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	ctrdoci "github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/nodeagent/container"
	"github.com/xebec-mesh/xebec/nodeagent/containerd"
	"github.com/xebec-mesh/xebec/nodeagent/exec"
	"github.com/xebec-mesh/xebec/nodeagent/image"
	"github.com/xebec-mesh/xebec/nodeagent/network"
	"github.com/xebec-mesh/xebec/nodeagent/node"
	"github.com/xebec-mesh/xebec/nodeagent/pod"
	"github.com/xebec-mesh/xebec/nodeagent/probe"
	"github.com/xebec-mesh/xebec/nodeagent/service"
	"github.com/xebec-mesh/xebec/nodeagent/shim"
	"github.com/xebec-mesh/xebec/nodeagent/socket"
	"github.com/xebec-mesh/xebec/nodeagent/status"
	"github.com/xebec-mesh/xebec/nodeagent/volume"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

// parts are what an agent consists of while it runs.
type parts struct {
	runtime   *container.Runtime
	network   *network.Network
	volumes   *volume.Manager
	sockets   *socket.Sockets // nil without a mesh
	services  *service.Follower
	events    *reconcile.Recorder
	status    *status.Writer
	pods      *pod.Manager
	node      *node.Node
	server    *exec.Server
	collector *image.Collector
	shims     *shim.Pool
	oci       container.Host
}

// parts makes them, from what needs nothing to what needs the others.
func (a *Agent) parts(ctx context.Context) (*parts, error) {
	p := &parts{}
	for _, make := range []func(context.Context, *parts) error{
		a.makeContainers, a.makeNetwork, a.makeServices, a.makeMesh, a.makePods, a.makeServer,
	} {
		if err := make(ctx, p); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (a *Agent) path(names ...string) string {
	return filepath.Join(append([]string{a.cfg.StateDir}, names...)...)
}

func (a *Agent) runPath(names ...string) string {
	return filepath.Join(append([]string{a.cfg.RunDir}, names...)...)
}

func (a *Agent) makeContainers(ctx context.Context, p *parts) error {
	c, err := a.daemon.Client(ctx)
	if err != nil {
		return err
	}
	snapshotter := snapshotterFor(a.cfg.Containerd.Root)
	if snapshotter != "overlayfs" {
		a.cfg.Log.Warn("containers are copied, not layered: the file system of the state directory cannot carry overlayfs", "directory", a.cfg.Containerd.Root)
	}
	if a.images, err = image.New(image.Config{Client: c, Snapshotter: snapshotter, Hosts: a.cfg.Images, Log: a.cfg.Log}); err != nil {
		return err
	}
	close(a.ready)
	p.runtime, err = container.NewRuntime(container.Config{
		Client: c, Namespace: containerd.Namespace, Owner: a.cfg.StateDir, Snapshotter: snapshotter,
		Shim: a.daemon.Shim(), Runc: a.daemon.Runc(), ShimCgroup: filepath.Join(a.cfg.Cgroup, "shims"), RuncRoot: a.runPath("runc"),
	})
	if err != nil {
		return err
	}
	if err := p.runtime.Open(ctx); err != nil {
		return err
	}
	p.shims, err = shim.New(shim.Config{
		Program: a.daemon.Shim(), Dir: a.runPath("shims"), Namespace: containerd.Namespace, Containerd: a.daemon.Socket(),
		Cgroup: filepath.Join(a.cfg.Cgroup, "shims"), Log: a.cfg.Log,
	})
	if err != nil {
		return err
	}
	p.collector, err = image.NewCollector(image.CollectorConfig{
		Store: a.images, Root: a.cfg.Containerd.Root, Context: p.runtime.Context,
		InUse: func() []string { return imagesOf(p.pods.List()) }, Log: a.cfg.Log,
	})
	return err
}

func imagesOf(pods []*corev1.Pod) []string {
	var out []string
	for _, p := range pods {
		for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
			for _, c := range list {
				out = append(out, c.Image)
			}
		}
	}
	return out
}

func (a *Agent) makeNetwork(_ context.Context, p *parts) (err error) {
	p.network, err = network.NewNetwork(network.Config{
		ConfDir: a.cfg.CNIConfDir, BinDirs: a.cfg.CNIBinDirs, CacheDir: a.path("cni"), Log: a.cfg.Log,
		Plugin: func(ctx context.Context, stdin []byte, environ []string) ([]byte, error) {
			plugin := a.plugin.Load()
			if plugin == nil {
				return nil, errors.New("the pod network is not open yet")
			}
			return (*plugin)(ctx, stdin, environ)
		},
	})
	return err
}

func (a *Agent) makeServices(_ context.Context, p *parts) (err error) {
	p.services, err = service.New(service.Config{
		Client: a.cfg.Client, Node: a.cfg.Node, Balancer: a.cfg.Balancer, Resolver: a.cfg.Resolver, Log: a.cfg.Log,
	})
	return err
}

func (a *Agent) makeMesh(_ context.Context, p *parts) (err error) {
	if a.cfg.Interceptor != nil {
		p.sockets, err = socket.New(socket.Config{
			Dir: a.path("mesh"), Services: a.cfg.Services, HTTP: a.cfg.HTTP, Bootstrap: a.cfg.Bootstrap, Log: a.cfg.Log,
		})
		if err != nil {
			return err
		}
	}
	p.volumes, err = volume.New(volume.Config{
		Client: a.cfg.Client, StateDir: a.path("pods"), RunDir: a.runPath("pods"), Node: a.cfg.Node, Log: a.cfg.Log,
		Mesh: func(_ context.Context, pod *corev1.Pod) (string, error) {
			if p.sockets == nil {
				return "", errors.New("this node has no mesh")
			}
			return p.sockets.Make(pod.UID)
		},
		Allocatable: func() corev1.ResourceList { return p.node.Allocatable() },
	})
	return err
}

func (a *Agent) makePods(ctx context.Context, p *parts) (err error) {
	if p.events, err = reconcile.NewRecorder(reconcile.RecorderConfig{
		Client: a.cfg.Client, Controller: "kubelet", Instance: a.cfg.Node, Log: a.cfg.Log,
	}); err != nil {
		return err
	}
	if p.status, err = status.New(ctx, status.Config{Client: a.cfg.Client, Log: a.cfg.Log}); err != nil {
		return err
	}
	probes, err := probe.New(probe.Config{Log: a.cfg.Log, Failed: func(t probe.Target, kind probe.Kind, message string) {
		pod.RecordProbe(p.events, t, kind, message)
	}})
	if err != nil {
		return err
	}
	p.pods, err = pod.New(pod.Config{
		Client: a.cfg.Client, Node: a.cfg.Node, Runtime: p.runtime, Images: a.images, Network: p.network, Volumes: p.volumes,
		Probes: probes, Status: p.status, Events: p.events, Shims: p.shims,
		Mesh:     &mesh{sockets: p.sockets, interceptor: a.cfg.Interceptor, retain: a.cfg.Retain},
		StateDir: a.path("pods"), RunDir: a.runPath("pods"), LogDir: a.path("logs"), Cgroup: a.cfg.Cgroup,
		Host: func() pod.Host { return a.host(p) },
		Sources: func(pod *corev1.Pod) container.Sources {
			return container.Sources{Services: p.services.Services(pod.Namespace), Allocatable: p.node.Allocatable()}
		},
		Log: a.cfg.Log,
	})
	return err
}

func (a *Agent) makeServer(ctx context.Context, p *parts) (err error) {
	p.server, err = exec.New(exec.Config{
		Listen: a.cfg.Listen, TLS: a.cfg.TLS, Names: a.cfg.Callers, Pods: p.pods, Healthy: a.Ready, Metrics: a.cfg.Metrics,
		Stats: func(context.Context) any { return a.summary(p) }, Log: a.cfg.Log,
	})
	if err != nil {
		return err
	}
	p.node, err = node.New(node.Config{
		Client: a.cfg.Client, Name: a.cfg.Node, Labels: a.cfg.Labels, Taints: a.cfg.Taints, IPs: a.cfg.IPs, Port: p.server.Port(),
		Ready: a.Ready, Kubelet: a.cfg.Version, Runtime: a.daemon.Version(ctx), Log: a.cfg.Log,
		Images: func(ctx context.Context) []corev1.ContainerImage { return a.imageStatus(p.runtime.Context(ctx)) },
	})
	if err != nil {
		return err
	}
	p.oci = ociHost(p.node.Machine())
	a.images.OnChange(p.node.Changed)
	return nil
}

func (a *Agent) imageStatus(ctx context.Context) []corev1.ContainerImage {
	list, err := a.images.List(ctx)
	if err != nil {
		a.cfg.Log.Info("list images", "err", err)
		return nil
	}
	var out []corev1.ContainerImage
	for _, i := range list {
		out = append(out, corev1.ContainerImage{Names: []string{i.Ref}, SizeBytes: i.Size})
	}
	return out
}

// podCIDRs waits until the node has its pod address ranges.
func (p *parts) podCIDRs(ctx context.Context) ([]netip.Prefix, error) {
	got := make(chan []netip.Prefix, 1)
	stop := p.node.Subscribe(func(e client.Event) {
		n, ok := e.Object.(*corev1.Node)
		if !ok || len(n.Spec.PodCIDRs) == 0 {
			return
		}
		var list []netip.Prefix
		for _, s := range n.Spec.PodCIDRs {
			if c, err := netip.ParsePrefix(s); err == nil {
				list = append(list, c)
			}
		}
		select {
		case got <- list:
		default:
		}
	})
	defer stop()
	select {
	case list := <-got:
		return list, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// snapshotterFor chooses how file systems are layered: overlayfs, or copies where
// the kernel or the file system cannot carry it.
func snapshotterFor(root string) string {
	dir, err := os.MkdirTemp(root, "overlay-")
	if err != nil {
		return "overlayfs"
	}
	defer os.RemoveAll(dir)
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if os.Mkdir(filepath.Join(dir, d), 0o755) != nil {
			return "overlayfs"
		}
	}
	opts := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
	if unix.Mount("overlay", filepath.Join(dir, "merged"), "overlay", 0, opts) != nil {
		return "native"
	}
	_ = unix.Unmount(filepath.Join(dir, "merged"), unix.MNT_DETACH)
	return "overlayfs"
}

// ociHost is what specs depend on of this machine.
func ociHost(m node.Machine) container.Host {
	h := container.Host{MemoryBytes: m.Memory, LowerOOM: mayLowerOOM(), Seccomp: seccompProfile}
	if d, err := ctrdoci.HostDevices(); err == nil {
		h.Devices = d
	}
	return h
}

// mayLowerOOM says whether this process has CAP_SYS_RESOURCE.
func mayLowerOOM() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&hdr, &data[0]) != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// seccompProfile reads a profile of type Localhost.
func seccompProfile(name string) (*specs.LinuxSeccomp, error) {
	if !filepath.IsLocal(name) {
		return nil, errors.New("want a path inside the directory of profiles")
	}
	b, err := os.ReadFile(filepath.Join("/var/lib/kubelet/seccomp", name))
	if err != nil {
		return nil, err
	}
	var s specs.LinuxSeccomp
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, err
	}
	return &s, nil
}
