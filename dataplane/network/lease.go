package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A lease is one attachment's claim on an index in the pod ranges. The same index
// counts in each family. On disk it is one file with two names:
//
//	addresses/<index>         made first, exclusively: the claim
//	leases/<id>@<interface>   a link to it
//
// Every change is made under a lock on the directory, by any process. A crash
// between the two names leaves an address without a lease, which sweep frees.
type lease struct {
	ID     string `json:"id"`
	IfName string `json:"ifName"`
	NetNS  string `json:"netns"`
	Index  int    `json:"index"`
}

func (l lease) name() string { return leaseName(l.ID, l.IfName) }

func leaseName(id, ifName string) string { return url.PathEscape(id) + "@" + url.PathEscape(ifName) }

// leases is the directory. Indices are from first to last, inclusive.
type leases struct {
	dir         string
	first, last int

	mu   sync.Mutex
	next int // where the search for a free index begins: an address is not used again soon
}

// capacity is the highest index that every range has: the network, the gateway
// (index 1) and, in IPv4, the broadcast address are nobody's.
func capacity(ranges []netip.Prefix) int {
	const enough = 1 << 16
	last := enough
	for _, r := range ranges {
		bits := r.Addr().BitLen() - r.Bits()
		if bits >= 17 {
			continue
		}
		n := 1<<bits - 1
		if r.Addr().Is4() {
			n--
		}
		last = min(last, n)
	}
	return last
}

// nth is the address with an index in a range.
func nth(p netip.Prefix, index int) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := len(b) - 1; i >= 0 && index > 0; i-- {
		index += int(b[i])
		b[i] = byte(index)
		index >>= 8
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (l *leases) open() error {
	for _, sub := range []string{"leases", "addresses"} {
		if err := os.MkdirAll(filepath.Join(l.dir, sub), 0o755); err != nil {
			return fmt.Errorf("open leases: %w", err)
		}
	}
	return l.locked(l.sweep)
}

// locked calls f while nobody else, in this process or another, changes leases.
func (l *leases) locked(f func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	lock, err := os.OpenFile(filepath.Join(l.dir, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("lock leases: %w", err)
	}
	defer lock.Close() // and so unlock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock leases: %w", err)
	}
	return f()
}

// acquire returns the attachment's lease, a new one if it has none.
func (l *leases) acquire(id, ifName, netns string) (le lease, isNew bool, err error) {
	err = l.locked(func() error {
		le, err = l.get(id, ifName)
		switch {
		case err == nil && le.NetNS == netns:
			return nil
		case err == nil:
			le.NetNS = netns
			return l.write(le, os.O_TRUNC)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		isNew = true
		le, err = l.claim(lease{ID: id, IfName: ifName, NetNS: netns})
		return err
	})
	return le, isNew, err
}

func (l *leases) address(index int) string {
	return filepath.Join(l.dir, "addresses", strconv.Itoa(index))
}

func (l *leases) path(name string) string { return filepath.Join(l.dir, "leases", name) }

// claim takes the first free index after the one given last.
func (l *leases) claim(le lease) (lease, error) {
	count := l.last - l.first + 1
	for i := range count {
		le.Index = l.first + (max(l.next, l.first)-l.first+i)%count
		err := l.write(le, os.O_CREATE|os.O_EXCL)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = os.Link(l.address(le.Index), l.path(le.name()))
		}
		if err != nil {
			return le, fmt.Errorf("claim address: %w", errors.Join(err, os.Remove(l.address(le.Index))))
		}
		l.next = le.Index + 1
		return le, nil
	}
	return le, fmt.Errorf("claim address: all %d of this node's pod range are in use", count)
}

// write writes the file of a lease, which has its index for a name.
func (l *leases) write(le lease, flag int) error {
	data, err := json.Marshal(le)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(l.address(le.Index), os.O_WRONLY|flag, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

func (l *leases) get(id, ifName string) (lease, error) {
	var le lease
	data, err := os.ReadFile(l.path(leaseName(id, ifName)))
	if err != nil {
		return le, fmt.Errorf("read lease: %w", err)
	}
	if err := json.Unmarshal(data, &le); err != nil {
		return le, fmt.Errorf("read lease of %s: %w", id, err)
	}
	return le, nil
}

// release frees an attachment's address; one without a lease is fine.
func (l *leases) release(id, ifName string) error {
	return l.locked(func() error {
		le, err := l.get(id, ifName)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err := os.Remove(l.path(leaseName(id, ifName))); err != nil {
			return fmt.Errorf("release lease: %w", err)
		}
		if err != nil {
			return nil // unreadable: sweep frees its address
		}
		if err := os.Remove(l.address(le.Index)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("release address: %w", err)
		}
		return nil
	})
}

func (l *leases) list() ([]lease, error) {
	entries, err := os.ReadDir(filepath.Join(l.dir, "leases"))
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	var out []lease
	for _, e := range entries {
		id, ifName, ok := strings.Cut(e.Name(), "@")
		if !ok {
			continue
		}
		id, err1 := url.PathUnescape(id)
		ifName, err2 := url.PathUnescape(ifName)
		if errors.Join(err1, err2) != nil {
			continue
		}
		le, err := l.get(id, ifName)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			le = lease{ID: id, IfName: ifName} // still enough to delete it
		}
		out = append(out, le)
	}
	return out, nil
}

// sweep frees addresses that belong to no lease, and finds where to go on.
func (l *leases) sweep() error {
	all, err := l.list()
	if err != nil {
		return err
	}
	used := make(map[string]string, len(all))
	for _, le := range all {
		used[strconv.Itoa(le.Index)] = le.name()
	}
	addresses, err := os.ReadDir(filepath.Join(l.dir, "addresses"))
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	var newest time.Time
	for _, a := range addresses {
		if _, ok := used[a.Name()]; ok {
			if info, err := a.Info(); err == nil && info.ModTime().After(newest) {
				newest = info.ModTime()
				l.next, _ = strconv.Atoi(a.Name())
				l.next++
			}
			continue
		}
		if err := os.Remove(filepath.Join(l.dir, "addresses", a.Name())); err != nil {
			return fmt.Errorf("free address: %w", err)
		}
	}
	return nil
}
