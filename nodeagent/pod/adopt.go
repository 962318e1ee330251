package pod

import (
	"cmp"
	"context"
	"net/netip"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/nodeagent/container"
	"github.com/xebec-mesh/xebec/nodeagent/volume"
)

// adopt makes an actor know what an earlier agent left: it is called before start.
func (a *actor) adopt(ctx context.Context, s *saved, found []*container.Container) {
	if s != nil {
		a.o.StartedAt = s.StartedAt
	}
	a.o.Sandbox.Clean = false
	if s != nil && s.Made && (a.pod.Spec.HostNetwork || a.home.spaces().Exist()) {
		a.o.Initialized = s.Initialized
		a.adoptSandbox(ctx, s)
	}
	slices.SortFunc(found, func(x, y *container.Container) int { return cmp.Compare(x.Attempt(), y.Attempt()) })
	exits := a.home.exits()
	for _, c := range found {
		a.adoptContainer(c, exits)
	}
	a.adoptExits(exits)
	a.sweep()
	a.shown = *a.pod.Status.DeepCopy()
}

// adoptSandbox takes over namespaces, addresses and volumes as they are.
func (a *actor) adoptSandbox(ctx context.Context, s *saved) {
	sb := newSandbox()
	for _, ip := range s.IPs {
		if addr, err := netip.ParseAddr(ip); err == nil {
			sb.ips = append(sb.ips, addr)
		}
	}
	v, err := a.m.cfg.Volumes.Mount(ctx, a.pod)
	if err != nil {
		// The containers run with what they have. A container that has to start
		// again finds the volumes that could be made.
		a.log.Info("adopt volumes", "err", err)
		v = map[string]volume.Mounted{}
	}
	sb.volumes = v
	if b, err := os.ReadFile(a.home.shim()); err == nil {
		sb.shim = string(b)
	}
	close(sb.shimmed)
	close(sb.spaces)
	close(sb.mounted)
	close(sb.ready)
	a.sandbox = sb
	a.o.Sandbox = Sandbox{Stage: Made, IPs: s.IPs}
	if a.m.cfg.Mesh != nil {
		if err := a.m.cfg.Mesh.Adopt(ctx, a.pod); err != nil {
			a.log.Warn("adopt interception", "err", err)
		}
	}
}

// adoptContainer takes over one container; a later attempt replaces an earlier.
func (a *actor) adoptContainer(c *container.Container, exits map[string]record) {
	name := c.Label(container.LabelName)
	if !hasContainer(a.pod, name) {
		a.dead = append(a.dead, c)
		return
	}
	u := a.o.unit(name)
	if u.Attempt > 0 {
		u.Last = Terminated(u)
	}
	if c.State == container.Created { // the agent died between create and start
		a.dead = append(a.dead, c)
		return
	}
	u.Attempt, u.ID, u.Image, u.StartedAt = c.Attempt()+1, c.ID, c.Image, c.CreatedAt
	if st := apiStatus(a.pod, name); st != nil {
		u.ImageID = st.ImageID
		if u.Last == nil {
			u.Last = st.LastTerminationState.Terminated
		}
		if r := st.State.Running; r != nil && strings.HasSuffix(st.ContainerID, c.ID) {
			u.StartedAt, u.Ready = r.StartedAt.Time, st.Ready
			u.Started = st.Started != nil && *st.Started
		}
	}
	if c.State == container.Gone {
		a.adoptExit(u, c, exits)
		return
	}
	// Running, or stopped while nobody looked: the wait tells.
	u.Stage = Running
	in := newInstance(c)
	a.live[name] = in
	go a.watch(a.pod, name, in, a.m.logPath(a.pod, name, c.Attempt()))
	if c.State == container.Running {
		a.watchProbes(name, in)
	}
}

func (a *actor) adoptExit(u *Unit, c *container.Container, exits map[string]record) {
	rec, ok := exits[c.ID]
	if !ok {
		rec = record{
			Code: 137, Reason: "ContainerStatusUnknown", FinishedAt: a.m.cfg.Now(), StartedAt: u.StartedAt,
			Message: "The container could not be located when the agent restarted",
		}
	}
	u.adopt(rec)
	a.dead = append(a.dead, c)
}

func (u *Unit) adopt(rec record) {
	u.Stage, u.ExitCode, u.Reason, u.Message = Exited, rec.Code, rec.Reason, rec.Message
	u.StartedAt, u.FinishedAt, u.Crashes = rec.StartedAt, rec.FinishedAt, max(1, rec.Crashes)
}

// adoptExits takes over what is known of containers that are gone altogether: from
// the files of this node, else from what the API was last told.
func (a *actor) adoptExits(exits map[string]record) {
	for id, rec := range exits {
		if !hasContainer(a.pod, rec.Name) {
			continue
		}
		if u := a.o.unit(rec.Name); u.Attempt <= rec.Attempt {
			u.Attempt, u.ID = rec.Attempt+1, id
			u.adopt(rec)
		}
	}
	for _, list := range [][]corev1.ContainerStatus{a.pod.Status.InitContainerStatuses, a.pod.Status.ContainerStatuses} {
		for _, st := range list {
			t := st.State.Terminated
			if t == nil {
				t = st.LastTerminationState.Terminated
			}
			if !hasContainer(a.pod, st.Name) || a.o.unit(st.Name).Attempt > 0 || t == nil {
				continue
			}
			u := a.o.unit(st.Name)
			u.Attempt, u.ID, u.ImageID = int(st.RestartCount)+1, strings.TrimPrefix(t.ContainerID, "containerd://"), st.ImageID
			u.adopt(record{Code: int(t.ExitCode), Reason: t.Reason, Message: t.Message, StartedAt: t.StartedAt.Time, FinishedAt: t.FinishedAt.Time})
		}
	}
}

func hasContainer(pod *corev1.Pod, name string) bool {
	has := func(c corev1.Container) bool { return c.Name == name }
	return slices.ContainsFunc(pod.Spec.Containers, has) || slices.ContainsFunc(pod.Spec.InitContainers, has)
}

func apiStatus(pod *corev1.Pod, name string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}
