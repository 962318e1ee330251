package pod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/nodeagent/container"
	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// Manager has one actor for each pod of the node.
type Manager struct {
	cfg  Config
	pods client.View[*corev1.Pod]

	mu      sync.Mutex
	actors  map[types.UID]*actor
	running sync.WaitGroup
}

// New checks the configuration.
func New(cfg Config) (*Manager, error) {
	if cfg.Client == nil || cfg.Node == "" || cfg.Runtime == nil || cfg.Images == nil || cfg.Network == nil ||
		cfg.Volumes == nil || cfg.Probes == nil || cfg.Status == nil || cfg.Host == nil {
		return nil, errors.New("configure pods: Client, Node, Runtime, Images, Network, Volumes, Probes, Status and Host are needed")
	}
	if cfg.StateDir == "" || cfg.RunDir == "" || cfg.LogDir == "" {
		return nil, errors.New("configure pods: StateDir, RunDir and LogDir are needed")
	}
	if cfg.Cgroup == "" {
		cfg.Cgroup = "/xebec"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Sources == nil {
		cfg.Sources = func(*corev1.Pod) container.Sources { return container.Sources{} }
	}
	return &Manager{
		cfg: cfg, actors: map[types.UID]*actor{},
		pods: client.For(cfg.Client, client.Pods).Informer(client.ListOptions{FieldSelector: "spec.nodeName=" + cfg.Node}),
	}, nil
}

// Run adopts what runs and follows the node's pods until ctx ends. Containers are
// left as they are.
func (m *Manager) Run(ctx context.Context) error {
	if err := m.cfg.Volumes.Synced(ctx); err != nil {
		return nil
	}
	if err := client.WaitSynced(ctx, m.pods); err != nil {
		return nil
	}
	found, err := m.cfg.Runtime.List(ctx)
	if err != nil {
		return fmt.Errorf("adopt containers: %w", err)
	}
	m.adopt(ctx, found)
	defer m.pods.Subscribe(func(e client.Event) { m.handle(ctx, e) })()
	<-ctx.Done()
	m.running.Wait()
	return nil
}

// adopt gives actors to pods that have something on this node: containers, or a
// directory. Those that the API no longer knows are ended.
func (m *Manager) adopt(ctx context.Context, found []*container.Container) {
	byPod := map[types.UID][]*container.Container{}
	for _, c := range found {
		uid := types.UID(c.Label(container.LabelPodUID))
		byPod[uid] = append(byPod[uid], c)
	}
	known := map[types.UID]*corev1.Pod{}
	for _, p := range m.pods.List("") {
		known[p.UID] = p
	}
	for _, uid := range m.homes() {
		if _, ok := byPod[uid]; !ok {
			byPod[uid] = nil
		}
	}
	var uids []string
	for uid, containers := range byPod {
		home := m.home(uid)
		saved, err := home.load()
		if err != nil {
			m.cfg.Log.Info("read a pod's saved state", "uid", uid, "err", err)
		}
		pod, alive := known[uid]
		if !alive && saved != nil {
			pod = saved.Pod
		}
		if pod == nil {
			m.discard(ctx, uid, containers)
			continue
		}
		a := m.actor(ctx, pod)
		a.adopt(ctx, saved, containers)
		if alive {
			a.post(updated{pod}) // it may be ending
		} else {
			a.post(removed{})
		}
		uids = append(uids, string(uid))
	}
	if m.cfg.Mesh != nil {
		if err := m.cfg.Mesh.Retain(ctx, uids); err != nil {
			m.cfg.Log.Warn("remove the interception of pods that are gone", "err", err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.actors {
		a.start()
	}
}

// discard removes containers of a pod of which nothing else is known.
func (m *Manager) discard(ctx context.Context, uid types.UID, containers []*container.Container) {
	for _, c := range containers {
		if err := c.Remove(ctx); err != nil {
			m.cfg.Log.Warn("remove container of an unknown pod", "container", c.ID, "err", err)
		}
	}
	if err := m.cfg.Volumes.Unmount(ctx, uid); err != nil {
		m.cfg.Log.Warn("remove volumes of an unknown pod", "uid", uid, "err", err)
	}
	_ = os.RemoveAll(m.home(uid).state)
}

func (m *Manager) homes() []types.UID {
	entries, _ := os.ReadDir(m.cfg.StateDir)
	var out []types.UID
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, types.UID(e.Name()))
		}
	}
	return out
}

func (m *Manager) handle(ctx context.Context, e client.Event) {
	if e.Type == client.Synced {
		return
	}
	pod, ok := e.Object.(*corev1.Pod)
	if !ok {
		return
	}
	if e.Type == client.Deleted {
		m.mu.Lock()
		a := m.actors[pod.UID]
		m.mu.Unlock()
		if a != nil {
			a.post(removed{})
		}
		return
	}
	if e.Type == client.Modified && e.Old != nil && e.Old.GetUID() != pod.UID {
		m.handle(ctx, client.Event{Type: client.Deleted, Object: e.Old})
	}
	if a := m.lookup(pod.UID); a == nil && settled(pod) {
		return // it ended before this agent began, and has nothing here
	}
	a := m.actor(ctx, pod)
	a.post(updated{pod})
	m.mu.Lock()
	defer m.mu.Unlock()
	a.start()
}

// settled says that a pod has ended and nobody waits for us to say so.
func settled(pod *corev1.Pod) bool {
	ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	return ended && pod.DeletionTimestamp == nil
}

func (m *Manager) lookup(uid types.UID) *actor {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.actors[uid]
}

func (m *Manager) actor(ctx context.Context, pod *corev1.Pod) *actor {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.actors[pod.UID]
	if a == nil {
		a = newActor(ctx, m, pod)
		m.actors[pod.UID] = a
	}
	return a
}

func (m *Manager) forget(a *actor) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.actors, a.uid)
}

// Poke makes the pods of a namespace that wait for configuration look again.
func (m *Manager) Poke(namespace string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.actors {
		if a.namespace == namespace {
			a.post(poked{})
		}
	}
}

// ErrNotFound says that the node has no such pod or container.
var ErrNotFound = errors.New("not found")

// Find returns what others need to reach a pod of this node.
func (m *Manager) Find(ctx context.Context, namespace, name string) (*View, error) {
	p, ok := m.pods.Get(namespace, name)
	if !ok {
		return nil, fmt.Errorf("pod %s/%s: %w on this node", namespace, name, ErrNotFound)
	}
	a := m.lookup(p.UID)
	if a == nil {
		return nil, fmt.Errorf("pod %s/%s: %w on this node", namespace, name, ErrNotFound)
	}
	return a.view(ctx)
}

// List returns the pods of this node as the API has them.
func (m *Manager) List() []*corev1.Pod { return m.pods.List("") }

func logDir(root string, pod *corev1.Pod) string {
	return filepath.Join(root, strings.Join([]string{pod.Namespace, pod.Name, string(pod.UID)}, "_"))
}
