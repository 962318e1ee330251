package kernel

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// AttachCgroup attaches prog to a v2 cgroup by a link pinned at pin. A link that
// is pinned there already gets prog in place of its program; one whose cgroup is
// gone or another is replaced.
func AttachCgroup(pin, cgroup string, attach ebpf.AttachType, prog *ebpf.Program) error {
	id, err := CgroupID(cgroup)
	if err != nil {
		return err
	}
	matches := func(i *link.Info) bool { c := i.Cgroup(); return c != nil && c.CgroupId == id }
	return attachPinned(pin, prog, matches, func() (link.Link, error) {
		return link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: attach, Program: prog})
	})
}

// AttachNetNs attaches an sk_lookup program to a network namespace, given as an
// open file and its inode, by a link pinned at pin.
func AttachNetNs(pin string, ns *os.File, inode uint64, prog *ebpf.Program) error {
	matches := func(i *link.Info) bool { n := i.NetNs(); return n != nil && uint64(n.NetnsInode) == inode }
	return attachPinned(pin, prog, matches, func() (link.Link, error) {
		return link.AttachNetNs(int(ns.Fd()), prog)
	})
}

// AttachTCX attaches a tc program to an interface by a link pinned at pin. The
// error is ebpf.ErrNotSupported before Linux 6.6.
func AttachTCX(pin string, ifindex int, attach ebpf.AttachType, prog *ebpf.Program) error {
	matches := func(i *link.Info) bool { t := i.TCX(); return t != nil && int(t.Ifindex) == ifindex }
	return attachPinned(pin, prog, matches, func() (link.Link, error) {
		return link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: prog, Attach: attach})
	})
}

// attachPinned updates the link at pin if it matches the target, else makes one.
func attachPinned(pin string, prog *ebpf.Program, matches func(*link.Info) bool, attach func() (link.Link, error)) error {
	done, err := updatePinned(pin, prog, matches)
	if done || err != nil {
		return err
	}
	l, err := attach()
	if err != nil {
		return fmt.Errorf("attach %s: %w", pin, explain(err))
	}
	defer l.Close()
	if err := l.Pin(pin); err != nil {
		return fmt.Errorf("pin %s: %w", pin, err)
	}
	return nil
}

// updatePinned says whether the link at pin was there, matched, and runs prog
// now. It removes one that does not match.
func updatePinned(pin string, prog *ebpf.Program, matches func(*link.Info) bool) (bool, error) {
	l, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("adopt link %s: %w", pin, err)
	}
	defer l.Close()
	if info, err := l.Info(); err == nil && matches(info) {
		if err := l.Update(prog); err == nil {
			return true, nil
		}
	}
	if err := l.Unpin(); err != nil {
		return false, fmt.Errorf("remove stale link %s: %w", pin, err)
	}
	return false, nil
}

// UpdateLink gives the link pinned at pin a new program.
func UpdateLink(pin string, prog *ebpf.Program) error {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return fmt.Errorf("adopt link %s: %w", pin, err)
	}
	defer l.Close()
	if err := l.Update(prog); err != nil {
		return fmt.Errorf("update link %s: %w", pin, err)
	}
	return nil
}

// LinkAlive says whether the link at pin is still attached to something.
func LinkAlive(pin string) bool {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return false
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return false
	}
	switch {
	case info.Cgroup() != nil:
		return info.Cgroup().CgroupId != 0
	case info.NetNs() != nil:
		return info.NetNs().NetnsInode != 0
	case info.TCX() != nil:
		return info.TCX().Ifindex != 0
	}
	return true
}

// unpinLink removes a pin. While the link is open the pin's removal does not
// free it; closing it then does, at once, where the kernel would otherwise do so
// some time later. Pins that are no links are left alone.
func unpinLink(pin string) error {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return nil
	}
	return errors.Join(l.Unpin(), l.Close())
}
