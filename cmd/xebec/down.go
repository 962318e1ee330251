package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/xebec-mesh/xebec/dataplane/dns"
	"github.com/xebec-mesh/xebec/dataplane/intercept"
	"github.com/xebec-mesh/xebec/dataplane/network"
	"github.com/xebec-mesh/xebec/dataplane/service"
)

func downCommand(s *settings) *cobra.Command {
	var keepPods bool
	cmd := &cobra.Command{
		Use: "down", Short: "Stop the cluster; its data stays", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return down(cmd.Context(), s, keepPods, cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&keepPods, "keep-pods", false, "stop xebec only: containers, routing and Services go on")
	return cmd
}

func resetCommand(s *settings) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "reset", Short: "Stop the cluster and remove every trace of it, data included", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes && !confirm(cmd.InOrStdin(), cmd.OutOrStdout(), "Remove this cluster and all data in "+s.State+"?") {
				return errors.New("nothing was removed: give --yes, or answer y")
			}
			return reset(cmd.Context(), s, cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func confirm(in io.Reader, out io.Writer, question string) bool {
	fmt.Fprint(out, question, " [y/N] ")
	line, err := bufio.NewReader(in).ReadString('\n')
	return err == nil && strings.EqualFold(strings.TrimSpace(line), "y")
}

// stopWithin is how long xebec has to end by itself.
const stopWithin = 20 * time.Second

// down ends xebec and, unless keepPods, every process that it has started.
func down(ctx context.Context, s *settings, keepPods bool, out io.Writer) error {
	if pid := s.running(); pid != 0 {
		if err := stopProcess(ctx, s, pid); err != nil {
			return err
		}
		fmt.Fprintf(out, "stopped xebec, process %d\n", pid)
	}
	if keepPods {
		return nil
	}
	killed, err := killCgroups(s)
	if err != nil {
		return err
	}
	helpers := s.helpers()
	for _, pid := range helpers {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop process %d: %w", pid, err)
		}
	}
	if killed > 0 || len(helpers) > 0 {
		fmt.Fprintf(out, "stopped %d container cgroups and %d helper processes\n", killed, len(helpers))
	}
	return nil
}

// stopProcess asks pid to end, and insists when it does not. The lock on the
// state says when it has ended, however it did.
func stopProcess(ctx context.Context, s *settings, pid int) error {
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop process %d: %w", pid, err)
	}
	f, err := os.Open(s.pidFile())
	if err != nil {
		return err
	}
	defer f.Close()
	ended := make(chan error, 1)
	go func() { ended <- unix.Flock(int(f.Fd()), unix.LOCK_SH) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(stopWithin):
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return <-ended
}

// killCgroups ends every process in the instance's cgroups (cgroup.kill, kernel
// Documentation/admin-guide/cgroup-v2.rst) and returns how many cgroups had any.
func killCgroups(s *settings) (int, error) {
	killed := 0
	for _, root := range cgroupRoots() {
		err := filepath.WalkDir(filepath.Join(root, s.cgroup()), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil // a cgroup that has just gone
			}
			pids := processesIn(path)
			if len(pids) > 0 {
				killed++
			}
			for _, pid := range pids {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
					return fmt.Errorf("kill process %d of %s: %w", pid, path, err)
				}
			}
			return nil
		})
		if err != nil {
			return killed, err
		}
	}
	return killed, nil
}

func processesIn(cgroup string) []int {
	data, err := os.ReadFile(filepath.Join(cgroup, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	for _, f := range strings.Fields(string(data)) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// helpers are the processes that outlive xebec: shims and the DNS server.
func (s *settings) helpers() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		command, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil {
			continue
		}
		program, _, _ := bytes.Cut(command, []byte{0})
		switch filepath.Base(string(program)) {
		case "containerd-shim-xebec-v2", "xebec-dns":
			if bytes.Contains(command, []byte(s.run()+"/")) || bytes.Contains(command, []byte(s.State+"/")) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// reset removes what the instance has ever made. Each part is tried even if
// another one fails, and it may be run any number of times.
func reset(ctx context.Context, s *settings, out io.Writer) error {
	if err := down(ctx, s, false, out); err != nil {
		return err
	}
	err := errors.Join(
		service.Reset(s.pins("service")),
		intercept.Reset(s.pins("intercept")),
		network.Reset(s.network()),
		dns.Reset(s.run("dns")),
		unmountBelow(s.State),
		unmountBelow(s.run()),
		removeCgroups(s),
		os.RemoveAll(s.pins()),
		os.RemoveAll(s.run()),
		os.RemoveAll(s.State),
	)
	if err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	fmt.Fprintln(out, "nothing of", s.Name, "is left")
	return nil
}

// unmountBelow detaches every mount at or below dir, the innermost first.
func unmountBelow(dir string) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	var points []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			points = append(points, f[4])
		}
	}
	var errs []error
	for _, p := range slices.Backward(points) {
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

// cgroupRoots are the mount points of every cgroup hierarchy, v1 and v2.
func cgroupRoots() []string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var roots []string
	for line := range strings.Lines(string(data)) {
		mount, super, found := strings.Cut(line, " - ")
		if f := strings.Fields(mount); found && len(f) > 4 && strings.HasPrefix(super, "cgroup") {
			roots = append(roots, f[4])
		}
	}
	return roots
}

func removeCgroups(s *settings) error {
	var errs []error
	for _, root := range cgroupRoots() {
		var dirs []string
		_ = filepath.WalkDir(filepath.Join(root, s.cgroup()), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, d := range slices.Backward(dirs) {
			if err := removeCgroup(d); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// removeCgroup removes one, waiting for processes that were killed to be gone.
func removeCgroup(dir string) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup: %w", err)
		}
		time.Sleep(10 * time.Millisecond) // cgroup v1 has no event for this
	}
}
