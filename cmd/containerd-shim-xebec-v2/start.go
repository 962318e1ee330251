package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
)

// groupAnnotation names the pod: its containers share one shim.
const groupAnnotation = "io.kubernetes.cri.sandbox-id"

// starter starts the serving shim in a session and a cgroup of its own, so that
// neither a closed terminal nor a service manager that kills xebec's cgroup takes
// the pods along.
type starter struct{ shim.Shim }

// Start gives containerd the address of the pod's shim and starts it if it is not
// there. It runs in the directory of the container's bundle.
func (s starter) Start(ctx context.Context, p *bootapi.BootstrapParams) (*bootapi.BootstrapResult, error) {
	group, err := readGroup("config.json")
	if err != nil {
		return nil, fmt.Errorf("read the bundle's annotations: %w", err)
	}
	if group == "" {
		group = p.GetInstanceID()
	}
	dir := p.GetSocketDir()
	if dir == "" {
		dir = filepath.Join(defaults.DefaultStateDir, "s")
	}
	address, err := shim.CreateSocketAddress(ctx, dir, p.GetContainerdGrpcAddress(), group, false)
	if err != nil {
		return nil, err
	}
	result := &bootapi.BootstrapResult{Version: 3, Protocol: "ttrpc", Address: address}
	l, err := listen(address)
	if l == nil || err != nil {
		return result, err
	}
	defer l.Close()
	if err := os.WriteFile("address", []byte(address), 0o600); err != nil {
		return nil, err
	}
	var opts options.Options
	if _, err := p.FindExtension(&opts); err != nil {
		return nil, fmt.Errorf("read runc options: %w", err)
	}
	if err := serve(ctx, p, l, opts.GetShimCgroup()); err != nil {
		_ = shim.RemoveSocket(address)
		return nil, fmt.Errorf("start shim: %w", err)
	}
	return result, nil
}

// listen makes the socket, or returns none where a shim serves it already.
func listen(address string) (*net.UnixListener, error) {
	l, err := shim.NewSocket(address)
	if err == nil {
		l.SetUnlinkOnClose(false)
		return l, nil
	}
	if !shim.SocketEaddrinuse(err) {
		return nil, fmt.Errorf("create shim socket: %w", err)
	}
	if shim.CanConnect(address) {
		return nil, nil
	}
	if err := shim.RemoveSocket(address); err != nil {
		return nil, fmt.Errorf("remove the socket of a dead shim: %w", err)
	}
	if l, err = shim.NewSocket(address); err != nil {
		return nil, fmt.Errorf("create shim socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	return l, nil
}

func serve(ctx context.Context, p *bootapi.BootstrapParams, l *net.UnixListener, cgroup string) error {
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	sock, err := l.File()
	if err != nil {
		return err
	}
	defer sock.Close()
	args := []string{"-namespace", ns, "-id", p.GetInstanceID(), "-address", p.GetContainerdGrpcAddress()}
	if p.GetLogLevel() <= bootapi.LogLevel_LOG_LEVEL_DEBUG {
		args = append(args, "-debug")
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2", "GOMEMLIMIT=24MiB")
	cmd.ExtraFiles = []*os.File{sock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	if cgroup != "" {
		joinCgroup(cgroup, cmd.Process.Pid)
	}
	_ = shim.AdjustOOMScore(cmd.Process.Pid) // needs a capability that may be missing; the default will do
	return cmd.Process.Release()
}

// joinCgroup moves a process into the cgroup of that path in every hierarchy that
// is mounted. Where it cannot, the process stays where xebec was started.
func joinCgroup(path string, pid int) {
	const root = "/sys/fs/cgroup"
	procs := []byte(strconv.Itoa(pid))
	join := func(hierarchy string) error {
		dir := filepath.Join(hierarchy, path)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, "cgroup.procs"), procs, 0)
	}
	if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err == nil {
		_ = join(root)
		return
	}
	hierarchies, _ := filepath.Glob(root + "/*/cgroup.procs")
	for _, h := range hierarchies {
		if filepath.Base(filepath.Dir(h)) != "cpuset" { // a new cpuset has no CPUs
			_ = join(filepath.Dir(h))
		}
	}
}

func readGroup(config string) (string, error) {
	b, err := os.ReadFile(config)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var spec struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(b, &spec); err != nil {
		return "", err
	}
	return spec.Annotations[groupAnnotation], nil
}
