// Package replicaset keeps as many pods running as each ReplicaSet asks for.
//
//	in:   ReplicaSets, Pods
//	out:  Pod create, adopt, release, delete; ReplicaSet status
//
// It is the only writer of ReplicaSet.status and of its pods' controller reference.
//
// Invariant: a pod that this process has created or deleted counts as such in the
// next plan, whether or not the informer shows it yet; so no event that comes early
// or late can make it create or delete one too many.
package replicaset

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

// Config says what the controller works on.
type Config struct {
	Client   client.Interface
	Recorder *reconcile.Recorder // nil: no events
	Workers  int                 // sets reconciled at the same time; default 4
	Log      *slog.Logger
}

// Controller reconciles ReplicaSets.
type Controller struct {
	cfg   Config
	queue *reconcile.Queue

	sets     client.Typed[*appsv1.ReplicaSet]
	pods     client.Typed[*corev1.Pod]
	setView  client.View[*appsv1.ReplicaSet]
	podsView client.View[*corev1.Pod]

	writes    *reconcile.Writes // pods
	setWrites *reconcile.Writes // the sets' own status

	mu       sync.Mutex
	failures map[types.NamespacedName]*Failure // of the last attempt
}

// New checks the configuration.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil {
		return nil, fmt.Errorf("replicaset controller: no client")
	}
	if cfg.Workers <= 0 {
		cfg.Workers = 4
	}
	c := &Controller{
		cfg:  cfg,
		sets: client.For(cfg.Client, client.ReplicaSets), pods: client.For(cfg.Client, client.Pods),
		writes: reconcile.NewWrites(), setWrites: reconcile.NewWrites(),
		failures: map[types.NamespacedName]*Failure{},
	}
	c.setView = c.sets.Informer(client.ListOptions{})
	c.podsView = c.pods.Informer(client.ListOptions{})
	pods.AddIndexes(c.setView.Informer)
	pods.AddIndexes(c.podsView.Informer)
	var err error
	c.queue, err = reconcile.New(reconcile.Config{
		Name: "replicaset", Workers: cfg.Workers, Reconcile: c.reconcile, Log: cfg.Log,
		Watch: []reconcile.Watch{
			{Informer: c.setView.Informer, Keys: c.setWrites.Keys(reconcile.Self)},
			{Informer: c.podsView.Informer, Keys: c.writes.Keys(c.keysOf)},
		},
	})
	return c, err
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.queue.Run(ctx) }

// Stats returns the queue's counters.
func (c *Controller) Stats() reconcile.Stats { return c.queue.Stats() }

// keysOf maps a pod's event to its set, or an orphan's to those that could adopt it.
func (c *Controller) keysOf(ev client.Event) []types.NamespacedName {
	keys := reconcile.ControllerOf("ReplicaSet")(ev)
	pod := ev.Object.(*corev1.Pod)
	if ev.Type == client.Deleted || metav1.GetControllerOfNoCopy(pod) != nil || pods.StillOrphan(ev) {
		return keys
	}
	for _, rs := range c.setView.List(pod.Namespace) {
		selector, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(pod.Labels)) {
			keys = append(keys, client.Key(rs))
		}
	}
	return keys
}

func (c *Controller) reconcile(ctx context.Context, key types.NamespacedName) (time.Duration, error) {
	rs, ok := c.setView.Get(key.Namespace, key.Name)
	if !ok {
		c.forget(key)
		return 0, nil
	}
	rs = reconcile.Newest(c.setWrites, key, rs)
	s := c.snapshot(rs)
	now := time.Now()
	plan := compute(s, now)
	failure, err := c.apply(ctx, rs, plan)
	if failure != nil || (err == nil && s.Failure != nil) {
		err = c.report(ctx, s, failure, now, err)
	}
	if err != nil {
		return 0, err
	}
	return reconcile.Sooner(plan.RetryAfter, c.writes.Settle(key)), nil
}

// report remembers how the attempt ended and writes it into the conditions.
func (c *Controller) report(ctx context.Context, s Snapshot, failure *Failure, now time.Time, cause error) error {
	key := client.Key(s.Set)
	c.mu.Lock()
	if failure == nil {
		delete(c.failures, key)
	} else {
		c.failures[key] = failure
	}
	c.mu.Unlock()
	s.Set, s.Failure = reconcile.Newest(c.setWrites, key, s.Set), failure
	if err := c.updateStatus(ctx, s.Set, compute(s, now).Status); err != nil && cause == nil {
		return err
	}
	return cause
}

// snapshot gathers what the plan depends on.
func (c *Controller) snapshot(rs *appsv1.ReplicaSet) Snapshot {
	key := client.Key(rs)
	list := append(c.podsView.ByIndex(pods.ByController, string(rs.UID)), c.podsView.ByIndex(pods.Orphans, rs.Namespace)...)
	s := Snapshot{Set: rs, Pods: reconcile.Over(c.writes, key, list)}
	if len(list) > int(replicas(rs)) {
		s.Crowd = c.crowd(rs)
	}
	c.mu.Lock()
	s.Failure = c.failures[key]
	c.mu.Unlock()
	return s
}

// crowd counts the active pods on each node of all sets that rs's controller has.
func (c *Controller) crowd(rs *appsv1.ReplicaSet) map[string]int {
	sets := []*appsv1.ReplicaSet{rs}
	if ref := metav1.GetControllerOfNoCopy(rs); ref != nil {
		sets = c.setView.ByIndex(pods.ByController, string(ref.UID))
	}
	crowd := map[string]int{}
	for _, set := range sets {
		for _, pod := range c.podsView.ByIndex(pods.ByController, string(set.UID)) {
			if pods.Active(pod) {
				crowd[pod.Spec.NodeName]++
			}
		}
	}
	return crowd
}

func (c *Controller) forget(key types.NamespacedName) {
	c.writes.Forget(key)
	c.setWrites.Forget(key)
	c.mu.Lock()
	delete(c.failures, key)
	c.mu.Unlock()
}
