package pod

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Verb is what an Action does.
type Verb string

const (
	MakeSandbox   Verb = "make sandbox"
	RemoveSandbox Verb = "remove sandbox"
	Start         Verb = "start"  // pull, create and start a container
	Stop          Verb = "stop"   // preStop hook, SIGTERM, SIGKILL at By
	Finish        Verb = "finish" // nothing is left: the object may go
)

// Action is one step of a Plan.
type Action struct {
	Verb      Verb
	Container string
	By        time.Time // Stop: when it is killed
	Reason    string    // Stop: why
}

// Plan says what to do now. The zero Plan means that the pod is as it should be.
type Plan struct {
	Actions []Action
	At      time.Time // when to look again; zero: the next event is enough
}

// String prints one line an action.
func (p Plan) String() string {
	var b strings.Builder
	for _, a := range p.Actions {
		fmt.Fprint(&b, a.Verb)
		if a.Container != "" {
			fmt.Fprintf(&b, " %s", a.Container)
		}
		if !a.By.IsZero() {
			fmt.Fprintf(&b, " by %s", a.By.UTC().Format(time.TimeOnly))
		}
		if a.Reason != "" {
			fmt.Fprintf(&b, " (%s)", a.Reason)
		}
		b.WriteByte('\n')
	}
	if !p.At.IsZero() {
		fmt.Fprintf(&b, "look again at %s\n", p.At.UTC().Format(time.TimeOnly))
	}
	return b.String()
}

func (p *Plan) do(a Action) { p.Actions = append(p.Actions, a) }

func (p *Plan) at(t time.Time) {
	if p.At.IsZero() || t.Before(p.At) {
		p.At = t
	}
}

// The delays between attempts, as Kubernetes has them.
const (
	backoffBase  = 10 * time.Second
	backoffMax   = 5 * time.Minute
	backoffReset = 10 * time.Minute // of running without a crash
)

// backoff is the delay before the attempt after n failures in a row: the first
// comes at once for a container that ran.
func backoff(n int) time.Duration {
	if n <= 0 {
		return 0
	}
	return min(backoffMax, backoffBase<<min(n-1, 5))
}

// compute says what brings the pod closer to its spec. It changes nothing.
func compute(pod *corev1.Pod, o *Observed, now time.Time) Plan {
	var p Plan
	switch {
	case o.End != nil:
		terminate(&p, pod, o, o.End.By, now)
	case finished(pod, o):
		terminate(&p, pod, o, now.Add(grace(pod)), now)
	default:
		run(&p, pod, o, now)
	}
	return p
}

func grace(pod *corev1.Pod) time.Duration {
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return 30 * time.Second
}

// terminate stops the app containers at once, then the sidecars from the last to
// the first, then removes the sandbox.
func terminate(p *Plan, pod *corev1.Pod, o *Observed, by, now time.Time) {
	busy := false
	reason := "Stopping container"
	stop := func(c *corev1.Container) {
		u := o.unit(c.Name)
		switch {
		case u.Stage == Running, u.Stage == Stopping && by.Before(u.StopBy):
			p.do(Action{Verb: Stop, Container: c.Name, By: by, Reason: reason})
			busy = true
		case u.Stage == Starting || u.Stage == Stopping:
			busy = true // its operation is told by the pod's context, and reports
		}
	}
	for i := range pod.Spec.Containers {
		stop(&pod.Spec.Containers[i])
	}
	inits := pod.Spec.InitContainers
	for i := range inits {
		if !IsSidecar(&inits[i]) || o.unit(inits[i].Name).Stage == Starting {
			stop(&inits[i])
		}
	}
	for i := len(inits) - 1; i >= 0 && (!busy || !now.Before(by)); i-- {
		if IsSidecar(&inits[i]) {
			stop(&inits[i])
		}
	}
	switch {
	case busy || o.Sandbox.Stage == Making || o.Sandbox.Stage == Removing:
	case !o.Sandbox.Clean:
		if retry := o.Sandbox.FailedAt.Add(sandboxDelay(o.Sandbox.Failures)); now.Before(retry) {
			p.at(retry)
			return
		}
		p.do(Action{Verb: RemoveSandbox})
	case o.End != nil && o.End.Reason == "":
		p.do(Action{Verb: Finish})
	}
}

// sandboxDelay is shorter than a container's: what fails here is ours.
func sandboxDelay(failures int) time.Duration {
	if failures == 0 {
		return 0
	}
	return min(30*time.Second, time.Second<<min(failures-1, 5))
}

func run(p *Plan, pod *corev1.Pod, o *Observed, now time.Time) {
	if d := pod.Spec.ActiveDeadlineSeconds; d != nil && !o.StartedAt.IsZero() {
		p.at(o.StartedAt.Add(time.Duration(*d) * time.Second))
	}
	if o.Sandbox.Stage == None {
		if retry := o.Sandbox.FailedAt.Add(sandboxDelay(o.Sandbox.Failures)); now.Before(retry) {
			p.at(retry)
			return
		}
		p.do(Action{Verb: MakeSandbox})
	}
	// A container is prepared while the sandbox is made, but not for one that has
	// failed before and may fail again.
	if o.Sandbox.Stage == Removing || (o.Sandbox.Stage != Made && o.Sandbox.Failures > 0) {
		return
	}
	if !initialize(p, pod, o, now) {
		return
	}
	for i := range pod.Spec.Containers {
		keep(p, pod, o, &pod.Spec.Containers[i], now)
	}
}

// initialize goes through the init containers in order and says whether the app
// containers may run.
func initialize(p *Plan, pod *corev1.Pod, o *Observed, now time.Time) bool {
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		u := o.unit(c.Name)
		if IsSidecar(c) {
			keep(p, pod, o, c, now)
			if !o.Initialized && !(u.Stage == Running && u.Started) {
				return false
			}
			continue
		}
		if o.Initialized || (u.Stage == Exited && u.ExitCode == 0) {
			continue
		}
		keep(p, pod, o, c, now)
		return false
	}
	return true
}

// keep starts a container that should run, and stops one whose probe failed.
func keep(p *Plan, pod *corev1.Pod, o *Observed, c *corev1.Container, now time.Time) {
	u := o.unit(c.Name)
	switch u.Stage {
	case Running:
		if u.Image != "" && u.Image != c.Image {
			p.do(Action{Verb: Stop, Container: c.Name, By: now.Add(grace(pod)), Reason: "Container " + c.Name + " definition changed, will be restarted"})
		} else if u.Kill != "" {
			p.do(Action{Verb: Stop, Container: c.Name, By: now.Add(grace(pod)), Reason: u.Kill})
		}
	case Idle:
		if retry := u.FailedAt.Add(startDelay(u)); now.Before(retry) {
			p.at(retry)
			return
		}
		p.do(Action{Verb: Start, Container: c.Name})
	case Exited:
		if !restarts(pod, c, u.ExitCode) {
			return
		}
		retry := u.FinishedAt.Add(backoff(u.Crashes - 1))
		if f := u.FailedAt.Add(startDelay(u)); u.Failures > 0 && f.After(retry) {
			retry = f
		}
		if now.Before(retry) {
			p.at(retry)
			return
		}
		p.do(Action{Verb: Start, Container: c.Name})
	}
}

// startDelay is the delay after a container could not be started. A mistake in the
// configuration is also looked at again when the configuration changes.
func startDelay(u *Unit) time.Duration {
	if u.Failures == 0 {
		return 0
	}
	return backoff(u.Failures)
}

// restarts says whether a container that has exited is started again.
func restarts(pod *corev1.Pod, c *corev1.Container, code int) bool {
	policy := corev1.ContainerRestartPolicy(pod.Spec.RestartPolicy)
	if c.RestartPolicy != nil {
		policy = *c.RestartPolicy
	} else if isInit(pod, c) && policy == corev1.ContainerRestartPolicyAlways {
		policy = corev1.ContainerRestartPolicyOnFailure
	}
	switch policy {
	case corev1.ContainerRestartPolicyNever:
		return false
	case corev1.ContainerRestartPolicyOnFailure:
		return code != 0
	}
	return true
}

func isInit(pod *corev1.Pod, c *corev1.Container) bool {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == c.Name {
			return true
		}
	}
	return false
}

// finished says whether the pod has come to its end by itself.
func finished(pod *corev1.Pod, o *Observed) bool {
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		u := o.unit(c.Name)
		if !IsSidecar(c) && u.Stage == Exited && u.ExitCode != 0 && !restarts(pod, c, u.ExitCode) {
			return true
		}
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		u := o.unit(c.Name)
		if u.Stage != Exited || restarts(pod, c, u.ExitCode) {
			return false
		}
	}
	return true
}
