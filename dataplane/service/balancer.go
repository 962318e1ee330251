// Package service load-balances Services in the kernel, at the socket.
//
//	in:   Services with their endpoints, whole or one at a time
//	out:  pinned BPF maps and programs on the root cgroup
//
// A connect or sendmsg to a Service's address is rewritten to a backend before
// a packet exists, so nothing is done per packet. Maps and programs outlive the
// process; the next one adopts them, compares their contents with what is
// desired, and removes nothing until it has been told the whole state once.
package service

import (
	"errors"
	"log/slog"
	"net/netip"
)

// Config says where the tables live and what they serve.
type Config struct {
	Pins   string         // directory in a bpffs, created if absent; default /sys/fs/bpf/xebec/service
	Cgroup string         // v2 cgroup whose sockets are served; default the root of the v2 hierarchy
	Ranges []netip.Prefix // Service address ranges: an address in them that nothing serves is refused
	Log    *slog.Logger
}

// Balancer is the only writer of the Service tables.
type Balancer struct {
	cfg Config
}

// New checks the configuration and touches nothing.
func New(cfg Config) (*Balancer, error) { return &Balancer{cfg: cfg}, nil }

// Open loads the programs or adopts those of an earlier process, and attaches them.
func (b *Balancer) Open() error { return errors.ErrUnsupported }

// Close releases file descriptors. The programs and tables stay in force.
func (b *Balancer) Close() error { return nil }

// Apply makes services the whole state. It may be called any number of times; a
// generation lower than one already applied is refused with ErrStale. What an
// earlier process left and services does not have is removed.
func (b *Balancer) Apply(services []Service, generation uint64) error { return errors.ErrUnsupported }

// Update adds or replaces single services; what did not change is not written.
func (b *Balancer) Update(services ...Service) error { return errors.ErrUnsupported }

// Delete removes services by Name; an unknown name is not an error.
func (b *Balancer) Delete(names ...string) error { return errors.ErrUnsupported }

// Reset detaches the programs and removes every pin below pins.
func Reset(pins string) error { return errors.ErrUnsupported }

// ErrStale says that a newer generation has been applied already.
var ErrStale = errors.New("stale generation")
