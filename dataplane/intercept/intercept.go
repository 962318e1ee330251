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
package intercept

import (
	"errors"
	"log/slog"
	"net/netip"
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
	ExcludeOutbound      []netip.Prefix // are dialled directly
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
	cfg Config
}

// New checks the configuration and touches nothing.
func New(cfg Config) (*Interceptor, error) { return &Interceptor{cfg: cfg}, nil }

// Open loads the programs or adopts those of an earlier process.
func (i *Interceptor) Open() error { return errors.ErrUnsupported }

// Close releases file descriptors. Every pod stays intercepted.
func (i *Interceptor) Close() error { return nil }

// Prepare closes the pod to the outside until its sidecar listens. Call it when
// the network namespace exists and before the first container starts.
func (i *Interceptor) Prepare(pod Pod) error { return errors.ErrUnsupported }

// Attach puts a container under interception. Call it when the container's
// cgroup exists (task created) and before its first instruction (task started).
// cgroup is the path below the root of the v2 hierarchy, such as
// /xebec/pod<uid>/<container id>, or an absolute path in the file system.
func (i *Interceptor) Attach(uid, cgroup string, role Role) error { return errors.ErrUnsupported }

// Remove ends the interception of a pod; an unknown one is not an error.
func (i *Interceptor) Remove(uid string) error { return errors.ErrUnsupported }

// Retain removes every pod that is not in uids. Call it after a restart, when
// all pods of the node are known.
func (i *Interceptor) Retain(uids []string) error { return errors.ErrUnsupported }

// Reset removes every program and pin below pins.
func Reset(pins string) error { return errors.ErrUnsupported }
