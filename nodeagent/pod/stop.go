package pod

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/nodeagent/container"
	"github.com/xebec-mesh/xebec/nodeagent/logs"
)

// watch waits for a container's end and reports it.
func (a *actor) watch(pod *corev1.Pod, name string, in *instance, log string) {
	exit := in.c.Wait(a.ctx)
	if a.ctx.Err() != nil {
		return
	}
	close(in.exited)
	c := containerOf(pod, name)
	rec := record{Code: exit.Code, FinishedAt: exit.At, Reason: "Completed"}
	switch {
	case exit.Err != nil:
		rec.Code, rec.FinishedAt, rec.Reason, rec.Message = 137, a.m.cfg.Now(), "ContainerStatusUnknown", exit.Err.Error()
	case container.OOMKilled(cgroup(a.m.cfg, pod) + "/" + in.c.ID):
		rec.Reason = "OOMKilled"
	case exit.Code != 0:
		rec.Reason = "Error"
	}
	drain := func() {
		if err := in.c.DeleteTask(a.ctx); err != nil {
			a.log.Debug("delete task", "container", name, "err", err)
		}
		close(in.drained)
	}
	late := rec.Code != 0 && c.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError
	if late {
		drain() // only then is the log complete
	}
	if rec.Message == "" {
		rec.Message = terminationMessage(c, a.home.message(in.c.ID), log, rec.Code)
	}
	a.post(exitedEvent{name: name, id: in.c.ID, rec: rec})
	if !late {
		drain()
	}
}

// terminationMessage is what a container left to say, or the end of its log.
func terminationMessage(c *corev1.Container, file, log string, code int) string {
	const maxMessage, maxLog, maxLines = 4096, 2048, 80
	if f, err := os.Open(file); err == nil {
		b, _ := io.ReadAll(io.LimitReader(f, maxMessage))
		f.Close()
		if len(b) > 0 {
			return string(b)
		}
	}
	if c.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError || code == 0 {
		return ""
	}
	var b bytes.Buffer
	if err := logs.Read(context.Background(), log, logs.Query{Tail: maxLines}, &b, nil); err != nil {
		return ""
	}
	out := b.Bytes()
	if len(out) > maxLog {
		out = out[len(out)-maxLog:]
	}
	return string(out)
}

// stopper ends one container, by a time that may come nearer.
type stopper struct{ nearer chan time.Time }

// stopContainer begins to stop a container, or hastens a stop that has begun.
func (a *actor) stopContainer(act Action) {
	in := a.live[act.Container]
	if in == nil {
		return
	}
	if in.stop != nil {
		select {
		case <-in.stop.nearer:
		default:
		}
		in.stop.nearer <- act.By
		return
	}
	in.stop = &stopper{nearer: make(chan time.Time, 1)}
	if in.probes != nil && a.o.End == nil {
		in.probes()
	}
	reason := act.Reason
	if reason == "" || a.o.End != nil {
		reason = "Stopping container " + act.Container
	}
	a.eventFor(act.Container, corev1.EventTypeNormal, "Killing", "%s", reason)
	l := &launch{cfg: a.m.cfg, pod: a.pod, c: containerOf(a.pod, act.Container), home: a.home, id: in.c.ID}
	ip := ""
	if len(a.o.Sandbox.IPs) > 0 {
		ip = a.o.Sandbox.IPs[0]
	}
	go a.stopNow(l, in, act.By, ip)
}

func (a *actor) stopNow(l *launch, in *instance, by time.Time, ip string) {
	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		if h := l.c.Lifecycle; h != nil && h.PreStop != nil {
			if err := a.hook(ctx, l, in, h.PreStop, ip); err != nil && ctx.Err() == nil {
				l.event(corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: %s", err)
			}
		}
		if ctx.Err() == nil {
			a.signal(ctx, in, stopSignal(l.c, in.c.Label(container.LabelStopSignal)))
		}
	}()
	timer := time.NewTimer(by.Sub(a.m.cfg.Now()))
	defer timer.Stop()
	for {
		select {
		case <-in.exited:
			return
		case <-a.ctx.Done():
			return
		case by = <-in.stop.nearer:
			timer.Reset(by.Sub(a.m.cfg.Now()))
		case <-timer.C:
			cancel()
			<-asked
			a.signal(a.ctx, in, syscall.SIGKILL)
			timer.Reset(5 * time.Second) // until the kernel lets go of it
		}
	}
}

func (a *actor) signal(ctx context.Context, in *instance, sig syscall.Signal) {
	if err := in.c.Kill(ctx, sig, sig == syscall.SIGKILL); err != nil {
		a.log.Debug("signal container", "id", in.c.ID, "signal", sig, "err", err)
	}
}

// stopSignal is the container's own, else its image's, else SIGTERM.
func stopSignal(c *corev1.Container, image string) syscall.Signal {
	if l := c.Lifecycle; l != nil && l.StopSignal != nil {
		if s := unix.SignalNum(string(*l.StopSignal)); s != 0 {
			return s
		}
	}
	if s := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(image), "SIG")); s != 0 {
		return s
	}
	if n, err := strconv.Atoi(image); err == nil && n > 0 {
		return syscall.Signal(n)
	}
	return syscall.SIGTERM
}

// postStart runs the hook of a container that has started; if it fails, the
// container goes.
func (a *actor) postStart(ctx context.Context, l *launch, in *instance) {
	h := l.c.Lifecycle
	if h == nil || h.PostStart == nil {
		return
	}
	ip := ""
	if p := l.sandbox.primary(); p.IsValid() {
		ip = p.String()
	}
	if err := a.hook(ctx, l, in, h.PostStart, ip); err != nil && ctx.Err() == nil {
		l.event(corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed: %s", err)
		a.post(killFor{l.c.Name, l.id, "FailedPostStartHook"})
	}
}

// sweep removes containers that were replaced: of each name the last exited one
// stays until the next has started.
func (a *actor) sweep() {
	var old, keep []*container.Container
	for _, c := range a.dead {
		if u := a.o.unit(c.Label(container.LabelName)); u.ID != c.ID {
			old = append(old, c)
			go a.m.removeLogs(a.pod, c)
		} else {
			keep = append(keep, c)
		}
	}
	a.dead = keep
	for _, c := range old {
		a.sweeps.Go(func() { a.remove(c) })
	}
}

// remove removes a container that has ended. Where its shim has died, containerd
// needs a moment to find that out.
func (a *actor) remove(c *container.Container) {
	err := c.Remove(a.ctx)
	for try := 1; err != nil && try < 5; try++ {
		select {
		case <-a.ctx.Done():
			return // the next agent finds it
		case <-time.After(time.Duration(try) * 100 * time.Millisecond):
			err = c.Remove(a.ctx)
		}
	}
	if err != nil {
		a.log.Warn("remove container", "id", c.ID, "err", err)
		return
	}
	_ = os.Remove(a.home.exit(c.ID))
	_ = os.Remove(a.home.message(c.ID))
}

// removeLogs removes the log of the attempt before the one given, which nobody can
// ask for any more.
func (m *Manager) removeLogs(pod *corev1.Pod, c *container.Container) {
	if c.Attempt() == 0 {
		return
	}
	path := m.logPath(pod, c.Label(container.LabelName), c.Attempt()-1)
	for _, f := range append(logs.Rotated(path), path) {
		_ = os.Remove(f)
	}
}

// hook runs a lifecycle hook.
func (a *actor) hook(ctx context.Context, l *launch, in *instance, h *corev1.LifecycleHandler, ip string) error {
	switch {
	case h.Exec != nil:
		code, out, err := in.c.ExecOutput(ctx, h.Exec.Command)
		if err == nil && code != 0 {
			err = fmt.Errorf("command %q exits with %d: %s", strings.Join(h.Exec.Command, " "), code, out)
		}
		return err
	case h.HTTPGet != nil:
		return a.httpHook(ctx, l, h.HTTPGet, ip)
	case h.Sleep != nil:
		select {
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
		case <-in.exited:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
