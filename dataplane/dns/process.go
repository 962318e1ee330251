package dns

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ProcessConfig says how the DNS program runs.
type ProcessConfig struct {
	Program  string           // path of xebec-dns
	Dir      string           // snapshot, socket, pid, log; default /var/lib/xebec/dns
	Listen   []netip.AddrPort // UDP and TCP
	Domain   string           // default cluster.local
	Upstream []netip.AddrPort // default from Resolv
	Resolv   string           // default /etc/resolv.conf
	Cgroup   string           // v2 cgroup to run in; default that of this process
	Log      *slog.Logger
}

// Process runs cluster DNS as a program of its own, which survives this one.
type Process struct {
	cfg   ProcessConfig
	ready chan struct{}
	once  sync.Once

	mu       sync.Mutex
	all      bool // the whole state is known
	services map[Key]Service
	spaces   []string
	gen      uint64
	pending  map[Key]bool // changed since the last message
	full     bool         // the next message must have everything
	wake     chan struct{}
}

// NewProcess checks the configuration and starts nothing.
func NewProcess(cfg ProcessConfig) (*Process, error) {
	if cfg.Program == "" || len(cfg.Listen) == 0 {
		return nil, errors.New("configure DNS: Program and Listen are needed")
	}
	if cfg.Dir == "" {
		cfg.Dir = "/var/lib/xebec/dns"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Process{
		cfg: cfg, ready: make(chan struct{}), wake: make(chan struct{}, 1),
		services: map[Key]Service{}, pending: map[Key]bool{},
	}, nil
}

// Ready is closed when the program answers with the first full state.
func (p *Process) Ready() <-chan struct{} { return p.ready }

// Send takes an update; it never blocks. Updates that wait are merged.
func (p *Process) Send(u Update) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u.Full {
		clear(p.services)
		p.spaces, p.all, p.full = u.Namespaces, true, true
	}
	for _, key := range u.Removed {
		delete(p.services, key)
		p.pending[key] = true
	}
	for _, s := range u.Services {
		key := Key{s.Namespace, s.Name}
		p.services[key] = s
		p.pending[key] = true
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// next is the message that brings the program up to date, if there is one.
func (p *Process) next(first bool) (Update, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.all || (!first && !p.full && len(p.pending) == 0) {
		return Update{}, false
	}
	p.gen++
	u := Update{Generation: p.gen}
	if first || p.full {
		u.Full, u.Namespaces = true, p.spaces
		u.Services = slices.Collect(maps.Values(p.services))
	} else {
		for key := range p.pending {
			if s, ok := p.services[key]; ok {
				u.Services = append(u.Services, s)
			} else {
				u.Removed = append(u.Removed, key)
			}
		}
	}
	p.full = false
	clear(p.pending)
	return u, true
}

// Run starts the program or adopts a running one of the same version and
// arguments, keeps it running, and sends it updates. When ctx ends it leaves the
// program serving.
func (p *Process) Run(ctx context.Context) error {
	const first, most = 100 * time.Millisecond, 5 * time.Second
	pause := first
	for ctx.Err() == nil {
		began := time.Now()
		if err := p.session(ctx); err != nil && ctx.Err() == nil {
			p.cfg.Log.Warn("cluster DNS", "err", err)
		}
		if time.Since(began) > most {
			pause = first
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
			pause = min(2*pause, most)
		}
	}
	return ctx.Err()
}

// session feeds one program until the connection ends.
func (p *Process) session(ctx context.Context) error {
	c, err := p.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	gone := make(chan error, 1)
	acks := json.NewDecoder(c)
	go func() {
		for {
			var a ack
			if err := acks.Decode(&a); err != nil {
				gone <- fmt.Errorf("the DNS program went away: %w", err)
				return
			}
			p.once.Do(func() { close(p.ready) })
		}
	}()
	out := json.NewEncoder(c)
	for first := true; ; {
		if u, ok := p.next(first); ok {
			first = false
			if err := out.Encode(u); err != nil {
				p.again()
				return fmt.Errorf("send records: %w", err)
			}
		}
		select {
		case err := <-gone:
			p.again()
			return err
		case <-p.wake:
		}
	}
}

func (p *Process) again() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.full = true
}

// connect adopts the program that runs, or starts one and ends the other.
func (p *Process) connect(ctx context.Context) (net.Conn, error) {
	args, print, err := p.command()
	if err != nil {
		return nil, err
	}
	old, h, err := dial(p.cfg.Dir)
	if err == nil && h.Fingerprint == print {
		p.cfg.Log.Info("cluster DNS adopted", "pid", h.PID)
		return old, nil
	}
	if err := p.start(args); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.cfg.Program, err)
	}
	c, err := p.await(ctx, print)
	if old != nil {
		old.Close()
		if err == nil {
			_ = syscall.Kill(h.PID, syscall.SIGTERM)
		}
	}
	return c, err
}

// await waits until the program that was started takes connections.
func (p *Process) await(ctx context.Context, print string) (net.Conn, error) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		c, h, err := dial(p.cfg.Dir)
		if err == nil && h.Fingerprint == print {
			p.cfg.Log.Info("cluster DNS started", "pid", h.PID)
			return c, nil
		}
		if err == nil {
			c.Close()
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("the DNS program does not answer; its log is %s: %w", filepath.Join(p.cfg.Dir, logFile), err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func dial(dir string) (net.Conn, hello, error) {
	c, err := net.DialTimeout("unix", filepath.Join(dir, socketFile), time.Second)
	if err != nil {
		return nil, hello{}, err
	}
	var h hello
	// One byte at a time, so that nothing after the greeting is taken.
	line := make([]byte, 0, 128)
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	for b := make([]byte, 1); len(line) < 4096; {
		if _, err := c.Read(b); err != nil {
			c.Close()
			return nil, h, err
		}
		if b[0] == '\n' {
			break
		}
		line = append(line, b[0])
	}
	_ = c.SetReadDeadline(time.Time{})
	if err := json.Unmarshal(line, &h); err != nil {
		c.Close()
		return nil, h, err
	}
	return c, h, nil
}

// command is the program's arguments, and a fingerprint of them and of the program.
func (p *Process) command() (args []string, print string, err error) {
	info, err := os.Stat(p.cfg.Program)
	if err != nil {
		return nil, "", fmt.Errorf("find the DNS program: %w", err)
	}
	args = []string{"--dir", p.cfg.Dir}
	for _, a := range p.cfg.Listen {
		args = append(args, "--listen", a.String())
	}
	for _, a := range p.cfg.Upstream {
		args = append(args, "--upstream", a.String())
	}
	if p.cfg.Domain != "" {
		args = append(args, "--domain", p.cfg.Domain)
	}
	if p.cfg.Resolv != "" {
		args = append(args, "--resolv", p.cfg.Resolv)
	}
	sum := sha256.Sum256([]byte(strings.Join(args, "\x00") + info.ModTime().String() + strconv.FormatInt(info.Size(), 10)))
	print = hex.EncodeToString(sum[:8])
	return append(args, "--fingerprint", print), print, nil
}

// start runs the program in a session of its own, so that it survives this process.
func (p *Process) start(args []string) error {
	if err := os.MkdirAll(p.cfg.Dir, 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(p.cfg.Dir, logFile), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.cfg.Program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "GOGC=50", "GOMAXPROCS=2")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if p.cfg.Cgroup != "" {
		dir, err := os.Open(p.cfg.Cgroup)
		if err != nil {
			return err
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // only to reap it; the connection says that it went away
	return nil
}

// Reset ends a running program and removes dir.
func Reset(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, pidFile))
	if err == nil {
		pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err == nil && program(pid) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("end DNS program %d: %w", pid, err)
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(dir)
}

// program says whether a process is a DNS program, since a pid may be another's by now.
func program(pid int) bool {
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	name, _, _ := strings.Cut(string(command), "\x00")
	return err == nil && filepath.Base(name) == "xebec-dns"
}
