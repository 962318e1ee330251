// Package volume gives pods their files.
//
//	in:   a pod; ConfigMaps, Secrets, tokens, the pod's own fields
//	out:  directories on this machine, kept up to date until the pod goes
//
// What is projected from objects changes atomically: files are links through
// `..data`, which is replaced in one rename. What is secret lies in memory only.
// Mounting twice is the same as mounting once: so an agent that starts anew adopts.
package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// MeshDriver is the inline CSI driver whose volume holds the agent's socket.
const MeshDriver = "mesh.xebec.io"

// Config is what a Manager works with.
type Config struct {
	Client   client.Interface
	StateDir string // of pods: volumes on disk lie in <StateDir>/<uid>/volumes
	RunDir   string // volumes in memory lie in <RunDir>/<uid>
	Node     string

	// Mesh makes a meshed pod's directory with its socket and returns it.
	Mesh func(ctx context.Context, pod *corev1.Pod) (string, error)

	// Allocatable stands in for limits in the downward API.
	Allocatable func() corev1.ResourceList

	Log *slog.Logger
}

// Mounted is where a volume lies.
type Mounted struct {
	Path     string
	ReadOnly bool
}

// Manager is the only writer of the pods' volumes.
type Manager struct {
	cfg     Config
	maps    client.View[*corev1.ConfigMap]
	secrets client.View[*corev1.Secret]

	mu   sync.Mutex
	pods map[types.UID]*podVolumes
}

// podVolumes are one pod's. Its lock is held while they are written.
type podVolumes struct {
	mu     sync.Mutex
	pod    *corev1.Pod
	gone   bool
	tokens map[string]*token // by volume and path
	timer  *time.Timer
}

// New checks the configuration.
func New(cfg Config) (*Manager, error) {
	if cfg.Client == nil || cfg.StateDir == "" || cfg.RunDir == "" {
		return nil, errors.New("configure volumes: Client, StateDir and RunDir are needed")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Allocatable == nil {
		cfg.Allocatable = func() corev1.ResourceList { return nil }
	}
	return &Manager{
		cfg:     cfg,
		maps:    client.For(cfg.Client, client.ConfigMaps).Informer(client.ListOptions{}),
		secrets: client.For(cfg.Client, client.Secrets).Informer(client.ListOptions{}),
		pods:    map[types.UID]*podVolumes{},
	}, nil
}

// ConfigMap reads a ConfigMap that pods may use.
func (m *Manager) ConfigMap(namespace, name string) (*corev1.ConfigMap, bool) {
	return m.maps.Get(namespace, name)
}

// Secret reads a Secret that pods may use.
func (m *Manager) Secret(namespace, name string) (*corev1.Secret, bool) {
	return m.secrets.Get(namespace, name)
}

// Synced waits until ConfigMaps and Secrets are known.
func (m *Manager) Synced(ctx context.Context) error { return client.WaitSynced(ctx, m.maps, m.secrets) }

// Run follows ConfigMaps and Secrets until ctx ends. changed is told the namespace
// of each one that came or changed.
func (m *Manager) Run(ctx context.Context, changed func(namespace string)) error {
	follow := func(kind string) func(client.Event) {
		return func(e client.Event) {
			if e.Type != client.Synced {
				m.refresh(ctx, kind, client.Key(e.Object))
				changed(e.Object.GetNamespace())
			}
		}
	}
	defer m.maps.Subscribe(follow("ConfigMap"))()
	defer m.secrets.Subscribe(follow("Secret"))()
	<-ctx.Done()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.pods {
		v.mu.Lock()
		v.stop()
		v.mu.Unlock()
	}
	return nil
}

func (v *podVolumes) stop() {
	v.gone = true
	if v.timer != nil {
		v.timer.Stop()
	}
}

// refresh writes anew what comes from an object that has changed.
func (m *Manager) refresh(ctx context.Context, kind string, key types.NamespacedName) {
	m.mu.Lock()
	var affected []*podVolumes
	for _, v := range m.pods {
		if v.pod.Namespace == key.Namespace && uses(v.pod, kind, key.Name) {
			affected = append(affected, v)
		}
	}
	m.mu.Unlock()
	for _, v := range affected {
		v.mu.Lock()
		if err := m.rewrite(ctx, v); err != nil {
			m.cfg.Log.Info("update volumes", "pod", client.Key(v.pod), "err", err)
		}
		v.mu.Unlock()
	}
}

func uses(pod *corev1.Pod, kind, name string) bool {
	for _, vol := range pod.Spec.Volumes {
		for _, s := range sources(vol.VolumeSource) {
			if kind == "ConfigMap" && s.ConfigMap != nil && s.ConfigMap.Name == name ||
				kind == "Secret" && s.Secret != nil && s.Secret.Name == name {
				return true
			}
		}
	}
	return false
}

// Update tells of a pod whose labels or annotations may have changed.
func (m *Manager) Update(ctx context.Context, pod *corev1.Pod) {
	m.mu.Lock()
	v := m.pods[pod.UID]
	m.mu.Unlock()
	if v == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.pod = pod
	if err := m.rewrite(ctx, v); err != nil {
		m.cfg.Log.Info("update volumes", "pod", client.Key(pod), "err", err)
	}
}

// rewrite writes the projected volumes of a pod that has them mounted.
func (m *Manager) rewrite(ctx context.Context, v *podVolumes) error {
	if v.gone {
		return nil
	}
	var errs []error
	for i := range v.pod.Spec.Volumes {
		vol := &v.pod.Spec.Volumes[i]
		if src := sources(vol.VolumeSource); src != nil {
			if err := m.project(ctx, v, vol, src); err != nil {
				errs = append(errs, fmt.Errorf("volume %q: %w", vol.Name, err))
			}
		}
	}
	m.schedule(ctx, v)
	return errors.Join(errs...)
}

// Mount makes a pod's volumes and returns where they are, by name.
func (m *Manager) Mount(ctx context.Context, pod *corev1.Pod) (map[string]Mounted, error) {
	m.mu.Lock()
	v := m.pods[pod.UID]
	if v == nil {
		v = &podVolumes{tokens: map[string]*token{}}
		m.pods[pod.UID] = v
	}
	v.pod = pod
	m.mu.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	out := map[string]Mounted{}
	for i := range pod.Spec.Volumes {
		vol := &pod.Spec.Volumes[i]
		at, err := m.mount(ctx, v, vol)
		if err != nil {
			return nil, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", vol.Name, err)
		}
		out[vol.Name] = at
	}
	m.schedule(ctx, v)
	return out, nil
}

func (m *Manager) disk(pod *corev1.Pod, name string) string {
	return filepath.Join(m.cfg.StateDir, string(pod.UID), "volumes", name)
}

func (m *Manager) memory(pod *corev1.Pod) string {
	return filepath.Join(m.cfg.RunDir, string(pod.UID), "memory")
}

// mount makes one volume.
func (m *Manager) mount(ctx context.Context, v *podVolumes, vol *corev1.Volume) (Mounted, error) {
	if src := sources(vol.VolumeSource); src != nil {
		return Mounted{Path: m.projectedDir(v.pod, vol), ReadOnly: true}, m.project(ctx, v, vol, src)
	}
	switch {
	case vol.EmptyDir != nil, vol.VolumeSource == corev1.VolumeSource{}:
		return m.emptyDir(v.pod, vol)
	case vol.HostPath != nil:
		return hostPath(vol.HostPath)
	case vol.CSI != nil && vol.CSI.Driver == MeshDriver:
		if m.cfg.Mesh == nil {
			return Mounted{}, fmt.Errorf("driver %s: this node has no mesh", MeshDriver)
		}
		dir, err := m.cfg.Mesh(ctx, v.pod)
		return Mounted{Path: dir, ReadOnly: true}, err
	case vol.CSI != nil:
		return Mounted{}, fmt.Errorf("CSI driver %q is not known on this node", vol.CSI.Driver)
	}
	return Mounted{}, errors.New("volumes of this type are not supported on this node")
}

func (m *Manager) emptyDir(pod *corev1.Pod, vol *corev1.Volume) (Mounted, error) {
	dir := m.disk(pod, vol.Name)
	if _, err := os.Stat(filepath.Join(dir, ".")); err == nil {
		return Mounted{Path: dir}, nil // what the containers wrote stays as it is
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return Mounted{}, err
	}
	if vol.EmptyDir != nil && vol.EmptyDir.Medium == corev1.StorageMediumMemory {
		data := "mode=0777"
		if q := vol.EmptyDir.SizeLimit; q != nil && q.Sign() > 0 {
			data += ",size=" + strconv.FormatInt(q.Value(), 10)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
			return Mounted{}, errors.Join(fmt.Errorf("mount tmpfs: %w", err), os.Remove(dir))
		}
	}
	mode := os.FileMode(0o777)
	if g := fsGroup(pod); g != nil {
		if err := os.Chown(dir, -1, int(*g)); err != nil {
			return Mounted{}, err
		}
		mode |= os.ModeSetgid
	}
	return Mounted{Path: dir}, os.Chmod(dir, mode)
}

func fsGroup(pod *corev1.Pod) *int64 {
	if s := pod.Spec.SecurityContext; s != nil {
		return s.FSGroup
	}
	return nil
}

func hostPath(h *corev1.HostPathVolumeSource) (Mounted, error) {
	kind := corev1.HostPathUnset
	if h.Type != nil {
		kind = *h.Type
	}
	st, err := os.Stat(h.Path)
	missing := errors.Is(err, os.ErrNotExist)
	if err != nil && !missing {
		return Mounted{}, err
	}
	wrong := func(what string) error { return fmt.Errorf("hostPath type check failed: %s is not a %s", h.Path, what) }
	switch kind {
	case corev1.HostPathUnset:
	case corev1.HostPathDirectoryOrCreate:
		if missing {
			return Mounted{Path: h.Path}, os.MkdirAll(h.Path, 0o755)
		}
		if !st.IsDir() {
			return Mounted{}, wrong("directory")
		}
	case corev1.HostPathFileOrCreate:
		if missing {
			f, err := os.OpenFile(h.Path, os.O_CREATE|os.O_RDONLY, 0o644)
			if err != nil {
				return Mounted{}, err
			}
			return Mounted{Path: h.Path}, f.Close()
		}
		if !st.Mode().IsRegular() {
			return Mounted{}, wrong("file")
		}
	default:
		want := map[corev1.HostPathType]func(os.FileMode) bool{
			corev1.HostPathDirectory: os.FileMode.IsDir,
			corev1.HostPathFile:      os.FileMode.IsRegular,
			corev1.HostPathSocket:    func(m os.FileMode) bool { return m&os.ModeSocket != 0 },
			corev1.HostPathCharDev:   func(m os.FileMode) bool { return m&os.ModeCharDevice != 0 },
			corev1.HostPathBlockDev:  func(m os.FileMode) bool { return m&os.ModeDevice != 0 && m&os.ModeCharDevice == 0 },
		}[kind]
		if want == nil || missing || !want(st.Mode()) {
			return Mounted{}, wrong(string(kind))
		}
	}
	if missing && kind == corev1.HostPathUnset {
		return Mounted{Path: h.Path}, os.MkdirAll(h.Path, 0o755)
	}
	return Mounted{Path: h.Path}, nil
}

// Unmount removes a pod's volumes and all that they hold.
func (m *Manager) Unmount(_ context.Context, uid types.UID) error {
	m.mu.Lock()
	v := m.pods[uid]
	delete(m.pods, uid)
	m.mu.Unlock()
	if v != nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.stop()
	}
	for _, dir := range []string{filepath.Join(m.cfg.StateDir, string(uid)), filepath.Join(m.cfg.RunDir, string(uid))} {
		if err := UnmountBelow(dir); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(filepath.Join(m.cfg.StateDir, string(uid), "volumes")); err != nil {
		return fmt.Errorf("remove volumes of pod %s: %w", uid, err)
	}
	if err := os.RemoveAll(filepath.Join(m.cfg.RunDir, string(uid))); err != nil {
		return fmt.Errorf("remove volumes of pod %s: %w", uid, err)
	}
	return nil
}

// UnmountBelow unmounts all that is mounted at dir or below it.
func UnmountBelow(dir string) error {
	points, err := mountPoints(dir)
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(points) {
		if err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL && err != unix.ENOENT {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	return nil
}
