// Package kerneltest gives tests a small world of their own in the real kernel.
//
//	in:   a test that runs as root
//	out:  network namespaces, cgroups and pin directories that vanish with the test
//
// Nothing touches the machine's root cgroup or its interfaces: a test puts its
// own process into a child cgroup, and attaches there.
package kerneltest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/xebec-mesh/xebec/dataplane/kernel"
)

const prefix = "xebectest"

var counter atomic.Int64

// unique is a name that no other test process uses: its second field is our process id.
func unique() string { return fmt.Sprintf("%s-%d-%d", prefix, os.Getpid(), counter.Add(1)) }

// Root skips the test without root, and sweeps what killed tests left.
func Root(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root")
	}
	if err := kernel.Probe(); err != nil {
		tb.Fatal(err)
	}
	if err := kernel.MountBPFFS(); err != nil {
		tb.Fatal(err)
	}
	root, err := kernel.CgroupRoot()
	if err != nil {
		tb.Fatal(err)
	}
	for _, dir := range []string{kernel.BPFFS, root, "/run/netns"} {
		sweep(dir)
	}
}

func sweep(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, prefix+"-*"))
	for _, path := range left {
		pid, _ := strconv.Atoi(strings.Split(filepath.Base(path), "-")[1])
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			remove(path)
		}
	}
}

func remove(path string) {
	_ = unix.Unmount(path, unix.MNT_DETACH)
	_ = filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && p != path {
			defer os.Remove(p)
		}
		return nil
	})
	_ = os.Remove(path)
	_ = os.RemoveAll(path)
}

// Pins is a pin directory.
func Pins(tb testing.TB) string {
	tb.Helper()
	dir := filepath.Join(kernel.BPFFS, unique())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Cgroup is a v2 cgroup below the root.
func Cgroup(tb testing.TB) string {
	tb.Helper()
	root, err := kernel.CgroupRoot()
	if err != nil {
		tb.Fatal(err)
	}
	return Child(tb, root)
}

// Child is a cgroup below parent.
func Child(tb testing.TB, parent string) string {
	tb.Helper()
	dir := filepath.Join(parent, unique())
	if err := os.Mkdir(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { removeCgroup(dir) })
	return dir
}

// removeCgroup waits a little for processes that were killed to be gone.
func removeCgroup(dir string) {
	for range 100 {
		if err := syscall.Rmdir(dir); !errors.Is(err, syscall.EBUSY) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Join moves this process into a cgroup until the test ends: sockets made
// meanwhile belong to it.
func Join(tb testing.TB, cgroup string) {
	tb.Helper()
	before := current(tb)
	move := func(to string) {
		if err := os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte("0"), 0); err != nil {
			tb.Errorf("move to cgroup %s: %v", to, err)
		}
	}
	move(cgroup)
	tb.Cleanup(func() { move(before) })
}

func current(tb testing.TB) string {
	root, err := kernel.CgroupRoot()
	if err != nil {
		tb.Fatal(err)
	}
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		tb.Fatal(err)
	}
	for _, line := range strings.Split(string(data), "\n") {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return filepath.Join(root, path)
		}
	}
	tb.Fatal("this process is in no v2 cgroup")
	return ""
}

// NetNS is a network namespace with its loopback up.
type NetNS struct {
	Path   string
	Handle netns.NsHandle
	Net    *netlink.Handle
}

// NewNetNS makes a network namespace, mounted at Path.
func NewNetNS(tb testing.TB) *NetNS {
	tb.Helper()
	n := &NetNS{Path: filepath.Join("/run/netns", unique())}
	if err := n.create(); err != nil {
		tb.Fatalf("create network namespace: %v", err)
	}
	tb.Cleanup(func() {
		n.Net.Close()
		n.Handle.Close()
		_ = unix.Unmount(n.Path, unix.MNT_DETACH)
		_ = os.Remove(n.Path)
	})
	n.Do(tb, func() {
		lo, err := n.Net.LinkByName("lo")
		if err == nil {
			err = n.Net.LinkSetUp(lo)
		}
		if err != nil {
			tb.Fatal(err)
		}
	})
	return n
}

func (n *NetNS) create() error {
	if err := os.MkdirAll(filepath.Dir(n.Path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(n.Path, nil, 0o444); err != nil {
		return err
	}
	done := make(chan error)
	go func() {
		// The thread is in another namespace for good: it ends with the goroutine.
		runtime.LockOSThread()
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			return unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), n.Path, "", unix.MS_BIND, "")
		}()
	}()
	if err := <-done; err != nil {
		return err
	}
	var err error
	if n.Handle, err = netns.GetFromPath(n.Path); err != nil {
		return err
	}
	n.Net, err = netlink.NewHandleAt(n.Handle)
	return err
}

// Do calls f on a thread in the namespace. Sockets that f makes stay in it;
// goroutines that f starts do not.
func (n *NetNS) Do(tb testing.TB, f func()) {
	tb.Helper()
	if err := In(n.Handle, f); err != nil {
		tb.Fatal(err)
	}
}

// In calls f on a thread in a namespace.
func In(ns netns.NsHandle, f func()) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(ns)
		if err == nil {
			f()
		}
		done <- err // the goroutine ends locked, and the thread with it
	}()
	return <-done
}

// Command is a command that starts in the namespace and in a cgroup; "" keeps
// the cgroup. It ends after two minutes, in case nobody is left to kill it.
func (n *NetNS) Command(tb testing.TB, cgroup string, name string, args ...string) *exec.Cmd {
	tb.Helper()
	// The thread that starts a process may be one that In uses up, so the kernel
	// cannot be asked to kill the process with its parent (PR_SET_PDEATHSIG).
	args = append([]string{"--net=" + n.Path, "timeout", "--signal=KILL", "120", name}, args...)
	cmd := exec.Command("nsenter", args...)
	if cgroup != "" {
		line := append([]string{"-c", `echo 0 > "$0/cgroup.procs" && exec nsenter "$@"`, cgroup}, args...)
		cmd = exec.Command("sh", line...)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// Start starts cmd and returns what kills it, which the test's end does too.
func Start(tb testing.TB, cmd *exec.Cmd) (kill func()) {
	tb.Helper()
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	tb.Cleanup(kill)
	return kill
}

// Up waits until interfaces transmit: one end of a veth pair is told of the other
// a moment after both are up.
func (n *NetNS) Up(tb testing.TB, names ...string) {
	tb.Helper()
	for _, name := range names {
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
			l, err := n.Net.LinkByName(name)
			if err != nil {
				tb.Fatal(err)
			}
			if l.Attrs().OperState == netlink.OperUp {
				break
			}
			if time.Now().After(deadline) {
				tb.Fatalf("interface %s is %s", name, l.Attrs().OperState)
			}
		}
	}
}
