// Package status writes on mesh configuration what has become of it.
//
//	in:   VirtualServices, DestinationRules, what they refer to; rejections by proxies
//	out:  status.conditions and status.validationMessages
//
// It is the only writer of those. It writes only what differs.
package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	meta "istio.io/api/meta/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/xebec-mesh/xebec/galley/analyze"
	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/galley/message"
	"github.com/xebec-mesh/xebec/galley/validate"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

// Config is what a Writer needs.
type Config struct {
	Client client.Interface
	World  *World           // NewWorld(Client, cluster domain)
	Now    func() time.Time // default time.Now
	Log    *slog.Logger
}

// Writer keeps statuses in step.
type Writer struct {
	cfg    Config
	queues map[string]*reconcile.Queue // by kind

	mu      sync.Mutex
	refused map[object]map[string]Rejection // object → type and resource → refusal
}

type object struct{ kind, namespace, name string }

// written are the kinds that get a status.
var written = map[string]client.Resource{
	"VirtualService":     client.VirtualServices.Resource,
	"DestinationRule":    client.DestinationRules.Resource,
	"PeerAuthentication": client.PeerAuthentications.Resource,
	"ServiceEntry":       client.ServiceEntries.Resource,
	"Sidecar":            client.Sidecars.Resource,
}

// New checks the configuration.
func New(cfg Config) (*Writer, error) {
	if cfg.Client == nil || cfg.World == nil || cfg.Log == nil {
		return nil, errors.New("galley/status: Client, World and Log are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	w := &Writer{cfg: cfg, queues: map[string]*reconcile.Queue{}, refused: map[object]map[string]Rejection{}}
	for kind := range written {
		q, err := reconcile.New(reconcile.Config{
			Name: "galley/status/" + kind, Log: cfg.Log, Watch: w.watches(kind),
			Reconcile: func(ctx context.Context, key types.NamespacedName) (time.Duration, error) {
				return 0, w.reconcile(ctx, kind, key)
			},
		})
		if err != nil {
			return nil, err
		}
		w.queues[kind] = q
	}
	return w, nil
}

// Run writes until ctx ends.
func (w *Writer) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, len(w.queues))
	for _, q := range w.queues {
		go func() { ended <- q.Run(ctx) }()
	}
	var all error
	for range w.queues {
		all = errors.Join(all, <-ended)
		cancel()
	}
	return all
}

// Rejected takes a proxy's refusal, or that it has been resolved.
func (w *Writer) Rejected(r Rejection) {
	o := object{r.Kind, r.Namespace, r.Name}
	id := r.TypeURL + " " + r.Resource
	w.mu.Lock()
	if r.Resolved {
		delete(w.refused[o], id)
		if len(w.refused[o]) == 0 {
			delete(w.refused, o)
		}
	} else {
		if w.refused[o] == nil {
			w.refused[o] = map[string]Rejection{}
		}
		w.refused[o][id] = r
	}
	w.mu.Unlock()
	if q := w.queues[r.Kind]; q != nil {
		q.Add(types.NamespacedName{Namespace: r.Namespace, Name: r.Name})
	}
}

// watches says which events concern a kind's objects.
func (w *Writer) watches(kind string) []reconcile.Watch {
	world := w.cfg.World
	own := w.cfg.Client.Informer(written[kind], client.ListOptions{})
	out := []reconcile.Watch{{Informer: own, Keys: self}}
	switch kind {
	case "VirtualService":
		mention := func(e client.Event) []types.NamespacedName { return world.mentioning(e) }
		out = append(out,
			reconcile.Watch{Informer: world.services.Informer, Keys: mention},
			reconcile.Watch{Informer: world.entries.Informer, Keys: mention},
			reconcile.Watch{Informer: world.rules.Informer, Keys: mention},
			reconcile.Watch{Informer: world.virtuals.Informer, Keys: world.rivals})
	case "DestinationRule":
		out = append(out, reconcile.Watch{Informer: world.services.Informer, Keys: world.ruling})
	}
	return out
}

func self(e client.Event) []types.NamespacedName {
	if e.Object == nil || e.Type == client.Deleted {
		return nil
	}
	return []types.NamespacedName{client.Key(e.Object)}
}

// changes lists the hosts about which an event may change what refers to its object. The many
// updates of services and rules that leave their names alone do not.
func (w *World) changes(e client.Event) []string {
	if e.Object == nil {
		return nil
	}
	if s, ok := e.Object.(*corev1.Service); ok && e.Type == client.Modified && samePorts(e.Old.(*corev1.Service), s) {
		return nil
	}
	hosts := w.hosts(e.Object)
	if e.Old != nil {
		hosts = append(hosts, w.hosts(e.Old)...)
	}
	return hosts
}

func samePorts(a, b *corev1.Service) bool {
	if len(a.Spec.Ports) != len(b.Spec.Ports) {
		return false
	}
	for i := range a.Spec.Ports {
		if a.Spec.Ports[i].Port != b.Spec.Ports[i].Port {
			return false
		}
	}
	return true
}

func (w *World) mentioning(e client.Event) []types.NamespacedName {
	var out []types.NamespacedName
	for _, h := range w.changes(e) {
		for _, name := range append(config.Aliases(h, w.domain), h) {
			for _, v := range w.virtuals.ByIndex(indexMention, name) {
				out = append(out, client.Key(v))
			}
		}
	}
	return out
}

func (w *World) rivals(e client.Event) []types.NamespacedName {
	if v, ok := e.Object.(*networkingv1.VirtualService); ok && e.Type == client.Modified && v.Generation == e.Old.GetGeneration() {
		return nil
	}
	var out []types.NamespacedName
	for _, h := range w.changes(e) {
		for _, v := range w.virtuals.ByIndex(indexHost, h) {
			out = append(out, client.Key(v))
		}
	}
	return out
}

func (w *World) ruling(e client.Event) []types.NamespacedName {
	var out []types.NamespacedName
	for _, h := range w.changes(e) {
		for _, name := range append(config.Aliases(h, w.domain), h) {
			for _, d := range w.rules.ByIndex(indexHost, name) {
				out = append(out, client.Key(d))
			}
		}
	}
	return out
}

func (w *Writer) reconcile(ctx context.Context, kind string, key types.NamespacedName) error {
	obj := w.cfg.Client.Informer(written[kind], client.ListOptions{}).Get(key)
	if obj == nil {
		w.mu.Lock()
		delete(w.refused, object{kind, key.Namespace, key.Name})
		w.mu.Unlock()
		return nil
	}
	old := statusOf(obj)
	if old == nil {
		return nil
	}
	next := compute(old, obj.GetGeneration(), w.findings(obj), w.refusals(kind, obj), w.cfg.Now())
	if next == old {
		return nil
	}
	if err := w.write(ctx, written[kind], key, next); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write status of %s %s: %w", kind, key, err)
	}
	return nil
}

func (w *Writer) findings(obj client.Object) message.List {
	found := validate.Object(obj)
	world := w.cfg.World
	switch o := obj.(type) {
	case *networkingv1.VirtualService:
		found = append(found, analyze.VirtualService(config.FromVirtualService(o, world.domain), world.domain, world)...)
	case *networkingv1.DestinationRule:
		found = append(found, analyze.DestinationRule(config.FromDestinationRule(o, world.domain), world)...)
	}
	return found
}

// refusals returns those of the present generation, and forgets older ones.
func (w *Writer) refusals(kind string, obj client.Object) []Rejection {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := object{kind, obj.GetNamespace(), obj.GetName()}
	var out []Rejection
	for id, r := range w.refused[o] {
		if r.Generation < obj.GetGeneration() {
			delete(w.refused[o], id)
			continue
		}
		out = append(out, r)
	}
	return sorted(out)
}

func (w *Writer) write(ctx context.Context, r client.Resource, key types.NamespacedName, s *meta.IstioStatus) error {
	status, err := protojson.Marshal(s)
	if err != nil {
		return err
	}
	fields := map[string]json.RawMessage{"validationMessages": json.RawMessage("null")} // a merge patch leaves what it does not name
	if err := json.Unmarshal(status, &fields); err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{"status": fields})
	if err != nil {
		return err
	}
	_, err = w.cfg.Client.Patch(ctx, r, key, types.MergePatchType, patch, "status", metav1.PatchOptions{})
	return err
}

func statusOf(obj client.Object) *meta.IstioStatus {
	switch o := obj.(type) {
	case *networkingv1.VirtualService:
		return &o.Status
	case *networkingv1.DestinationRule:
		return &o.Status
	case *networkingv1.Sidecar:
		return &o.Status
	case *networkingv1.ServiceEntry:
		return &meta.IstioStatus{
			Conditions: o.Status.Conditions, ValidationMessages: o.Status.ValidationMessages, ObservedGeneration: o.Status.ObservedGeneration,
		}
	case *securityv1.PeerAuthentication:
		return &o.Status
	}
	return nil
}
