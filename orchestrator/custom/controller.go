package custom

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/openapi"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// Registrar takes kinds into service.
type Registrar interface {
	AddKind(k *resource.Kind) error
	RemoveKind(gvr schema.GroupVersionResource)
}

// Config is what the controller works with.
type Config struct {
	Client   client.Interface // CustomResourceDefinitions, and their instances at deletion
	Registry Registrar
	Now      func() time.Time // default time.Now
	Log      *slog.Logger
}

// Controller serves what the definitions define.
type Controller struct {
	cfg   Config
	log   *slog.Logger
	view  client.View[*apiextensionsv1.CustomResourceDefinition]
	ready chan struct{}

	mu     sync.Mutex
	active map[string]*active // by definition
	byKind map[schema.GroupVersionKind]*entry
}

// active is a definition that is served.
type active struct {
	uid        types.UID
	generation int64
	names      apiextensionsv1.CustomResourceDefinitionNames
	kinds      []served
}

type entry struct {
	version string
	schema  *compiled
}

// New checks cfg.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil || cfg.Registry == nil || cfg.Log == nil {
		return nil, errors.New("create custom kinds: Client, Registry and Log are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Controller{
		cfg: cfg, log: cfg.Log, ready: make(chan struct{}),
		view:   client.For(cfg.Client, client.CustomResourceDefinitions).Informer(client.ListOptions{}),
		active: map[string]*active{}, byKind: map[schema.GroupVersionKind]*entry{},
	}, nil
}

// Ready is closed when all kinds that were established before are served.
func (c *Controller) Ready() <-chan struct{} { return c.ready }

// Run serves kinds until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if err := client.WaitSynced(ctx, c.view); err != nil {
		return nil // ctx ended
	}
	for _, d := range c.view.List("") {
		if !isTrue(&d.Status, apiextensionsv1.Established) {
			continue
		}
		if err := c.serve(d); err != nil {
			c.log.Error("custom kind cannot be served", "definition", d.Name, "err", err)
		}
	}
	close(c.ready)
	queue, err := reconcile.New(reconcile.Config{Name: "custom", Reconcile: c.reconcile, Log: c.log})
	if err != nil {
		return err
	}
	defer reconcile.Enqueue(queue, c.view.Informer, c.keys)()
	return queue.Run(ctx)
}

// keys are the definitions that an event concerns: those of the same group may
// get names that another gives up.
func (c *Controller) keys(ev client.Event) []types.NamespacedName {
	if ev.Object == nil {
		return nil
	}
	keys := []types.NamespacedName{client.Key(ev.Object)}
	if ev.Type != client.Deleted {
		return keys
	}
	group := ev.Object.(*apiextensionsv1.CustomResourceDefinition).Spec.Group
	for _, d := range c.view.List("") {
		if d.Spec.Group == group && !isTrue(&d.Status, apiextensionsv1.NamesAccepted) {
			keys = append(keys, client.Key(d))
		}
	}
	return keys
}

// serve takes a definition's kinds into service, or replaces them if it changed.
func (c *Controller) serve(d *apiextensionsv1.CustomResourceDefinition) error {
	c.mu.Lock()
	was := c.active[d.Name]
	c.mu.Unlock()
	names := acceptedNames(d)
	if was != nil && was.uid == d.UID && was.generation == d.Generation && equality.Semantic.DeepEqual(was.names, names) {
		return nil
	}
	now := &active{uid: d.UID, generation: d.Generation, names: names, kinds: kindsOf(d)}
	for _, s := range now.kinds {
		if err := c.cfg.Registry.AddKind(s.kind); err != nil {
			return fmt.Errorf("serve %s of %s: %w", s.kind.Version, d.Name, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(was, now)
	c.active[d.Name] = now
	for _, s := range now.kinds {
		c.byKind[s.kind.GroupVersionKind] = &entry{version: fmt.Sprintf("%s/%d", d.UID, d.Generation), schema: s.schema}
	}
	return nil
}

// drop takes out of service what was and is no longer. c.mu is held.
func (c *Controller) drop(was, now *active) {
	if was == nil {
		return
	}
	stays := map[schema.GroupVersionResource]bool{}
	if now != nil {
		for _, s := range now.kinds {
			stays[s.kind.GroupVersionResource()] = true
		}
	}
	for _, s := range was.kinds {
		delete(c.byKind, s.kind.GroupVersionKind)
		if gvr := s.kind.GroupVersionResource(); !stays[gvr] {
			c.cfg.Registry.RemoveKind(gvr)
		}
	}
}

func (c *Controller) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(c.active[name], nil)
	delete(c.active, name)
}

// Schema describes a custom kind to OpenAPI.
func (c *Controller) Schema(gvk schema.GroupVersionKind) (openapi.Schema, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKind[gvk]
	if !ok {
		return openapi.Schema{}, false
	}
	return openapi.Schema{Version: e.version, Build: func(v2 bool) (*spec.Schema, error) { return e.schema.openAPI(v2) }}, true
}
