package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// progressFD is where a background child writes its progress; it closes it when
// the node is Ready.
const progressFD = 3

// upInBackground starts this binary again, detached, and prints its progress
// until the cluster is ready. A cluster that runs already is left alone.
func upInBackground(ctx context.Context, s *settings, out io.Writer) error {
	if pid := s.running(); pid != 0 {
		fmt.Fprintf(out, "xebec runs already, process %d\n", pid)
		return nil
	}
	if err := os.MkdirAll(s.State, 0o711); err != nil {
		return err
	}
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	child := exec.Command(self, withoutBackground(os.Args[1:])...)
	child.Env = append(os.Environ(), "XEBEC_PROGRESS="+strconv.Itoa(progressFD), "XEBEC_STATE="+s.State)
	child.Stdout, child.Stderr = log, log
	child.ExtraFiles = []*os.File{write}
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	write.Close()
	exited := make(chan error, 1)
	go func() { exited <- child.Wait() }()
	stop := context.AfterFunc(ctx, func() { _ = child.Process.Signal(syscall.SIGTERM) })
	defer stop()

	ready := false
	for lines := bufio.NewScanner(read); lines.Scan(); {
		ready = ready || lines.Text() == readyLine
		if lines.Text() != readyLine {
			fmt.Fprintln(out, lines.Text())
		}
	}
	if ready {
		return nil
	}
	return errors.Join(errors.New("xebec did not start; its log is "+s.logFile()), <-exited)
}

// readyLine is the last thing that a background child writes to its parent.
const readyLine = "\x00ready"

func withoutBackground(args []string) []string {
	var out []string
	for _, a := range args {
		if a != "--background" && !strings.HasPrefix(a, "--background=") {
			out = append(out, a)
		}
	}
	return out
}

// parent is the pipe to a parent that waits, or nil.
func parent() *os.File {
	if os.Getenv("XEBEC_PROGRESS") != strconv.Itoa(progressFD) {
		return nil
	}
	unix.CloseOnExec(progressFD)
	return os.NewFile(progressFD, "progress")
}

// lock makes this process the only one that works on the state folder, and
// writes its process id. The lock ends with the process, however it ends.
func (s *settings) lock() (*os.File, error) {
	if err := os.MkdirAll(s.State, 0o711); err != nil {
		return nil, fmt.Errorf("create state folder: %w", err)
	}
	if err := os.MkdirAll(s.run(), 0o711); err != nil {
		return nil, fmt.Errorf("create folder of sockets: %w", err)
	}
	f, err := os.OpenFile(s.pidFile(), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", s.pidFile(), err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: another xebec (process %d) runs on this state: stop it with `xebec down`, or give another --state", s.State, s.running())
	}
	if err := f.Truncate(0); err != nil {
		return nil, err
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return nil, fmt.Errorf("write %s: %w", s.pidFile(), err)
	}
	return f, nil
}

// running is the process that holds the lock, or 0.
func (s *settings) running() int {
	f, err := os.Open(s.pidFile())
	if err != nil {
		return 0
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return 0 // nobody holds it
	}
	data, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	return pid
}
