// Package registry keeps the mesh model in step with the API.
//
//	in:   Services, EndpointSlices, Pods and mesh configuration, from client informers
//	out:  model.Mesh and the keys by which it differs from the one before
//
// One goroutine applies events and publishes. It takes whatever has arrived since the
// last time, so there is no delay to wait for more. Nothing is published before every
// informer has delivered its first list: what is absent then is absent for real.
package registry

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/pilot/model"
)

// Config is what a Registry needs.
type Config struct {
	Client   client.Interface
	Settings model.Settings
	Publish  func(m *model.Mesh, touched []model.Key) // called from one goroutine, never with an empty touched but for the first time
	Log      *slog.Logger
}

// Registry turns events into models.
type Registry struct {
	cfg    Config
	queue  queue
	synced chan struct{}
}

// New checks the configuration.
func New(cfg Config) (*Registry, error) {
	if cfg.Client == nil || cfg.Publish == nil || cfg.Log == nil {
		return nil, errors.New("registry: Client, Publish and Log are needed")
	}
	return &Registry{cfg: cfg, queue: queue{wake: make(chan struct{}, 1)}, synced: make(chan struct{})}, nil
}

// Synced is closed when the first model has been published.
func (r *Registry) Synced() <-chan struct{} { return r.synced }

// Resources lists what the registry follows.
func Resources() []client.Resource {
	return []client.Resource{
		client.Services.Resource, client.EndpointSlices.Resource, client.Pods.Resource,
		client.VirtualServices.Resource, client.DestinationRules.Resource,
		client.PeerAuthentications.Resource, client.Sidecars.Resource, client.ServiceEntries.Resource,
	}
}

// Run follows the API until ctx ends.
func (r *Registry) Run(ctx context.Context) error {
	waiting := 0
	for _, res := range Resources() {
		waiting++
		cancel := r.cfg.Client.Informer(res, client.ListOptions{}).Subscribe(r.queue.put)
		defer cancel()
	}
	state := NewState(r.cfg.Settings)
	first := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.queue.wake:
		}
		for _, e := range r.queue.take() {
			if e.Type == client.Synced {
				waiting--
				continue
			}
			state.Apply(e)
		}
		if waiting > 0 {
			continue
		}
		mesh, touched := state.Commit()
		if first {
			close(r.synced)
		}
		if first || len(touched) > 0 {
			r.cfg.Log.Debug("mesh changed", "rev", mesh.Revision, "keys", len(touched))
			r.cfg.Publish(mesh, touched)
		}
		first = false
	}
}

// queue holds events until they are taken all at once.
type queue struct {
	mu     sync.Mutex
	events []client.Event
	wake   chan struct{}
}

func (q *queue) put(e client.Event) {
	if pod, ok := e.Object.(*corev1.Pod); ok && e.Type == client.Modified && sameForMesh(e.Old.(*corev1.Pod), pod) {
		return
	}
	q.mu.Lock()
	q.events = append(q.events, e)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) take() []client.Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.events
	q.events = nil
	return out
}

// sameForMesh spares the model the many updates of pods' status.
func sameForMesh(a, b *corev1.Pod) bool {
	return model.Ended(a) == model.Ended(b) && *model.WorkloadOf(a) == *model.WorkloadOf(b)
}
