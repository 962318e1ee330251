package pod

import (
	"time"

	"github.com/xebec-mesh/xebec/nodeagent/probe"
)

// These are the changes that an Observed goes through. They are all there are: the
// actor makes them when it hears of something, and scripts make them in tests.

// begin notes that an action has been started.
func (o *Observed) begin(act Action, now time.Time) {
	switch act.Verb {
	case MakeSandbox:
		o.Sandbox.Stage, o.Sandbox.Clean = Making, false
		if o.StartedAt.IsZero() {
			o.StartedAt = now
		}
	case RemoveSandbox:
		o.Sandbox.Stage = Removing
	case Start:
		o.unit(act.Container).Stage = Starting
	case Stop:
		u := o.unit(act.Container)
		u.Stage, u.StopBy = Stopping, act.By
	}
}

// next makes the exit of the attempt before the last one, and counts a new one.
func (u *Unit) next() {
	if u.Attempt > 0 {
		u.Last = Terminated(u)
	}
	u.Attempt++
}

func (o *Observed) started(name, id, image, imageID string, at time.Time) {
	u := o.unit(name)
	u.next()
	u.Stage, u.StartedAt, u.ID, u.Image, u.ImageID = Running, at, id, image, imageID
	u.Wait, u.WaitMessage, u.Failures, u.FailedAt = "", "", 0, time.Time{}
	u.Started, u.Ready, u.Kill = false, false, ""
}

// notStarted: with ran, the fault is in the container, and counts as a crash; with
// no reason, the pod is ending or its sandbox failed.
func (o *Observed) notStarted(name, id, reason, message string, ran bool, now time.Time) {
	u := o.unit(name)
	if ran {
		u.next()
		u.Stage, u.ID, u.StartedAt, u.FinishedAt = Exited, id, now, now
		u.ExitCode, u.Reason, u.Message = 128, reason, message
		u.Crashes++
		return
	}
	u.Stage = Idle
	if u.Attempt > 0 {
		u.Stage = Exited // it waits to run again
	}
	if o.End != nil || reason == "" {
		return
	}
	if u.Wait != reason {
		u.Failures = 0
	}
	u.Wait, u.WaitMessage, u.FailedAt = reason, message, now
	u.Failures++
}

func (o *Observed) exited(name string, rec record) {
	u := o.unit(name)
	if rec.FinishedAt.Sub(u.StartedAt) >= backoffReset {
		u.Crashes = 0
	}
	u.Stage, u.FinishedAt, u.ExitCode = Exited, rec.FinishedAt, rec.Code
	u.Reason, u.Message = rec.Reason, rec.Message
	u.Started, u.Ready, u.Kill = false, false, ""
	u.Crashes++
}

func (o *Observed) probed(name string, r probe.Result) {
	u := o.unit(name)
	if u.Stage != Running && u.Stage != Stopping {
		return
	}
	switch {
	case r.Kind == probe.Startup && r.OK:
		u.Started = true
	case r.Kind == probe.Readiness:
		u.Ready = r.OK
	case u.Stage == Running:
		kind := "liveness"
		if r.Kind == probe.Startup {
			kind = "startup"
		}
		u.Kill = "Container " + name + " failed " + kind + " probe, will be restarted"
	}
}
