// Package conntrack reads the table of translated flows.
//
//	in:   the map that the masquerade programs write
//	out:  flows, and the expiry of those that ended
//
// The programs alone decide about live flows; this package removes what they
// would take for free anyway, so that the table holds what is going on.
package conntrack

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xebec-mesh/xebec/dataplane/bpf"
	"github.com/xebec-mesh/xebec/dataplane/bpfmap"
)

// Tuple and Translation are the map's key and value, as masquerade.c declares them.
type Tuple struct {
	Remote     bpf.Addr
	Local      bpf.Addr
	RemotePort bpf.Port
	LocalPort  bpf.Port
	Proto      uint8
	Direction  uint8 // 0 egress: Local is the pod; 1 ingress: Local is the uplink
	_          uint16
}

type Translation struct {
	Addr  bpf.Addr
	Port  bpf.Port
	Flags uint16
	Seen  uint32 // seconds since boot
}

const (
	egress  = 0
	closing = 1
)

// Table is the translated flows.
type Table = bpfmap.Map[Tuple, Translation]

// Flow is one translated flow.
type Flow struct {
	Proto   uint8
	Pod     netip.AddrPort
	Node    netip.AddrPort // what the remote sees
	Remote  netip.AddrPort
	Idle    time.Duration
	Closing bool
}

// Flows lists the table, sorted. now is the time since boot.
func Flows(t Table, now time.Duration) ([]Flow, error) {
	var out []Flow
	err := t.Range(func(k Tuple, v Translation) bool {
		if k.Direction != egress {
			return true
		}
		out = append(out, Flow{
			Proto:   k.Proto,
			Pod:     netip.AddrPortFrom(k.Local.Netip(), k.LocalPort.Host()),
			Node:    netip.AddrPortFrom(v.Addr.Netip(), v.Port.Host()),
			Remote:  netip.AddrPortFrom(k.Remote.Netip(), k.RemotePort.Host()),
			Idle:    now - time.Duration(v.Seen)*time.Second,
			Closing: v.Flags&closing != 0,
		})
		return true
	})
	slices.SortFunc(out, func(a, b Flow) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.Pod.Compare(b.Pod), a.Remote.Compare(b.Remote))
	})
	return out, err
}

// Print writes a line for each flow.
func Print(w io.Writer, flows []Flow) error {
	for _, f := range flows {
		state := ""
		if f.Closing {
			state = " closing"
		}
		if _, err := fmt.Fprintf(w, "%s %s as %s to %s idle %v%s\n", protocol(f.Proto), f.Pod, f.Node, f.Remote, f.Idle.Truncate(time.Second), state); err != nil {
			return err
		}
	}
	return nil
}

func protocol(p uint8) string {
	switch p {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		return "icmp"
	}
	return fmt.Sprint(p)
}

// idle is how long a silent flow keeps its port, as masquerade.c has it.
func idle(k Tuple, v Translation) time.Duration {
	switch {
	case v.Flags&closing != 0:
		return 10 * time.Second
	case k.Proto == unix.IPPROTO_TCP:
		return 7440 * time.Second
	case k.Proto == unix.IPPROTO_UDP:
		return 180 * time.Second
	}
	return time.Minute
}

// Expire removes entries that were silent for too long, and says how many.
func Expire(t Table, now time.Duration) (int, error) {
	return remove(t, func(k Tuple, v Translation) bool {
		return now-time.Duration(v.Seen)*time.Second > idle(k, v)
	})
}

// Forget removes every flow of a pod that is gone.
func Forget(t Table, pod netip.Addr) (int, error) {
	addr := bpf.FromAddr(pod)
	return remove(t, func(k Tuple, v Translation) bool {
		if k.Direction == egress {
			return k.Local == addr
		}
		return v.Addr == addr
	})
}

func remove(t Table, which func(Tuple, Translation) bool) (int, error) {
	var gone []Tuple
	err := t.Range(func(k Tuple, v Translation) bool {
		if which(k, v) {
			gone = append(gone, k)
		}
		return true
	})
	for _, k := range gone {
		if err := t.Delete(k); err != nil {
			return 0, err
		}
	}
	return len(gone), err
}

// SinceBoot is the clock of the table.
func SinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
