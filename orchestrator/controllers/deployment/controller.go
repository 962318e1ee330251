// Package deployment rolls the pods of each Deployment from one template to the next.
//
//	in:   Deployments, ReplicaSets, and for the strategy Recreate their Pods
//	out:  ReplicaSet create, adopt, release, scale, annotate, delete;
//	      Deployment status and revision annotation
//
// It is the only writer of Deployment.status and of its sets' spec. Each pass takes
// one step, and the sets' statuses that follow cause the next.
//
// Invariant: the sets together never ask for more than replicas+maxSurge pods, and
// no step asks an available pod to go that would leave fewer than
// replicas-maxUnavailable.
package deployment

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
	Workers  int                 // deployments reconciled at the same time; default 4
	Log      *slog.Logger
}

// Controller reconciles Deployments.
type Controller struct {
	cfg   Config
	queue *reconcile.Queue

	deployments client.Typed[*appsv1.Deployment]
	sets        client.Typed[*appsv1.ReplicaSet]
	view        client.View[*appsv1.Deployment]
	setView     client.View[*appsv1.ReplicaSet]
	podView     client.View[*corev1.Pod]

	writes    *reconcile.Writes // the deployments themselves
	setWrites *reconcile.Writes

	mu       sync.Mutex
	failures map[types.NamespacedName]string // of the last creation
}

// New checks the configuration.
func New(cfg Config) (*Controller, error) {
	if cfg.Client == nil {
		return nil, fmt.Errorf("deployment controller: no client")
	}
	if cfg.Workers <= 0 {
		cfg.Workers = 4
	}
	c := &Controller{
		cfg:         cfg,
		deployments: client.For(cfg.Client, client.Deployments), sets: client.For(cfg.Client, client.ReplicaSets),
		writes: reconcile.NewWrites(), setWrites: reconcile.NewWrites(),
		failures: map[types.NamespacedName]string{},
	}
	c.view = c.deployments.Informer(client.ListOptions{})
	c.setView = c.sets.Informer(client.ListOptions{})
	c.podView = client.For(cfg.Client, client.Pods).Informer(client.ListOptions{})
	pods.AddIndexes(c.setView.Informer)
	pods.AddIndexes(c.podView.Informer)
	var err error
	c.queue, err = reconcile.New(reconcile.Config{
		Name: "deployment", Workers: cfg.Workers, Reconcile: c.reconcile, Log: cfg.Log,
		Watch: []reconcile.Watch{
			{Informer: c.view.Informer, Keys: c.writes.Keys(reconcile.Self)},
			{Informer: c.setView.Informer, Keys: c.setWrites.Keys(c.keysOfSet)},
			{Informer: c.podView.Informer, Keys: c.keysOfPod},
		},
	})
	return c, err
}

// Run reconciles until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.queue.Run(ctx) }

// Stats returns the queue's counters.
func (c *Controller) Stats() reconcile.Stats { return c.queue.Stats() }

// keysOfSet maps a set's event to its deployment, or an orphan's to those that could
// adopt it.
func (c *Controller) keysOfSet(ev client.Event) []types.NamespacedName {
	keys := reconcile.ControllerOf("Deployment")(ev)
	if ev.Type == client.Deleted || metav1.GetControllerOfNoCopy(ev.Object) != nil || pods.StillOrphan(ev) {
		return keys
	}
	for _, d := range c.view.List(ev.Object.GetNamespace()) {
		selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(ev.Object.GetLabels())) {
			keys = append(keys, client.Key(d))
		}
	}
	return keys
}

// keysOfPod maps a pod that is gone or has ended to its deployment, if that waits for
// old pods to end: with the strategy Recreate.
func (c *Controller) keysOfPod(ev client.Event) []types.NamespacedName {
	pod := ev.Object.(*corev1.Pod)
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil || owner.Kind != "ReplicaSet" || ev.Type != client.Deleted && !pods.Finished(pod) {
		return nil
	}
	rs, ok := c.setView.Get(pod.Namespace, owner.Name)
	if !ok {
		return nil
	}
	owner = metav1.GetControllerOfNoCopy(rs)
	if owner == nil {
		return nil
	}
	d, ok := c.view.Get(rs.Namespace, owner.Name)
	if !ok || d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		return nil
	}
	return []types.NamespacedName{client.Key(d)}
}

func (c *Controller) reconcile(ctx context.Context, key types.NamespacedName) (time.Duration, error) {
	d, ok := c.view.Get(key.Namespace, key.Name)
	if !ok {
		c.writes.Forget(key)
		c.setWrites.Forget(key)
		c.setFailure(key, nil)
		return 0, nil
	}
	d = reconcile.Newest(c.writes, key, d)
	s := c.snapshot(d)
	plan := compute(s, time.Now())
	createErr, err := c.apply(ctx, d, plan)
	c.setFailure(key, createErr)
	if createErr != nil {
		s.Deployment, s.Failure = reconcile.Newest(c.writes, key, d), createErr.Error()
		if status := compute(s, time.Now()).Status; status != nil {
			if err := c.updateStatus(ctx, s.Deployment, *status); err != nil {
				return 0, fmt.Errorf("%w; %w", createErr, err)
			}
		}
	}
	return reconcile.Sooner(plan.RetryAfter, c.setWrites.Settle(key)), err
}

func (c *Controller) setFailure(key types.NamespacedName, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		delete(c.failures, key)
	} else {
		c.failures[key] = err.Error()
	}
}

func (c *Controller) snapshot(d *appsv1.Deployment) Snapshot {
	key := client.Key(d)
	sets := append(c.setView.ByIndex(pods.ByController, string(d.UID)), c.setView.ByIndex(pods.Orphans, d.Namespace)...)
	s := Snapshot{Deployment: d, Sets: reconcile.Over(c.setWrites, key, sets)}
	c.mu.Lock()
	s.Failure = c.failures[key]
	c.mu.Unlock()
	if d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		return s
	}
	for _, rs := range s.Sets {
		if owner := metav1.GetControllerOfNoCopy(rs); owner != nil && owner.UID == d.UID {
			s.Pods = append(s.Pods, c.podView.ByIndex(pods.ByController, string(rs.UID))...)
		}
	}
	return s
}
