// Package shim starts the programs that stand between containerd and containers,
// before anybody waits for one.
//
//	in:   the shim program, a directory for sockets
//	out:  addresses of shims that serve, one for each pod
//
// containerd would start a shim when the first container of a pod is created, by
// way of a helper process, while everything else waits. Here one is always ready:
// taking it costs nothing, and the next is started behind it. A shim that is given
// out belongs to its pod; it lives until it is ended, also without this process.
package shim

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
)

// Config says how shims are started.
type Config struct {
	Program    string // absolute path of containerd-shim-xebec-v2
	Dir        string // for their sockets; at most 80 bytes
	Namespace  string // of containerd
	Containerd string // address of its socket; events go to that with .ttrpc
	Cgroup     string // where they go in every hierarchy; "" leaves them with this process
	Log        *slog.Logger
}

// Pool starts shims and keeps one ready.
type Pool struct {
	cfg   Config
	spare chan result
}

type result struct {
	shim *Shim
	err  error
}

// Shim is one shim that serves.
type Shim struct {
	Address string // as containerd knows it: ttrpc+unix:///…
}

// New checks the configuration.
func New(cfg Config) (*Pool, error) {
	if cfg.Program == "" || cfg.Dir == "" || cfg.Containerd == "" {
		return nil, errors.New("configure shims: Program, Dir and Containerd are needed")
	}
	if len(cfg.Dir) > 80 {
		return nil, fmt.Errorf("configure shims: directory %s: its name is too long for Unix sockets below it", cfg.Dir)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Pool{cfg: cfg, spare: make(chan result)}, nil
}

// Run ends the shims that belong to no pod, which a former agent had ready, and
// keeps one ready until ctx ends. used are the addresses that pods have.
func (p *Pool) Run(ctx context.Context, used []string) error {
	if err := os.MkdirAll(p.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("make directory of shims: %w", err)
	}
	p.sweep(ctx, used)
	for ctx.Err() == nil {
		s, err := p.start()
		select {
		case p.spare <- result{s, err}:
		case <-ctx.Done():
			if err == nil {
				End(s.Address)
			}
		}
		if err != nil {
			select { // whoever takes the error tells it; do not spin
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// Take returns a shim for a pod, at once if one is ready.
func (p *Pool) Take(ctx context.Context) (*Shim, error) {
	select {
	case r := <-p.spare:
		return r.shim, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("take a shim: %w", ctx.Err())
	}
}

func (p *Pool) sweep(ctx context.Context, used []string) {
	known := map[string]bool{}
	for _, a := range used {
		known[path(a)] = true
	}
	entries, err := os.ReadDir(p.cfg.Dir)
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	for _, e := range entries {
		sock := filepath.Join(p.cfg.Dir, e.Name())
		if e.Type()&fs.ModeSocket == 0 || known[sock] || ctx.Err() != nil {
			continue
		}
		wg.Go(func() { end(sock, false) })
	}
	wg.Wait()
}

const prefix = "ttrpc+unix://"

func path(address string) string { return strings.TrimPrefix(address, prefix) }

// start starts one. Its socket listens before it runs: who connects early waits.
func (p *Pool) start() (_ *Shim, err error) {
	var b [6]byte
	_, _ = rand.Read(b[:])
	id := hex.EncodeToString(b[:])
	sock := filepath.Join(p.cfg.Dir, id)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("start shim: %w", err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	f, err := l.File()
	if err != nil {
		return nil, fmt.Errorf("start shim: %w", err)
	}
	defer f.Close()
	cmd := exec.Command(p.cfg.Program, "-namespace", p.cfg.Namespace, "-id", id, "-address", p.cfg.Containerd)
	cmd.Dir = p.cfg.Dir
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2", "GOMEMLIMIT=24MiB", "TTRPC_ADDRESS="+p.cfg.Containerd+".ttrpc", "XEBEC_SHIM_SOCKET="+sock)
	cmd.ExtraFiles = []*os.File{f}
	if log, err := os.OpenFile(filepath.Join(p.cfg.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
		cmd.Stderr = log // where a shim that panics says why
		defer log.Close()
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		_ = os.Remove(sock)
		return nil, fmt.Errorf("start shim: %w", err)
	}
	go func() { _ = cmd.Wait() }()
	if p.cfg.Cgroup != "" {
		joinCgroup(p.cfg.Cgroup, cmd.Process.Pid)
	}
	return &Shim{Address: prefix + sock}, nil
}

// End ends a shim. One that is gone is not an error.
func End(address string) { end(path(address), true) }

// Alive says whether a shim serves.
func Alive(address string) bool {
	conn, err := net.DialTimeout("unix", path(address), time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// end ends a shim, without now only if it has no container.
func end(sock string, now bool) {
	conn, err := net.DialTimeout("unix", sock, time.Second)
	if err != nil {
		_ = os.Remove(sock)
		return
	}
	c := ttrpc.NewClient(conn)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, _ = taskapi.NewTTRPCTaskClient(c).Shutdown(ctx, &taskapi.ShutdownRequest{Now: now})
}

// joinCgroup moves a process into the cgroup of that path in every hierarchy that
// is mounted. Where it cannot, the process stays where it was started.
func joinCgroup(path string, pid int) {
	const root = "/sys/fs/cgroup"
	procs := []byte(strconv.Itoa(pid))
	join := func(hierarchy string) {
		dir := filepath.Join(hierarchy, path)
		if os.MkdirAll(dir, 0o755) == nil {
			_ = os.WriteFile(filepath.Join(dir, "cgroup.procs"), procs, 0)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err == nil {
		join(root)
		return
	}
	hierarchies, _ := filepath.Glob(root + "/*/cgroup.procs")
	for _, h := range hierarchies {
		if filepath.Base(filepath.Dir(h)) != "cpuset" { // a new cpuset has no CPUs
			join(filepath.Dir(h))
		}
	}
}
