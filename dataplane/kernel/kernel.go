// Package kernel loads BPF programs so that they outlive the process.
//
//	in:   collection specifications, a directory in a bpffs, cgroups
//	out:  loaded objects whose maps and links are pinned; clear errors on kernels that lack something
//
// What is pinned belongs to whoever loads it next: a map with the same shape is
// adopted with its contents, a link gets the new program in place of the old
// without a moment in which neither runs. A map whose shape has changed cannot
// be adopted; it is replaced, and so are the programs that used it.
package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// BPFFS is where the BPF file system is expected.
const BPFFS = "/sys/fs/bpf"

// Pins is the directory below which Xebec keeps what is pinned.
const Pins = BPFFS + "/xebec"

// MountBPFFS mounts a BPF file system at BPFFS if there is none.
func MountBPFFS() error {
	var st unix.Statfs_t
	if err := unix.Statfs(BPFFS, &st); err == nil && st.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := os.MkdirAll(BPFFS, 0o755); err != nil {
		return fmt.Errorf("create %s: %w", BPFFS, err)
	}
	if err := unix.Mount("bpf", BPFFS, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpf on %s: %w", BPFFS, err)
	}
	return nil
}

// CgroupRoot is the mount point of the v2 hierarchy, also on hybrid machines.
func CgroupRoot() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find the cgroup v2 hierarchy: %w", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if path, ok := cgroup2Mount(s.Text()); ok {
			return path, nil
		}
	}
	return "", errors.New("find the cgroup v2 hierarchy: not mounted; mount -t cgroup2 none /sys/fs/cgroup/unified")
}

// cgroup2Mount returns the mount point if a line of mountinfo is the root of the v2 hierarchy (proc(5)).
func cgroup2Mount(line string) (string, bool) {
	before, after, ok := strings.Cut(line, " - ")
	fields := strings.Fields(before)
	if !ok || len(fields) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
		return "", false
	}
	return fields[4], fields[3] == "/"
}

// Cgroup resolves a cgroup: an absolute path that exists is itself, all else is
// below the root of the v2 hierarchy. On a hybrid machine the path of a v1
// hierarchy is mapped to the same path in v2.
func Cgroup(path string) (string, error) {
	root, err := CgroupRoot()
	if err != nil {
		return "", err
	}
	if isCgroup2(path) {
		return path, nil
	}
	if p := filepath.Join(root, path); isCgroup2(p) {
		return p, nil
	}
	return "", fmt.Errorf("find cgroup %s below %s: %w", path, root, os.ErrNotExist)
}

func isCgroup2(path string) bool {
	var st unix.Statfs_t
	return filepath.IsAbs(path) && unix.Statfs(path, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// CgroupID is the kernel's id of a v2 cgroup: the inode of its directory.
func CgroupID(path string) (uint64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, fmt.Errorf("find cgroup: %w", err)
	}
	return info.Sys().(*syscall.Stat_t).Ino, nil
}

// Load loads a collection into dst (a struct of maps and programs as bpf2go makes
// it) with every map in spec pinned in dir, adopting those that are there. It
// says whether all maps were adopted. Per-collection maps (read-only data) are
// never pinned.
func Load(spec *ebpf.CollectionSpec, dst any, dir string) (adopted bool, err error) {
	if err := MountBPFFS(); err != nil {
		return false, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, fmt.Errorf("create pin directory: %w", err)
	}
	adopted = true
	for name, m := range spec.Maps {
		if strings.HasPrefix(name, ".") {
			continue
		}
		m.Pinning = ebpf.PinByName
		ok, err := adoptable(m, filepath.Join(dir, name))
		if err != nil {
			return false, err
		}
		adopted = adopted && ok
	}
	opts := ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: dir}}
	if err := spec.LoadAndAssign(dst, &opts); err != nil {
		if lacking := Probe(); lacking != nil { // the better explanation
			return false, lacking
		}
		return false, fmt.Errorf("load BPF programs: %w", explain(err))
	}
	return adopted, nil
}

// adoptable says whether a map of the wanted shape is pinned. One of another
// shape is unpinned: links keep it and the old programs in force until the new
// programs replace them.
func adoptable(want *ebpf.MapSpec, pin string) (bool, error) {
	m, err := ebpf.LoadPinnedMap(pin, nil)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("adopt map %s: %w", pin, explain(err))
	}
	defer m.Close()
	if err := want.Compatible(m); err == nil {
		return true, nil
	} else if !errors.Is(err, ebpf.ErrMapIncompatible) {
		return false, fmt.Errorf("adopt map %s: %w", pin, err)
	}
	if err := m.Unpin(); err != nil {
		return false, fmt.Errorf("replace map %s: %w", pin, err)
	}
	return false, nil
}

// Unpin removes a pin directory with everything in it. Links are detached before
// it returns; the kernel frees the rest when nobody else holds it.
func Unpin(dir string) error {
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return unpinLink(path)
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unpin %s: %w", dir, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("unpin %s: %w", dir, err)
	}
	return nil
}
