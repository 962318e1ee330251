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
		s.Stage, s.FailedAt = None, a.m.cfg.Now()
		s.Failures++
		if a.o.End == nil {
			a.event(corev1.EventTypeWarning, e.reason, "%s", e.err)
		}
		return
	}
	s.Stage, s.IPs, s.Failures = Made, e.ips, 0
	a.save()
}

type sandboxRemoved struct {
	err  error
	dead []*container.Container // to be removed with it
}

func (e sandboxRemoved) hear(a *actor) {
	s := &a.o.Sandbox
	s.Stage = None
	if e.err != nil {
		s.Failures++
		s.FailedAt = a.m.cfg.Now()
		a.dead = append(a.dead, e.dead...)
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
	a.o.started(e.name, e.id, e.in.c.Image, e.imageID, e.at)
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
	if e.dead != nil {
		a.dead = append(a.dead, e.dead)
	}
	now := a.m.cfg.Now()
	a.o.notStarted(e.name, e.id, e.reason, e.message, e.ran, now)
	if e.ran {
		a.saveExit(e.name)
		a.tellBackoff(e.name)
	}
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
	a.o.exited(e.name, e.rec)
	a.saveExit(e.name)
	a.tellBackoff(e.name)
}

// saveExit keeps an exit for the next agent.
func (a *actor) saveExit(name string) {
	u := a.o.unit(name)
	rec := record{
		Name: name, Attempt: u.Attempt - 1, Code: u.ExitCode, Reason: u.Reason, Message: u.Message,
		StartedAt: u.StartedAt, FinishedAt: u.FinishedAt, Crashes: u.Crashes,
	}
	if err := writeJSON(a.home.exit(u.ID), rec); err != nil {
		a.log.Warn("save exit of container", "container", name, "err", err)
	}
}

func (a *actor) tellBackoff(name string) {
	u := a.o.unit(name)
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
	if a.o.unit(e.name).ID == e.id {
		a.o.probed(e.name, e.r)
	}
}
