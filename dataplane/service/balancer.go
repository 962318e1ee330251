// Package service load-balances Services in the kernel, at the socket.
//
//	in:   Services with their endpoints, whole or one at a time
//	out:  pinned BPF maps and programs on the root cgroup
//
// A connect or sendmsg to a Service's address is rewritten to a backend before
// a packet exists, so nothing is done per packet. Maps and programs outlive the
// process; the next one adopts them, compares their contents with what is
// desired, and removes nothing until it has been told the whole state once.
//
// For a meshed pod the interception's program runs first, since it sits on a
// cgroup further down; this one then sees the sidecar's loopback address, which
// is no Service's, and leaves it.
package service

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/xebec-mesh/xebec/dataplane/bpf"
	"github.com/xebec-mesh/xebec/dataplane/bpfmap"
	"github.com/xebec-mesh/xebec/dataplane/kernel"
)

// Config says where the tables live and what they serve.
type Config struct {
	Pins   string         // directory in a bpffs, created if absent; default /sys/fs/bpf/xebec/service
	Cgroup string         // v2 cgroup whose sockets are served; default the root of the v2 hierarchy
	Ranges []netip.Prefix // Service address ranges, at most 4: an address in them that nothing serves is refused
	Log    *slog.Logger
}

// ErrStale says that a newer generation has been applied already.
var ErrStale = errors.New("stale generation")

// Balancer is the only writer of the Service tables.
type Balancer struct {
	cfg     Config
	objects bpf.ServiceObjects

	mu         sync.Mutex
	tables     tables
	entries    map[vip]*entry
	owners     map[string][]vip // by Service name
	owner      map[vip]string
	stray      Plan // left by an earlier process, removed with the first full state
	nextID     uint32
	generation uint64

	departed chan struct{} // wakes Run: UDP backends are gone
}

// New checks the configuration and touches nothing.
func New(cfg Config) (*Balancer, error) {
	if cfg.Pins == "" {
		cfg.Pins = filepath.Join(kernel.Pins, "service")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if len(cfg.Ranges) > 4 {
		return nil, fmt.Errorf("configure services: %d address ranges: at most 4 are served", len(cfg.Ranges))
	}
	return &Balancer{cfg: cfg, owners: map[string][]vip{}, owner: map[vip]string{}, departed: make(chan struct{}, 1)}, nil
}

// Open loads the programs or adopts the tables of an earlier process, and
// attaches the programs.
func (b *Balancer) Open() error {
	spec, err := bpf.LoadService()
	if err != nil {
		return fmt.Errorf("read service programs: %w", err)
	}
	adopted, err := kernel.Load(spec, &b.objects, b.cfg.Pins)
	if err != nil {
		return fmt.Errorf("open services: %w", err)
	}
	o := &b.objects
	if err := o.ServiceRanges.Put(uint32(0), makeRanges(b.cfg.Ranges)); err != nil {
		return fmt.Errorf("open services: write address ranges: %w", err)
	}
	err = b.adopt(tables{
		services: bpfmap.NewKernel[vip, svc](o.Services),
		backends: bpfmap.NewKernel[slot, backend](o.Backends),
		members:  bpfmap.NewKernel[member, uint32](o.Members),
	})
	if err != nil {
		return fmt.Errorf("open services: %w", err)
	}
	if err := b.attach(); err != nil {
		return fmt.Errorf("open services: %w", err)
	}
	b.cfg.Log.Info("services ready", "adopted", adopted, "frontends", len(b.entries))
	return nil
}

// adopt takes over what tables hold.
func (b *Balancer) adopt(t tables) error {
	c, err := t.read()
	if err != nil {
		return fmt.Errorf("adopt tables: %w", err)
	}
	b.tables, b.entries, b.stray, b.nextID = t, c.entries, c.stray, c.lastID+1
	return nil
}

func (b *Balancer) attach() error {
	cgroup := b.cfg.Cgroup
	if cgroup == "" {
		cgroup = "/"
	}
	path, err := kernel.Cgroup(cgroup)
	if err != nil {
		return err
	}
	o := &b.objects
	for _, h := range []struct {
		name   string
		attach ebpf.AttachType
		prog   *ebpf.Program
	}{
		// What translates answers comes before what makes them necessary.
		{"recvmsg4", ebpf.AttachCGroupUDP4Recvmsg, o.ServiceRecvmsg4},
		{"recvmsg6", ebpf.AttachCGroupUDP6Recvmsg, o.ServiceRecvmsg6},
		{"getpeername4", ebpf.AttachCgroupInet4GetPeername, o.ServiceGetpeername4},
		{"getpeername6", ebpf.AttachCgroupInet6GetPeername, o.ServiceGetpeername6},
		{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg, o.ServiceSendmsg4},
		{"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg, o.ServiceSendmsg6},
		{"connect4", ebpf.AttachCGroupInet4Connect, o.ServiceConnect4},
		{"connect6", ebpf.AttachCGroupInet6Connect, o.ServiceConnect6},
	} {
		if err := kernel.AttachCgroup(filepath.Join(b.cfg.Pins, "link_"+h.name), path, h.attach, h.prog); err != nil {
			return err
		}
	}
	return nil
}

// Close releases file descriptors. The programs and tables stay in force.
func (b *Balancer) Close() error { return b.objects.Close() }

// Apply makes services the whole state. It may be called any number of times; a
// generation lower than one already applied is refused with ErrStale. What an
// earlier process left and services does not have is removed.
func (b *Balancer) Apply(services []Service, generation uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if generation < b.generation {
		return fmt.Errorf("apply services of generation %d after %d: %w", generation, b.generation, ErrStale)
	}
	b.generation = generation
	keep := make(map[string]bool, len(services))
	for _, s := range services {
		keep[s.Name] = true
		if err := b.update(s); err != nil {
			return err
		}
	}
	return b.prune(keep)
}

// prune removes what no service in keep owns. Vips without an owner were left by
// an earlier process.
func (b *Balancer) prune(keep map[string]bool) error {
	for v := range b.entries {
		if name, ok := b.owner[v]; !ok || !keep[name] {
			if err := b.remove(v); err != nil {
				return err
			}
		}
	}
	for name := range b.owners {
		if !keep[name] {
			delete(b.owners, name)
		}
	}
	if err := b.tables.apply(b.stray); err != nil {
		return fmt.Errorf("remove stray entries: %w", err)
	}
	b.stray = Plan{}
	return nil
}

// Update adds or replaces single services; what did not change is not written.
func (b *Balancer) Update(services ...Service) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range services {
		if err := b.update(s); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes services by Name; an unknown name is not an error.
func (b *Balancer) Delete(names ...string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, name := range names {
		for _, v := range b.owners[name] {
			if err := b.remove(v); err != nil {
				return fmt.Errorf("delete service %s: %w", name, err)
			}
		}
		delete(b.owners, name)
	}
	return nil
}

func (b *Balancer) update(s Service) error {
	var vips []vip
	wanted := map[vip]bool{}
	for _, f := range frontends(s) {
		if owner, ok := b.owner[f.vip]; ok && owner != s.Name {
			b.cfg.Log.Warn("address and port are served for another service", "service", s.Name, "owner", owner, "address", f.vip.addrPort())
			continue
		}
		vips = append(vips, f.vip)
		wanted[f.vip] = true
		b.owner[f.vip] = s.Name
		if err := b.set(&f); err != nil {
			return fmt.Errorf("update service %s: %w", s.Name, err)
		}
	}
	for _, v := range b.owners[s.Name] {
		if !wanted[v] {
			if err := b.remove(v); err != nil {
				return fmt.Errorf("update service %s: %w", s.Name, err)
			}
		}
	}
	b.owners[s.Name] = vips
	return nil
}

// set makes one frontend so. After an error the entry is dirty: the next try
// writes all of it.
func (b *Balancer) set(f *frontend) error {
	have := b.entries[f.vip]
	plan, next := compute(have, f, b.nextID)
	if have == nil {
		b.nextID++
	}
	if plan.Len() == 0 {
		return nil
	}
	err := b.tables.apply(plan)
	if err != nil {
		next.dirty = true
		if have != nil && len(have.slots) > len(next.slots) {
			next.slots = have.slots // so that the next try removes the tail
		}
	}
	b.entries[f.vip] = next
	b.noteDeparted(f.vip, plan)
	return err
}

func (b *Balancer) remove(v vip) error {
	if e := b.entries[v]; e != nil {
		plan := remove(v, e)
		if err := b.tables.apply(plan); err != nil {
			return err
		}
		b.noteDeparted(v, plan)
	}
	delete(b.entries, v)
	delete(b.owner, v)
	return nil
}

// Reset detaches the programs and removes every pin below pins; "" is the default.
func Reset(pins string) error {
	if pins == "" {
		pins = filepath.Join(kernel.Pins, "service")
	}
	return kernel.Unpin(pins)
}
