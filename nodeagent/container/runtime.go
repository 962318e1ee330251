// Package container turns one container of a pod into a running process.
//
//	in:   a pod, one of its containers, its image, mounts and namespaces
//	out:  an OCI specification (pure), and a task in containerd
//
// A container carries its identity (pod, name, attempt) as labels in containerd, so
// that an agent that starts anew finds what it has. Exits are kept in a file beside
// the pod's other state, because containerd forgets them with the task.
package container

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	apitypes "github.com/containerd/containerd/api/types"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	taskapi "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/sandbox"
	"github.com/containerd/containerd/v2/core/snapshots"
	ctrdns "github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-mesh/xebec/nodeagent/image"
)

// The labels that identify a container. The first four are those that crictl shows.
const (
	LabelPodUID       = "io.kubernetes.pod.uid"
	LabelPodName      = "io.kubernetes.pod.name"
	LabelPodNamespace = "io.kubernetes.pod.namespace"
	LabelName         = "io.kubernetes.container.name"
	LabelAttempt      = "xebec.io/attempt"
	LabelStopSignal   = "xebec.io/stop-signal" // the image's
	LabelOwner        = "xebec.io/node-agent"  // one containerd may serve several agents in tests
)

// Config is what a Runtime works with.
type Config struct {
	Client      *client.Client
	Namespace   string // of containerd
	Owner       string // value of LabelOwner: this agent's state directory
	Snapshotter string
	Shim, Runc  string // absolute paths
	ShimCgroup  string // where shims go; "" leaves them with the agent
	RuncRoot    string // where runc keeps its state
	LogMaxSize  int64  // bytes of one log file; default 10 MiB
	LogMaxFiles int    // default 5
}

// Runtime runs containers.
type Runtime struct {
	cfg     Config
	options *anypb.Any // for the shim
}

// NewRuntime checks the configuration.
func NewRuntime(cfg Config) (*Runtime, error) {
	if cfg.Client == nil || cfg.Shim == "" || cfg.Runc == "" {
		return nil, errors.New("configure containers: Client, Shim and Runc are needed")
	}
	if cfg.LogMaxSize == 0 {
		cfg.LogMaxSize = 10 << 20
	}
	if cfg.LogMaxFiles == 0 {
		cfg.LogMaxFiles = 5
	}
	opts, err := typeurl.MarshalAnyToProto(&runcoptions.Options{
		BinaryName: cfg.Runc, Root: cfg.RuncRoot, ShimCgroup: cfg.ShimCgroup,
	})
	if err != nil {
		return nil, fmt.Errorf("encode runc options: %w", err)
	}
	return &Runtime{cfg: cfg, options: opts}, nil
}

// Context adds containerd's namespace to ctx.
func (r *Runtime) Context(ctx context.Context) context.Context {
	return ctrdns.WithNamespace(ctx, r.cfg.Namespace)
}

// Output says where a container's output goes.
type Output struct {
	LogPath    string
	AttachPath string // Unix socket that `attach` connects to
	ExitPath   string // where the shim records how the container ended
}

func (r *Runtime) outputURI(o Output, req Request) string {
	q := url.Values{"max-size": {strconv.FormatInt(r.cfg.LogMaxSize, 10)}, "max-files": {strconv.Itoa(r.cfg.LogMaxFiles)}}
	if o.AttachPath != "" {
		q.Set("attach", o.AttachPath)
	}
	if o.ExitPath != "" {
		q.Set("exit", o.ExitPath)
		q.Set("name", req.Container.Name)
		q.Set("attempt", strconv.Itoa(req.Attempt))
	}
	if req.Container.Stdin {
		q.Set("stdin", "open")
		if req.Container.StdinOnce {
			q.Set("stdin", "once")
		}
	}
	return (&url.URL{Scheme: "xebec", Path: o.LogPath, RawQuery: q.Encode()}).String()
}

// Rootfs is a container's writable file system before it is mounted.
type Rootfs struct {
	key    string
	Mounts []mount.Mount
}

// Prepare makes the container's file system over the image's.
func (r *Runtime) Prepare(ctx context.Context, id string, img *image.Image) (*Rootfs, error) {
	// The label keeps the collector away until the container's record refers to it.
	keep := snapshots.WithLabels(map[string]string{"containerd.io/gc.root": time.Now().UTC().Format(time.RFC3339)})
	m, err := r.cfg.Client.SnapshotService(r.cfg.Snapshotter).Prepare(r.Context(ctx), id, img.ChainID, keep)
	if err != nil {
		return nil, fmt.Errorf("prepare file system of container %s: %w", id, err)
	}
	return &Rootfs{key: id, Mounts: m}, nil
}

// Create makes the container and its first process, which waits: its cgroup and
// namespaces exist. Start lets it go.
func (r *Runtime) Create(ctx context.Context, req Request, root *Rootfs, out Output) (*Container, error) {
	ctx = r.Context(ctx)
	spec, err := BuildSpec(req)
	if err != nil {
		return nil, err
	}
	anySpec, err := typeurl.MarshalAnyToProto(spec)
	if err != nil {
		return nil, fmt.Errorf("encode spec of container %s: %w", req.ID, err)
	}
	c := &Container{r: r, ID: req.ID, Image: req.Container.Image, labels: map[string]string{
		LabelPodUID: string(req.Pod.UID), LabelPodName: req.Pod.Name, LabelPodNamespace: req.Pod.Namespace,
		LabelStopSignal: req.Image.StopSignal,
		LabelName:       req.Container.Name, LabelAttempt: strconv.Itoa(req.Attempt), LabelOwner: r.cfg.Owner,
	}}
	record := containers.Container{
		ID: req.ID, Labels: c.labels, Image: req.Container.Image, Spec: anySpec,
		Runtime:     containers.RuntimeInfo{Name: r.cfg.Shim, Options: r.options},
		Snapshotter: r.cfg.Snapshotter, SnapshotKey: root.key,
	}
	if req.Shim != "" {
		record.SandboxID = sandboxID
	}
	if _, err := r.cfg.Client.ContainerService().Create(ctx, record); err != nil {
		return nil, fmt.Errorf("create container %s: %w", req.ID, err)
	}
	pid, err := r.createTask(ctx, req, root, out)
	if err != nil {
		_ = r.cfg.Client.ContainerService().Delete(context.WithoutCancel(ctx), req.ID)
		return nil, err
	}
	c.PID = pid
	return c, nil
}

func (r *Runtime) createTask(ctx context.Context, req Request, root *Rootfs, out Output) (uint32, error) {
	uri := r.outputURI(out, req)
	t := &tasks.CreateTaskRequest{ContainerID: req.ID, Terminal: req.Container.TTY, Stdout: uri, Stderr: uri, Options: r.options}
	if req.Shim != "" {
		t.TaskApiAddress, t.TaskApiVersion = req.Shim, shimVersion
	}
	for _, m := range root.Mounts {
		t.Rootfs = append(t.Rootfs, &apitypes.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	for try := 0; ; try++ {
		resp, err := r.cfg.Client.TaskService().Create(ctx, t)
		if err == nil {
			return resp.Pid, nil
		}
		// The pod's shim may be ending, since its last container has just gone: the
		// next attempt starts a new one.
		if try == 3 || !strings.Contains(err.Error(), "ttrpc: closed") {
			return 0, fmt.Errorf("create task of container %s: %w", req.ID, errgrpc.ToNative(err))
		}
	}
}

// containerd connects to a shim that it has not started if the container belongs
// to a sandbox that it knows. One such record stands for all pods.
const (
	sandboxID   = "xebec"
	shimVersion = 3
)

// Open makes the record by which containers can be given a shim.
func (r *Runtime) Open(ctx context.Context) error {
	_, err := r.cfg.Client.SandboxStore().Create(r.Context(ctx), sandbox.Sandbox{ID: sandboxID, Runtime: sandbox.RuntimeOpts{Name: r.cfg.Shim}})
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("record the pods' sandbox in containerd: %w", err)
	}
	return nil
}

// ShimGone says whether err is that a container's shim does not answer.
func ShimGone(err error) bool {
	s := err.Error()
	return strings.Contains(s, "ttrpc: closed") || strings.Contains(s, "connection refused") || strings.Contains(s, "no such file or directory: unavailable") || strings.Contains(s, "unable to make connection")
}

// Discard removes a file system that no container came to use.
func (r *Runtime) Discard(ctx context.Context, root *Rootfs) error {
	err := r.cfg.Client.SnapshotService(r.cfg.Snapshotter).Remove(r.Context(ctx), root.key)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove file system of container %s: %w", root.key, err)
	}
	return nil
}

// List finds the containers that this agent made, running or not.
func (r *Runtime) List(ctx context.Context) ([]*Container, error) {
	ctx = r.Context(ctx)
	filter := fmt.Sprintf("labels.%q==%q", LabelOwner, r.cfg.Owner)
	records, err := r.cfg.Client.ContainerService().List(ctx, filter)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	out := make([]*Container, len(records))
	var g errgroup.Group
	g.SetLimit(16)
	for i, rec := range records {
		c := &Container{r: r, ID: rec.ID, Image: rec.Image, labels: rec.Labels, CreatedAt: rec.CreatedAt}
		out[i] = c
		g.Go(func() error {
			resp, err := r.cfg.Client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: c.ID})
			if err != nil {
				return nil // no task: it has exited, or was never started
			}
			c.PID, c.State = resp.Process.Pid, stateOf(resp.Process.Status)
			if resp.Process.ExitedAt != nil {
				c.exited = Exit{Code: int(resp.Process.ExitStatus), At: resp.Process.ExitedAt.AsTime()}
			}
			return nil
		})
	}
	return out, g.Wait()
}

func stateOf(s taskapi.Status) State {
	switch s {
	case taskapi.Status_CREATED:
		return Created
	case taskapi.Status_RUNNING, taskapi.Status_PAUSED, taskapi.Status_PAUSING:
		return Running
	case taskapi.Status_STOPPED:
		return Stopped
	}
	return Gone
}

// State is what containerd knows of a container's task.
type State uint8

const (
	Gone State = iota // no task
	Created
	Running
	Stopped
)

// Container is one container in containerd.
type Container struct {
	ID        string
	Image     string // reference, as the pod had it
	PID       uint32
	State     State // as List found it
	CreatedAt time.Time

	r      *Runtime
	labels map[string]string
	exited Exit
}

// Label returns one of the labels.
func (c *Container) Label(name string) string { return c.labels[name] }

// Attempt is how many containers of its name the pod had before.
func (c *Container) Attempt() int {
	n, _ := strconv.Atoi(c.labels[LabelAttempt])
	return n
}

// Exit says how a container ended.
type Exit struct {
	Code      int       `json:"code"`
	At        time.Time `json:"at"`
	OOMKilled bool      `json:"oomKilled,omitempty"`
	Err       error     `json:"-"` // why the code is not known
}

// Start lets a created container run.
func (c *Container) Start(ctx context.Context) error {
	_, err := c.r.cfg.Client.TaskService().Start(c.r.Context(ctx), &tasks.StartRequest{ContainerID: c.ID})
	if err != nil {
		return fmt.Errorf("start container %s: %w", c.ID, errgrpc.ToNative(err))
	}
	return nil
}

// Wait returns when the container has exited, or with Err when ctx ends.
func (c *Container) Wait(ctx context.Context) Exit {
	resp, err := c.r.cfg.Client.TaskService().Wait(c.r.Context(ctx), &tasks.WaitRequest{ContainerID: c.ID})
	if err != nil {
		return Exit{Code: -1, At: time.Now(), Err: fmt.Errorf("wait for container %s: %w", c.ID, errgrpc.ToNative(err))}
	}
	return Exit{Code: int(resp.ExitStatus), At: resp.ExitedAt.AsTime()}
}

// Kill signals the container's first process, or with all every one.
func (c *Container) Kill(ctx context.Context, sig syscall.Signal, all bool) error {
	_, err := c.r.cfg.Client.TaskService().Kill(c.r.Context(ctx), &tasks.KillRequest{ContainerID: c.ID, Signal: uint32(sig), All: all})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("signal container %s: %w", c.ID, err)
	}
	return nil
}

// DeleteTask frees what a process that has exited holds: its mounts, cgroup, and
// the shim if it was the pod's last.
func (c *Container) DeleteTask(ctx context.Context) error {
	_, err := c.r.cfg.Client.TaskService().Delete(c.r.Context(ctx), &tasks.DeleteTaskRequest{ContainerID: c.ID})
	if err = errgrpc.ToNative(err); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete task of container %s: %w", c.ID, err)
	}
	return nil
}

// Remove kills and forgets the container and its file system.
func (c *Container) Remove(ctx context.Context) error {
	ctx = c.r.Context(ctx)
	_ = c.Kill(ctx, syscall.SIGKILL, true)
	if err := c.DeleteTask(ctx); err != nil {
		if errdefs.IsFailedPrecondition(err) {
			c.Wait(ctx)
			err = c.DeleteTask(ctx)
		}
		if err != nil {
			return err
		}
	}
	if err := c.r.Discard(ctx, &Rootfs{key: c.ID}); err != nil {
		return err
	}
	if err := c.r.cfg.Client.ContainerService().Delete(ctx, c.ID); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove container %s: %w", c.ID, err)
	}
	return nil
}
