// Package intercept puts a pod's sidecar between its application and the world.
//
//	in:   meshed pods (network namespace, ports, exclusions) and their containers' cgroups
//	out:  pinned BPF programs: on the cgroups for what leaves, in the network namespace for what arrives
//
// Prepare closes the pod: from then on nothing from outside reaches the
// application except through the sidecar's inbound listener, and while no such
// listener exists, nothing at all. Whether a process is the application or the
// sidecar is decided by its cgroup and by nothing else. Everything is pinned
// and outlives the process; every call is idempotent.
//
// What the sidecar must do for this to hold: listen on 127.0.0.1 and, for IPv6,
// on ::1 at OutboundPort; listen at InboundPort on wildcard addresses (one
// socket on :: for both families, or one each), not with MPTCP; and connect to
// the application from a loopback address, 127.0.0.6 or ::1.
package intercept

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/xebec-mesh/xebec/dataplane/bpf"
	"github.com/xebec-mesh/xebec/dataplane/bpfmap"
	"github.com/xebec-mesh/xebec/dataplane/kernel"
)

// Config says where the programs live.
type Config struct {
	Pins string // directory in a bpffs, created if absent; default /sys/fs/bpf/xebec/intercept
	Log  *slog.Logger
}

// Pod is a meshed pod.
type Pod struct {
	UID   string
	NetNS string // path, such as /run/netns/…

	OutboundPort uint16 // where the sidecar accepts what the application dials; default 15001
	InboundPort  uint16 // where the sidecar accepts what others dial; default 15006

	ExcludeInboundPorts  []uint16       // reach the application directly
	ExcludeOutboundPorts []uint16       // are dialled directly
	ExcludeOutbound      []netip.Prefix // are dialled directly; the longest prefix decides
	IncludeOutbound      []netip.Prefix // if any: all else is dialled directly
}

// Role says whose cgroup is attached.
type Role uint8

const (
	App Role = iota + 1
	Sidecar
)

// Interceptor is the only writer of the interception tables.
type Interceptor struct {
	cfg     Config
	objects bpf.InterceptObjects
	hooks   map[string]hook
	tables  tables

	mu sync.Mutex
}

// hook is a program on a container's cgroup.
type hook struct {
	attach ebpf.AttachType
	prog   *ebpf.Program
}

var hooksOf = map[Role][]string{
	// What remembers comes before what redirects.
	App:     {"app", "getpeername4", "getpeername6", "connect4", "connect6"},
	Sidecar: {"getsockopt", "sidecar"},
}

// tables are the maps that user space writes.
type tables struct {
	pods     bpfmap.Map[uint64, podValue]
	ports    bpfmap.Map[portKey, uint8]
	prefixes bpfmap.Map[prefixKey, uint8]
}

// New checks the configuration and touches nothing.
func New(cfg Config) (*Interceptor, error) {
	if cfg.Pins == "" {
		cfg.Pins = filepath.Join(kernel.Pins, "intercept")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Interceptor{cfg: cfg}, nil
}

// Open loads the programs or adopts those of an earlier process.
func (i *Interceptor) Open() error {
	spec, err := bpf.LoadIntercept()
	if err != nil {
		return fmt.Errorf("read interception programs: %w", err)
	}
	if _, err := kernel.Load(spec, &i.objects, i.cfg.Pins); err != nil {
		return fmt.Errorf("open interception: %w", err)
	}
	o := &i.objects
	i.hooks = map[string]hook{
		"app":          {ebpf.AttachCGroupSockOps, o.InterceptApp},
		"connect4":     {ebpf.AttachCGroupInet4Connect, o.InterceptConnect4},
		"connect6":     {ebpf.AttachCGroupInet6Connect, o.InterceptConnect6},
		"getpeername4": {ebpf.AttachCgroupInet4GetPeername, o.InterceptGetpeername4},
		"getpeername6": {ebpf.AttachCgroupInet6GetPeername, o.InterceptGetpeername6},
		"getsockopt":   {ebpf.AttachCGroupGetsockopt, o.InterceptGetsockopt},
		"sidecar":      {ebpf.AttachCGroupSockOps, o.InterceptSidecar},
	}
	i.tables = tables{
		pods:     bpfmap.NewKernel[uint64, podValue](o.Pods),
		ports:    bpfmap.NewKernel[portKey, uint8](o.Ports),
		prefixes: bpfmap.NewKernel[prefixKey, uint8](o.Prefixes),
	}
	if err := os.MkdirAll(filepath.Join(i.cfg.Pins, "links"), 0o700); err != nil {
		return fmt.Errorf("open interception: %w", err)
	}
	pods, err := i.adopt()
	if err != nil {
		return fmt.Errorf("open interception: %w", err)
	}
	i.cfg.Log.Info("interception ready", "adopted", pods)
	return nil
}

// Close releases file descriptors. Every pod stays intercepted.
func (i *Interceptor) Close() error { return i.objects.Close() }

// adopt gives every pinned link this process's programs, in case they are newer.
func (i *Interceptor) adopt() (pods int, err error) {
	dirs, err := filepath.Glob(filepath.Join(i.cfg.Pins, "links", "*", "*"))
	if err != nil {
		return 0, err
	}
	for _, dir := range dirs {
		cookie, err := strconv.ParseUint(filepath.Base(dir), 16, 64)
		if err != nil {
			return 0, fmt.Errorf("adopt %s: %w", dir, err)
		}
		if err := i.adoptPod(dir, cookie); err != nil {
			return 0, err
		}
	}
	return len(dirs), nil
}

func (i *Interceptor) adoptPod(dir string, cookie uint64) error {
	pins, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("adopt %s: %w", dir, err)
	}
	for _, pin := range pins {
		path := filepath.Join(dir, pin.Name())
		prog := i.hooks[hookOf(pin.Name())].prog
		if pin.Name() == lookupPin {
			lookup, err := i.loadLookup(cookie)
			if err != nil {
				return err
			}
			defer lookup.Close()
			prog = lookup
		}
		if prog == nil || !kernel.LinkAlive(path) {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("remove dead link: %w", err)
			}
			continue
		}
		if err := kernel.UpdateLink(path, prog); err != nil {
			return err
		}
	}
	return nil
}

// loadLookup loads the socket lookup of one network namespace.
func (i *Interceptor) loadLookup(cookie uint64) (*ebpf.Program, error) {
	spec, err := bpf.LoadLookup()
	if err != nil {
		return nil, fmt.Errorf("read lookup program: %w", err)
	}
	if err := spec.Variables["netns"].Set(cookie); err != nil {
		return nil, fmt.Errorf("set lookup program's network namespace: %w", err)
	}
	var programs bpf.LookupPrograms
	opts := &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		"listeners": i.objects.Listeners, "ports": i.objects.Ports,
	}}
	if err := spec.LoadAndAssign(&programs, opts); err != nil {
		return nil, fmt.Errorf("load lookup program: %w", err)
	}
	return programs.InterceptLookup, nil
}

// Prepare closes the pod to the outside until its sidecar listens. Call it when
// the network namespace exists and before the first container starts. A pod
// that was prepared gets new rules; with another network namespace it starts anew.
func (i *Interceptor) Prepare(pod Pod) error {
	if err := pod.check(); err != nil {
		return fmt.Errorf("prepare interception: %w", err)
	}
	ns, err := openNetNS(pod.NetNS)
	if err != nil {
		return fmt.Errorf("prepare interception of pod %s: %w", pod.UID, err)
	}
	defer ns.file.Close()
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.prepare(pod, ns); err != nil {
		return fmt.Errorf("prepare interception of pod %s: %w", pod.UID, err)
	}
	return nil
}

func (i *Interceptor) prepare(pod Pod, ns *netns) error {
	if err := i.forget(pod.UID, ns.cookie); err != nil {
		return err
	}
	if err := i.setRules(makeRules(pod, ns.cookie), ns.cookie); err != nil {
		return err
	}
	dir := netnsDir(i.cfg.Pins, pod.UID, ns.cookie)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	pin := filepath.Join(dir, lookupPin)
	if kernel.LinkAlive(pin) {
		return nil // Open gave it this process's program
	}
	lookup, err := i.loadLookup(ns.cookie)
	if err != nil {
		return err
	}
	defer lookup.Close()
	return kernel.AttachNetNs(pin, ns.file, ns.inode, lookup)
}

// setRules writes what is new before it removes what is old.
func (i *Interceptor) setRules(r rules, cookie uint64) error {
	for k, v := range r.ports {
		if err := i.tables.ports.Put(k, v); err != nil {
			return err
		}
	}
	for k, v := range r.prefixes {
		if err := i.tables.prefixes.Put(k, v); err != nil {
			return err
		}
	}
	if err := i.tables.pods.Put(cookie, r.pod); err != nil {
		return err
	}
	return i.pruneRules(r, cookie)
}

// pruneRules removes what the tables hold for cookie beyond r.
func (i *Interceptor) pruneRules(r rules, cookie uint64) error {
	var ports []portKey
	var prefixes []prefixKey
	err := errors.Join(
		i.tables.ports.Range(func(k portKey, _ uint8) bool {
			if _, ok := r.ports[k]; !ok && k.NetNS == cookie {
				ports = append(ports, k)
			}
			return true
		}),
		i.tables.prefixes.Range(func(k prefixKey, _ uint8) bool {
			if _, ok := r.prefixes[k]; !ok && k.NetNS == inMemory(cookie) {
				prefixes = append(prefixes, k)
			}
			return true
		}))
	for _, k := range ports {
		err = errors.Join(err, i.tables.ports.Delete(k))
	}
	for _, k := range prefixes {
		err = errors.Join(err, i.tables.prefixes.Delete(k))
	}
	return err
}

// Attach puts a container under interception. Call it when the container's
// cgroup exists (task created) and before its first instruction (task started).
// cgroup is the path below the root of the v2 hierarchy, such as
// /xebec/pod<uid>/<container id>, or an absolute path in the file system.
func (i *Interceptor) Attach(uid, cgroup string, role Role) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.attach(uid, cgroup, role); err != nil {
		return fmt.Errorf("intercept container %s of pod %s: %w", cgroup, uid, err)
	}
	return nil
}

func (i *Interceptor) attach(uid, cgroup string, role Role) error {
	dirs, err := filepath.Glob(filepath.Join(podDir(i.cfg.Pins, uid), "*"))
	if err != nil || len(dirs) != 1 {
		return errors.Join(errors.New("the pod has not been prepared"), err)
	}
	path, err := kernel.Cgroup(cgroup)
	if err != nil {
		return err
	}
	id, err := kernel.CgroupID(path)
	if err != nil {
		return err
	}
	if err := removeDead(dirs[0]); err != nil {
		return err
	}
	for _, name := range hooksOf[role] {
		h := i.hooks[name]
		if err := kernel.AttachCgroup(filepath.Join(dirs[0], hookPin(id, name)), path, h.attach, h.prog); err != nil {
			return err
		}
	}
	return nil
}

// removeDead unpins links of containers that are gone.
func removeDead(dir string) error {
	pins, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, pin := range pins {
		path := filepath.Join(dir, pin.Name())
		if pin.Name() == lookupPin || kernel.LinkAlive(path) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove dead link: %w", err)
		}
	}
	return nil
}

// Remove ends the interception of a pod; an unknown one is not an error. Call it
// when its containers have ended.
func (i *Interceptor) Remove(uid string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.forget(uid, 0); err != nil {
		return fmt.Errorf("end interception of pod %s: %w", uid, err)
	}
	return nil
}

// forget removes everything of a pod except what belongs to the network
// namespace keep; 0 keeps nothing.
func (i *Interceptor) forget(uid string, keep uint64) error {
	if uid == "" {
		return nil
	}
	dirs, err := filepath.Glob(filepath.Join(podDir(i.cfg.Pins, uid), "*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		cookie, err := strconv.ParseUint(filepath.Base(dir), 16, 64)
		if err != nil || cookie == keep {
			continue
		}
		if err := kernel.Unpin(dir); err != nil {
			return err
		}
		if err := errors.Join(i.tables.pods.Delete(cookie), i.pruneRules(rules{}, cookie)); err != nil {
			return err
		}
	}
	if keep != 0 {
		return nil
	}
	return kernel.Unpin(podDir(i.cfg.Pins, uid))
}

// Retain removes every pod that is not in uids. Call it after a restart, when
// all pods of the node are known.
func (i *Interceptor) Retain(uids []string) error {
	keep := make(map[string]bool, len(uids))
	for _, uid := range uids {
		keep[uid] = true
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	pods, err := os.ReadDir(filepath.Join(i.cfg.Pins, "links"))
	if err != nil {
		return fmt.Errorf("list intercepted pods: %w", err)
	}
	for _, pod := range pods {
		if !keep[pod.Name()] {
			err = errors.Join(err, i.forget(pod.Name(), 0))
		}
	}
	if err != nil {
		return fmt.Errorf("end interception of pods that are gone: %w", err)
	}
	return nil
}

// Reset removes every program and pin below pins; "" is the default.
func Reset(pins string) error {
	if pins == "" {
		pins = filepath.Join(kernel.Pins, "intercept")
	}
	return kernel.Unpin(pins)
}
