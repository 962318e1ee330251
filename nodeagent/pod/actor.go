package pod

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/nodeagent/container"
	"github.com/xebec-mesh/xebec/nodeagent/probe"
	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// actor owns one pod. Everything below `owned` is touched by its goroutine only.
//
//	          mailbox                  compute             perform
//	events ───────────▶ hear(event) ──────────▶ Plan ──────────────▶ operations
//	   ▲                                 │                               │
//	   └─────────────────────────────────┼───────────────────────────────┘
//	                                     └──▶ Status ──▶ API
type actor struct {
	m         *Manager
	log       *slog.Logger
	uid       types.UID
	namespace string
	home      home
	ctx       context.Context // of the agent: its end leaves the pod running
	once      sync.Once
	wake      chan struct{}

	mu  sync.Mutex
	box []event

	owned
}

type owned struct {
	pod     *corev1.Pod
	o       Observed
	sandbox *sandbox
	live    map[string]*instance // by container name
	work    context.Context      // of what is done to start containers; ends with the pod
	cancel  context.CancelFunc
	shown   corev1.PodStatus
	done    bool
	gone    bool                   // the object is no longer in the API
	dead    []*container.Container // have ended; the newest of each name stays for its successor
	sweeps  sync.WaitGroup         // removals of replaced ones under way
}

// instance is a container that runs, or is being started.
type instance struct {
	c       *container.Container
	probes  context.CancelFunc
	stop    *stopper
	exited  chan struct{}
	drained chan struct{} // closed when its log is complete
}

func newInstance(c *container.Container) *instance {
	return &instance{c: c, exited: make(chan struct{}), drained: make(chan struct{})}
}

func newActor(ctx context.Context, m *Manager, pod *corev1.Pod) *actor {
	a := &actor{
		m: m, uid: pod.UID, namespace: pod.Namespace, home: m.home(pod.UID), ctx: ctx, wake: make(chan struct{}, 1),
		log: m.cfg.Log.With("pod", client.Key(pod).String()),
	}
	a.pod = pod
	a.o = Observed{Units: map[string]*Unit{}, Sandbox: Sandbox{Clean: true}}
	a.live = map[string]*instance{}
	a.work, a.cancel = context.WithCancel(ctx)
	return a
}

// start begins the actor's goroutine, once.
func (a *actor) start() {
	a.once.Do(func() {
		a.m.running.Go(a.run)
	})
}

// post puts an event into the mailbox. It never blocks.
func (a *actor) post(e event) {
	a.mu.Lock()
	a.box = append(a.box, e)
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *actor) take() []event {
	a.mu.Lock()
	defer a.mu.Unlock()
	box := a.box
	a.box = nil
	return box
}

func (a *actor) run() {
	defer a.cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !a.done {
		select {
		case <-a.ctx.Done():
			return
		case <-a.wake:
		case <-timer.C:
		}
		for _, e := range a.take() {
			e.hear(a)
		}
		if at := a.step(); !at.IsZero() {
			timer.Reset(max(time.Millisecond, at.Sub(a.m.cfg.Now())))
		} else {
			timer.Stop()
		}
	}
}

// step plans and performs once, publishes the status, and returns when to look again.
func (a *actor) step() time.Time {
	now := a.m.cfg.Now()
	a.deadline(now)
	p := compute(a.pod, &a.o, now)
	for _, act := range p.Actions {
		a.perform(act)
	}
	a.remember()
	a.publish(now)
	for _, u := range a.o.Units {
		if u.Stage <= Starting && u.Wait == "ErrImagePull" && now.Before(u.FailedAt.Add(errorShown)) {
			p.at(u.FailedAt.Add(errorShown)) // shows as ImagePullBackOff from then on
		}
	}
	return p.At
}

// deadline ends a pod that has been active for longer than it may.
func (a *actor) deadline(now time.Time) {
	d := a.pod.Spec.ActiveDeadlineSeconds
	if d == nil || a.o.End != nil || a.o.StartedAt.IsZero() || finished(a.pod, &a.o) {
		return
	}
	if !now.Before(a.o.StartedAt.Add(time.Duration(*d) * time.Second)) {
		a.end(&Termination{By: now.Add(grace(a.pod)), Reason: "DeadlineExceeded", Message: "Pod was active on the node longer than the specified deadline"})
	}
}

// remember saves for the next agent what changed: that init is over for good.
func (a *actor) remember() {
	if a.o.Initialized || a.o.Sandbox.Stage != Made || !initialized(a.pod, &a.o) {
		return
	}
	a.o.Initialized = true
	a.save()
}

func (a *actor) save() {
	host := a.m.cfg.Host()
	s := &saved{
		Pod: a.pod, IPs: a.o.Sandbox.IPs, Made: a.o.Sandbox.Stage == Made, PodCIDRs: host.PodCIDRs,
		Initialized: a.o.Initialized, StartedAt: a.o.StartedAt,
	}
	if err := a.home.save(s); err != nil {
		a.log.Warn("save pod state", "err", err)
	}
}

func (a *actor) end(t *Termination) {
	if a.o.End == nil {
		a.cancel() // pulls and creations under way
		a.drain()
	}
	a.o.End = t
}

// drain sends callers elsewhere; the containers are stopped meanwhile.
func (a *actor) drain() {
	if a.m.cfg.Mesh == nil || a.o.Sandbox.Stage != Made {
		return
	}
	pod, netns := a.pod, a.home.spaces().Net()
	go func() {
		if err := a.m.cfg.Mesh.Drain(a.ctx, pod, netns); err != nil && a.ctx.Err() == nil {
			a.log.Info("sidecar not drained", "err", err)
		}
	}()
}

func (a *actor) perform(act Action) {
	a.o.begin(act, a.m.cfg.Now())
	switch act.Verb {
	case MakeSandbox:
		a.makeSandbox()
	case RemoveSandbox:
		a.removeSandbox()
	case Start:
		a.startContainer(containerOf(a.pod, act.Container))
	case Stop:
		a.stopContainer(act)
	case Finish:
		a.finish()
	}
}

func containerOf(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	panic(fmt.Sprintf("pod %s/%s: no container %s", pod.Namespace, pod.Name, name))
}

// finish says goodbye: nothing of the pod is left on this node.
func (a *actor) finish() {
	a.done = true
	if err := a.home.clean(logDir(a.m.cfg.LogDir, a.pod)); err != nil {
		a.log.Warn("remove the pod's files", "err", err)
	}
	a.publish(a.m.cfg.Now())
	if a.gone {
		a.m.cfg.Status.Forget(a.pod)
	} else {
		a.m.cfg.Status.Delete(a.pod)
	}
	a.m.forget(a)
}

func (a *actor) event(kind, reason, format string, args ...any) {
	a.eventFor("", kind, reason, format, args...)
}

func (a *actor) eventFor(name, kind, reason, format string, args ...any) {
	recordEvent(a.m.cfg.Events, a.pod, name, kind, reason, format, args...)
}

func recordEvent(r Recorder, pod *corev1.Pod, name, kind, reason, format string, args ...any) {
	if r == nil {
		return
	}
	ref := corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
	}
	if name != "" {
		field := "spec.containers"
		if isInit(pod, &corev1.Container{Name: name}) {
			field = "spec.initContainers"
		}
		ref.FieldPath = fmt.Sprintf("%s{%s}", field, name)
	}
	r.EventFor(ref, nil, kind, reason, reason, format, args...)
}

// publish shows the status where the API should know of a change.
func (a *actor) publish(now time.Time) {
	if a.gone {
		return
	}
	shown := a.shown.Conditions
	if shown == nil {
		shown = a.pod.Status.Conditions
	}
	s := Status(a.pod, &a.o, shown, a.m.cfg.Host().IPs, now)
	if apiequality.Semantic.DeepEqual(s, a.shown) {
		return
	}
	a.shown = s
	a.m.cfg.Status.Set(a.pod, s)
}

// watchProbes begins to probe a container that runs.
func (a *actor) watchProbes(name string, in *instance) {
	u := a.o.unit(name)
	ctx, cancel := context.WithCancel(a.ctx)
	in.probes = cancel
	t := probe.Target{
		Pod: a.pod, Container: containerOf(a.pod, name), StartedAt: u.StartedAt, Exec: in.c.ExecOutput,
		Started: u.Started, Ready: u.Ready,
	}
	if len(a.o.Sandbox.IPs) > 0 {
		t.IP, _ = netip.ParseAddr(a.o.Sandbox.IPs[0])
	} else if a.sandbox != nil {
		t.IP = a.sandbox.primary()
	}
	if !a.pod.Spec.HostNetwork {
		t.NetNS = a.home.spaces().Net()
	}
	id := in.c.ID
	a.m.cfg.Probes.Watch(ctx, t, func(r probe.Result) { a.post(probed{name, id, r}) })
}
