package shim

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// Pause starts the first process of a pod whose containers share one process
// namespace: it waits, and buries what they leave behind. The namespace is pinned
// at path, the process noted beside it.
func (p *Pool) Pause(path, cgroup string) error {
	cmd := exec.Command(p.cfg.Program, "pause")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWPID}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the pod's first process: %w", err)
	}
	pid := cmd.Process.Pid
	go func() { _ = cmd.Wait() }()
	err := errors.Join(
		os.WriteFile(path, nil, 0o444),
		os.WriteFile(path+".init", []byte(strconv.Itoa(pid)), 0o600),
	)
	if err == nil {
		err = syscall.Mount(fmt.Sprintf("/proc/%d/ns/pid", pid), path, "", syscall.MS_BIND, "")
	}
	if err != nil {
		_ = cmd.Process.Kill()
		return fmt.Errorf("pin process namespace %s: %w", path, err)
	}
	joinCgroup(cgroup, pid)
	return nil
}

// EndPause ends it, and with it every process of the namespace. One that is gone,
// or whose number belongs to somebody else now, is left alone.
func EndPause(path string) {
	b, err := os.ReadFile(path + ".init")
	if err != nil {
		return
	}
	defer func() {
		_ = syscall.Unmount(path, syscall.MNT_DETACH)
		_ = os.Remove(path)
		_ = os.Remove(path + ".init")
	}()
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return
	}
	pinned, err1 := os.Stat(path)
	its, err2 := os.Stat(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err1 == nil && err2 == nil && os.SameFile(pinned, its) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}
