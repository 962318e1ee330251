package pod

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/nodeagent/container"
	"github.com/xebec-mesh/xebec/nodeagent/image"
)

// failure is why a container could not be started, in the words of its status.
type failure struct {
	reason, message string
	ran             bool // counts as a run: the fault is in the container
}

func (f *failure) Error() string { return f.reason + ": " + f.message }

// launch is one attempt to start a container.
type launch struct {
	cfg     Config
	pod     *corev1.Pod
	c       *corev1.Container
	host    Host
	home    home
	sandbox *sandbox
	id      string
	attempt int
	log     string
}

// startContainer begins an attempt.
func (a *actor) startContainer(c *corev1.Container) {
	u := a.o.unit(c.Name)
	l := &launch{
		cfg: a.m.cfg, pod: a.pod, c: c, host: a.m.cfg.Host(), home: a.home, sandbox: a.sandbox, id: newID(), attempt: u.Attempt,
	}
	l.log = a.m.logPath(a.pod, c.Name, l.attempt)
	ctx := a.work
	go func() {
		begin := time.Now()
		cont, img, err := l.run(ctx)
		if err != nil {
			a.post(l.failed(cont, err))
			return
		}
		in := newInstance(cont)
		a.post(started{name: c.Name, in: in, id: l.id, at: a.m.cfg.Now(), imageID: img.ID})
		a.log.Debug("container started", "container", c.Name, "id", l.id, "took", time.Since(begin))
		l.event(corev1.EventTypeNormal, "Started", "Container started")
		go a.watch(l.pod, c.Name, in, l.log)
		a.postStart(ctx, l, in)
	}()
}

func newID() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func (m *Manager) logPath(pod *corev1.Pod, container string, attempt int) string {
	return filepath.Join(logDir(m.cfg.LogDir, pod), container, strconv.Itoa(attempt)+".log")
}

func (l *launch) event(kind, reason, format string, args ...any) {
	recordEvent(l.cfg.Events, l.pod, l.c.Name, kind, reason, format, args...)
}

// run makes the container and starts it. A container that is returned with an
// error has to be removed.
func (l *launch) run(ctx context.Context) (*container.Container, *image.Image, error) {
	img, err := l.image(ctx)
	if err != nil {
		return nil, nil, err
	}
	root, err := l.cfg.Runtime.Prepare(ctx, l.id, img)
	if err != nil {
		return nil, nil, err
	}
	cont, err := l.create(ctx, img, root)
	if err != nil {
		if cont == nil {
			_ = l.cfg.Runtime.Discard(context.WithoutCancel(ctx), root)
		}
		return cont, nil, err
	}
	l.event(corev1.EventTypeNormal, "Created", "Container created")
	if l.cfg.Mesh != nil {
		if err := l.cfg.Mesh.Attach(ctx, l.pod, l.c.Name, filepath.Join(cgroup(l.cfg, l.pod), l.id)); err != nil {
			return cont, nil, fmt.Errorf("intercept container: %w", err)
		}
	}
	if err := l.sandbox.wait(ctx, l.sandbox.ready); err != nil {
		return cont, nil, err
	}
	if ctx.Err() != nil {
		return cont, nil, ctx.Err()
	}
	if err := cont.Start(context.WithoutCancel(ctx)); err != nil {
		return cont, nil, &failure{"StartError", runtimeMessage(err), true}
	}
	return cont, img, nil
}

// failed translates an error to what the actor and the user hear.
func (l *launch) failed(cont *container.Container, err error) notStarted {
	e := notStarted{name: l.c.Name, id: l.id, dead: cont}
	var f *failure
	switch {
	case errors.Is(err, errSandbox), errors.Is(err, context.Canceled):
		return e
	case errors.As(err, &f):
		e.reason, e.message, e.ran = f.reason, f.message, f.ran
	case container.IsConfigError(err):
		e.reason, e.message = "CreateContainerConfigError", err.Error()
	default:
		e.reason, e.message = "CreateContainerError", err.Error()
	}
	l.event(corev1.EventTypeWarning, "Failed", "Error: %s", e.message)
	return e
}

// runtimeMessage keeps of a runtime's error what concerns the user.
func runtimeMessage(err error) string {
	s := err.Error()
	if i := strings.Index(s, "OCI runtime"); i >= 0 {
		s = "failed to create containerd task: failed to create shim task: " + s[i:]
	}
	return s
}

// image gets the image by the container's pull policy.
func (l *launch) image(ctx context.Context) (*image.Image, error) {
	ref, policy := l.c.Image, l.c.ImagePullPolicy
	ctx = l.cfg.Runtime.Context(ctx)
	if policy != corev1.PullAlways || local(ref) {
		img, err := l.cfg.Images.Get(ctx, ref)
		switch {
		case err == nil:
			l.event(corev1.EventTypeNormal, "Pulled", "Container image %q already present on machine", ref)
			return img, nil
		case errors.Is(err, image.ErrInvalidName):
			l.event(corev1.EventTypeWarning, "InspectFailed", "Failed to apply default image tag %q: %s", ref, err)
			return nil, &failure{"InvalidImageName", fmt.Sprintf("Failed to apply default image tag %q: %s", ref, err), false}
		case !errors.Is(err, image.ErrNotPresent):
			return nil, &failure{"ImageInspectError", err.Error(), false}
		case policy == corev1.PullNever:
			return nil, &failure{"ErrImageNeverPull", fmt.Sprintf("Container image %q is not present with pull policy of Never", ref), false}
		}
	}
	l.event(corev1.EventTypeNormal, "Pulling", "Pulling image %q", ref)
	begin := time.Now()
	img, err := l.cfg.Images.Pull(ctx, ref, l.pullSecrets())
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Canceled
		}
		l.event(corev1.EventTypeWarning, "Failed", "Failed to pull image %q: %s", ref, err)
		return nil, &failure{"ErrImagePull", err.Error(), false}
	}
	l.event(corev1.EventTypeNormal, "Pulled", "Successfully pulled image %q in %s. Image size: %d bytes.", ref, time.Since(begin).Round(time.Millisecond), img.Size)
	return img, nil
}

// local says that no registry serves a reference: its image is built on the node.
func local(ref string) bool { return image.Registry(ref) == "xebec.local" }

func (l *launch) pullSecrets() []*corev1.Secret {
	var out []*corev1.Secret
	for _, ref := range l.pod.Spec.ImagePullSecrets {
		if s, ok := l.cfg.Volumes.Secret(l.pod.Namespace, ref.Name); ok {
			out = append(out, s)
		}
	}
	return out
}

// create makes the container, whose process then waits.
func (l *launch) create(ctx context.Context, img *image.Image, root *container.Rootfs) (*container.Container, error) {
	user, err := container.UserFor(ctx, l.pod, l.c, img.Config.User, root)
	if err != nil {
		return nil, err
	}
	s := l.sandbox
	if err := s.wait(ctx, s.spaces); err != nil {
		return nil, err
	}
	if err := s.wait(ctx, s.mounted); err != nil {
		return nil, err
	}
	if needsIP(l.c) {
		if err := s.wait(ctx, s.ready); err != nil {
			return nil, err
		}
	}
	env, err := container.Environment(l.pod, l.c, l.sources())
	if err != nil {
		return nil, err
	}
	mounts, err := l.mounts(env)
	if err != nil {
		return nil, err
	}
	req := container.Request{
		ID: l.id, Pod: l.pod, Container: l.c, Attempt: l.attempt, Image: img.Config, User: user, Env: env, Mounts: mounts,
		Cgroup: cgroup(l.cfg, l.pod), Host: l.host.OCI,
	}
	if !l.pod.Spec.HostNetwork {
		sp := l.home.spaces()
		req.Namespaces = container.Namespaces{Net: sp.Net(), IPC: sp.IPC(), UTS: sp.UTS()}
		if isTrue(l.pod.Spec.ShareProcessNamespace) {
			req.Namespaces.PID = sp.PID()
		}
	}
	req.Hostname, _ = hostname(l.pod, l.host)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err := s.wait(ctx, s.shimmed); err != nil {
		return nil, err
	}
	return l.createIn(context.WithoutCancel(ctx), req, root)
}

// createIn creates the container in the pod's shim; where that is dead, in a new one.
func (l *launch) createIn(ctx context.Context, req container.Request, root *container.Rootfs) (*container.Container, error) {
	out := container.Output{LogPath: l.log, AttachPath: l.home.attach(l.id), ExitPath: l.home.exit(l.id)}
	gone := ""
	for {
		var err error
		if req.Shim, err = l.sandbox.address(ctx, l.home, l.cfg.Shims, gone); err != nil {
			return nil, err
		}
		cont, err := l.cfg.Runtime.Create(ctx, req, root, out)
		switch {
		case err == nil:
			return cont, nil
		case strings.Contains(err.Error(), "OCI runtime create failed"):
			return nil, &failure{"StartError", runtimeMessage(err), true}
		case gone == "" && req.Shim != "" && container.ShimGone(err):
			gone = req.Shim
		default:
			return nil, err
		}
	}
}

func needsIP(c *corev1.Container) bool {
	return slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool {
		return e.ValueFrom != nil && e.ValueFrom.FieldRef != nil && strings.HasPrefix(e.ValueFrom.FieldRef.FieldPath, "status.podIP")
	})
}

func (l *launch) sources() container.Sources {
	src := l.cfg.Sources(l.pod)
	src.ConfigMap = func(name string) (*corev1.ConfigMap, bool) { return l.cfg.Volumes.ConfigMap(l.pod.Namespace, name) }
	src.Secret = func(name string) (*corev1.Secret, bool) { return l.cfg.Volumes.Secret(l.pod.Namespace, name) }
	src.HostIPs = l.host.IPs
	select {
	case <-l.sandbox.ready:
		src.PodIPs = addresses(l.sandbox.ips)
	default:
	}
	return src
}

// mounts are the container's volumes and what every container gets.
func (l *launch) mounts(env []string) ([]specs.Mount, error) {
	expand := func(s string) string {
		return container.Expand(s, func(name string) (string, bool) {
			for _, kv := range slices.Backward(env) {
				if v, ok := strings.CutPrefix(kv, name+"="); ok {
					return v, true
				}
			}
			return "", false
		})
	}
	out, err := l.cfg.Volumes.Mounts(l.pod, l.c, l.sandbox.volumes, expand)
	if err != nil {
		return nil, err
	}
	bind := func(src, dst string, opts ...string) {
		if slices.ContainsFunc(out, func(m specs.Mount) bool { return m.Destination == dst }) {
			return
		}
		out = append(out, specs.Mount{Destination: dst, Type: "bind", Source: src, Options: append([]string{"rbind", "rprivate"}, opts...)})
	}
	for _, file := range []string{"hosts", "resolv.conf", "hostname"} {
		bind(l.home.etc(file), "/etc/"+file, "rw")
	}
	shm := l.home.shm()
	if l.pod.Spec.HostIPC {
		shm = "/dev/shm"
	}
	bind(shm, "/dev/shm", "rw")
	path := l.c.TerminationMessagePath
	if path == "" {
		path = corev1.TerminationMessagePathDefault
	}
	if err := os.WriteFile(l.home.message(l.id), nil, 0o666); err != nil {
		return nil, fmt.Errorf("make termination message file: %w", err)
	}
	if err := os.Chmod(l.home.message(l.id), 0o666); err != nil {
		return nil, fmt.Errorf("make termination message file: %w", err)
	}
	bind(l.home.message(l.id), path, "rw")
	return out, nil
}
