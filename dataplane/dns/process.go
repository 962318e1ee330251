package dns

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
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
	cfg ProcessConfig
}

// NewProcess checks the configuration and starts nothing.
func NewProcess(cfg ProcessConfig) (*Process, error) { return &Process{cfg: cfg}, nil }

// Run starts the program or adopts a running one of the same version and
// arguments, keeps it running, and sends it updates. When ctx ends it leaves the
// program serving.
func (p *Process) Run(ctx context.Context) error { return errors.ErrUnsupported }

// Send takes an update; it never blocks. Updates that wait are merged.
func (p *Process) Send(u Update) {}

// Ready is closed when the program answers with the first full state.
func (p *Process) Ready() <-chan struct{} { return nil }

// Reset ends a running program and removes dir.
func Reset(dir string) error { return errors.ErrUnsupported }
