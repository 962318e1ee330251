// Package network gives pods their namespaces and connects them.
//
//	in:   a pod's identity, host name and sysctls; the machine's CNI configuration
//	out:  namespaces pinned in files; addresses
//
// A pod's network, IPC and UTS namespaces are pinned by bind mounts, so they live
// without a process (no pause container) and without the agent.
package network

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Spaces are the pinned namespaces of one pod.
type Spaces struct {
	dir string
}

// SpacesAt names the namespaces of a pod below dir, whether they exist or not.
func SpacesAt(dir, id string) Spaces { return Spaces{dir: filepath.Join(dir, id)} }

// Net is the path of the network namespace.
func (s Spaces) Net() string { return s.dir + ".net" }

// IPC is the path of the IPC namespace.
func (s Spaces) IPC() string { return s.dir + ".ipc" }

// UTS is the path of the UTS namespace.
func (s Spaces) UTS() string { return s.dir + ".uts" }

// PID is the path of the process namespace, of a pod that shares one.
func (s Spaces) PID() string { return s.dir + ".pid" }

// Exist says whether the namespaces are pinned.
func (s Spaces) Exist() bool {
	var st unix.Statfs_t
	return unix.Statfs(s.Net(), &st) == nil && st.Type == unix.NSFS_MAGIC
}

// Create makes and pins new namespaces with a host name and sysctls.
func (s Spaces) Create(hostname string, sysctls map[string]string) error {
	if err := os.MkdirAll(filepath.Dir(s.dir), 0o755); err != nil {
		return fmt.Errorf("create namespaces: %w", err)
	}
	done := make(chan error, 1)
	go func() {
		// Not unlocked: the thread ends with the goroutine, its namespaces with it.
		runtime.LockOSThread()
		done <- s.create(hostname, sysctls)
	}()
	if err := <-done; err != nil {
		return errors.Join(fmt.Errorf("create namespaces %s: %w", s.dir, err), s.Remove())
	}
	return nil
}

func (s Spaces) create(hostname string, sysctls map[string]string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return fmt.Errorf("set host name %q: %w", hostname, err)
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	for name, value := range sysctls {
		path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			return fmt.Errorf("set sysctl %s=%s: %w", name, value, err)
		}
	}
	for path, kind := range map[string]string{s.Net(): "net", s.IPC(): "ipc", s.UTS(): "uts"} {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
		if err != nil {
			return err
		}
		f.Close()
		if err := unix.Mount("/proc/thread-self/ns/"+kind, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("pin %s namespace: %w", kind, err)
		}
	}
	return nil
}

// loopbackUp sets the interface lo of the thread's network namespace up.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// Remove unpins the namespaces. They end with the last process in them.
func (s Spaces) Remove() error {
	var errs []error
	for _, path := range []string{s.Net(), s.IPC(), s.UTS()} {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
			errs = append(errs, fmt.Errorf("unpin %s: %w", path, err))
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("unpin %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

// Within runs f in the network namespace at path, on a thread that ends with it.
func Within[T any](path string, f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- result{err: fmt.Errorf("open network namespace %s: %w", path, err)}
			return
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			done <- result{err: fmt.Errorf("enter network namespace %s: %w", path, err)}
			return
		}
		v, err := f()
		done <- result{v, err}
	}()
	r := <-done
	return r.v, r.err
}
