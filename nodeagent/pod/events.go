package pod

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"

	"github.com/xebec-mesh/xebec/nodeagent/container"
	"github.com/xebec-mesh/xebec/nodeagent/probe"
)

// event is something that an actor hears of.
type event interface{ hear(*actor) }

// updated: the object has changed, or came.
type updated struct{ pod *corev1.Pod }

func (e updated) hear(a *actor) {
	old := a.pod
	a.pod = e.pod
	if d := e.pod.DeletionTimestamp; d != nil {
		// The deletion's time is when the grace period is over, in whole seconds. The
		// pod gets its whole period from when we hear of it, within that second.
		by := d.Time
		if g := e.pod.DeletionGracePeriodSeconds; g != nil && a.o.End == nil {
			whole := a.m.cfg.Now().Add(time.Duration(*g) * time.Second)
			if last := by.Add(time.Second); whole.Before(last) && by.Before(whole) {
				by = whole
			}
		}
		if a.o.End == nil || a.o.End.Reason != "" || by.Before(a.o.End.By.Add(-time.Second)) {
			a.end(&Termination{By: by})
		}
	}
	if a.o.Sandbox.Stage == Made && (!apiequality.Semantic.DeepEqual(old.Labels, e.pod.Labels) || !apiequality.Semantic.DeepEqual(old.Annotations, e.pod.Annotations)) {
		go a.m.cfg.Volumes.Update(a.ctx, e.pod)
	}
}

// removed: the object is gone from the API, so nothing more is owed to anybody.
type removed struct{}

func (removed) hear(a *actor) {
	a.gone = true
	a.end(&Termination{By: a.m.cfg.Now()})
}

type evicted struct{ reason, message string }

func (e evicted) hear(a *actor) {
	if a.o.End == nil {
		a.event(corev1.EventTypeWarning, e.reason, "%s", e.message)
		a.end(&Termination{By: a.m.cfg.Now().Add(grace(a.pod)), Reason: e.reason, Message: e.message})
	}
}

// poked: configuration that the pod may wait for has changed.
type poked struct{}

func (poked) hear(a *actor) {
	for _, u := range a.o.Units {
		if u.Stage == Idle && u.Wait == "CreateContainerConfigError" {
			u.FailedAt = time.Time{}
		}
	}
	if a.o.Sandbox.Stage == None {
		a.o.Sandbox.FailedAt = time.Time{}
	}
}

// sandboxMade: the sandbox has been made, or could not be.
type sandboxMade struct {
	ips    []string
	reason string
	err    error
}

func (e sandboxMade) hear(a *actor) {
	s := &a.o.Sandbox
	if e.err != nil {
		s.Stage, s.FailedAt, s.Message = None, a.m.cfg.Now(), e.err.Error()
		s.Failures++
		if a.o.End == nil {
			a.event(corev1.EventTypeWarning, e.reason, "%s", e.err)
		}
		return
	}
	s.Stage, s.IPs, s.Failures, s.Message = Made, e.ips, 0, ""
	a.save()
}

type sandboxRemoved struct{ err error }

func (e sandboxRemoved) hear(a *actor) {
	s := &a.o.Sandbox
	s.Stage = None
	if e.err != nil {
		s.Failures++
		s.FailedAt = a.m.cfg.Now()
		a.log.Warn("remove pod sandbox", "err", e.err)
		a.event(corev1.EventTypeWarning, "FailedKillPod", "error killing pod: %s", e.err)
		return
	}
	s.Clean, s.Failures = true, 0
}

// started: a container runs.
type started struct {
	name string
	in   *instance
	id   string
	at   time.Time

	imageID string
}

func (e started) hear(a *actor) {
	u := a.o.unit(e.name)
	u.next()
	u.Stage, u.StartedAt, u.ID, u.ImageID = Running, e.at, e.id, e.imageID
	u.Wait, u.WaitMessage, u.Failures, u.FailedAt = "", "", 0, time.Time{}
	u.Started, u.Ready, u.Kill = false, false, ""
	a.live[e.name] = e.in
	a.watchProbes(e.name, e.in)
	a.sweep()
}

// notStarted: a container could not be started. If it ran, it counts as a crash.
type notStarted struct {
	name, id        string
	reason, message string
	ran             bool
	dead            *container.Container
}

func (e notStarted) hear(a *actor) {
	u := a.o.unit(e.name)
	now := a.m.cfg.Now()
	if e.dead != nil {
		a.dead = append(a.dead, e.dead)
	}
	if e.ran {
		u.next()
		u.Stage, u.ID, u.StartedAt, u.FinishedAt = Exited, e.id, now, now
		u.ExitCode, u.Reason, u.Message = 128, e.reason, e.message
		u.Crashes++
		a.saveExit(record{Code: 128, Reason: e.reason, Message: e.message, FinishedAt: now}, e.name, u)
		a.tellBackoff(e.name, u)
		return
	}
	u.Stage = Idle
	if u.Attempt > 0 {
		u.Stage = Exited // it waits to run again
	}
	if a.o.End != nil || e.reason == "" {
		return
	}
	if u.Wait != e.reason {
		u.Failures = 0
	}
	u.Wait, u.WaitMessage, u.FailedAt = e.reason, e.message, now
	u.Failures++
}

// exited: a container has ended.
type exitedEvent struct {
	name, id string
	rec      record
}

func (e exitedEvent) hear(a *actor) {
	u := a.o.unit(e.name)
	if u.ID != e.id || u.Stage == Exited {
		return
	}
	in := a.live[e.name]
	delete(a.live, e.name)
	if in != nil {
		if in.probes != nil {
			in.probes()
		}
		a.dead = append(a.dead, in.c)
	}
	if e.rec.FinishedAt.Sub(u.StartedAt) >= backoffReset {
		u.Crashes = 0
	}
	u.Stage, u.FinishedAt, u.ExitCode = Exited, e.rec.FinishedAt, e.rec.Code
	u.Reason, u.Message = e.rec.Reason, e.rec.Message
	u.Started, u.Ready, u.Kill = false, false, ""
	u.Crashes++
	a.saveExit(e.rec, e.name, u)
	a.tellBackoff(e.name, u)
}

// saveExit keeps an exit for the next agent.
func (a *actor) saveExit(rec record, name string, u *Unit) {
	rec.Crashes, rec.Name, rec.Attempt, rec.StartedAt = u.Crashes, name, u.Attempt-1, u.StartedAt
	if err := writeJSON(a.home.exit(u.ID), rec); err != nil {
		a.log.Warn("save exit of container", "container", name, "err", err)
	}
}

func (a *actor) tellBackoff(name string, u *Unit) {
	if backoff(u.Crashes-1) > 0 && a.o.End == nil && restarts(a.pod, containerOf(a.pod, name), u.ExitCode) {
		a.eventFor(name, corev1.EventTypeWarning, "BackOff", "Back-off restarting failed container %s in pod %s_%s(%s)", name, a.pod.Name, a.pod.Namespace, a.uid)
	}
}

// killFor asks for a container to be stopped, since a hook of its failed.
type killFor struct{ name, id, reason string }

func (e killFor) hear(a *actor) {
	if u := a.o.unit(e.name); u.ID == e.id && u.Stage == Running {
		u.Kill = e.reason
	}
}

type probed struct {
	name, id string
	r        probe.Result
}

func (e probed) hear(a *actor) {
	u := a.o.unit(e.name)
	if u.ID != e.id || (u.Stage != Running && u.Stage != Stopping) {
		return
	}
	switch {
	case e.r.Kind == probe.Startup && e.r.OK:
		u.Started = true
	case e.r.Kind == probe.Readiness:
		u.Ready = e.r.OK
	case u.Stage == Running:
		kind := "liveness"
		if e.r.Kind == probe.Startup {
			kind = "startup"
		}
		u.Kill = "Container " + e.name + " failed " + kind + " probe, will be restarted"
	}
}
