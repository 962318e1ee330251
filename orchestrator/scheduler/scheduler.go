// Package scheduler gives every pod a node.
//
//	in:   Pods, Nodes, Namespaces
//	out:  bindings; the PodScheduled condition and an event for a pod that fits nowhere
//
// One goroutine owns the snapshot and the queue. It takes in what has happened,
// tries the next pod on the snapshot, assumes the outcome there, and leaves the
// binding to others; a binding that fails takes the assumption back. A pod is
// bound by the server's own rule once at most.
package scheduler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/scheduler/queue"
	"github.com/xebec-mesh/xebec/orchestrator/scheduler/snapshot"
)

// Events are how the scheduler tells what it did; reconcile.Recorder is one.
type Events interface {
	Event(regarding client.Object, kind, reason, action, format string, args ...any)
}

// Config is what a Scheduler works with.
type Config struct {
	Client client.Interface
	Events Events
	// Names are the values of spec.schedulerName that it answers to. Default default-scheduler.
	Names []string
	// Bindings is how many are under way at once. Default 64.
	Bindings int
	// Seed makes the choice among equal nodes repeatable. Default: random.
	Seed uint64
	Log  *slog.Logger
}

// Scheduler gives every pod a node.
type Scheduler struct {
	cfg      Config
	names    map[string]bool
	inbox    inbox
	results  chan result
	cycle    *cycle
	snapshot *snapshot.Snapshot
	queue    *queue.Queue
	assumed  map[string]*snapshot.Pod // bound or being bound, not confirmed by an event
	inFlight int

	scheduled, unschedulable, failed atomic.Int64
	active, backoff, parked          atomic.Int64
}

// New checks the configuration.
func New(cfg Config) (*Scheduler, error) {
	if cfg.Client == nil || cfg.Events == nil {
		return nil, errors.New("create scheduler: Client and Events are needed")
	}
	if len(cfg.Names) == 0 {
		cfg.Names = []string{corev1.DefaultSchedulerName}
	}
	if cfg.Bindings == 0 {
		cfg.Bindings = 64
	}
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Scheduler{
		cfg:      cfg,
		names:    map[string]bool{},
		inbox:    inbox{wake: make(chan struct{}, 1)},
		results:  make(chan result, cfg.Bindings),
		cycle:    newCycle(rand.New(rand.NewPCG(cfg.Seed, 0))),
		snapshot: snapshot.New(),
		queue:    queue.New(),
		assumed:  map[string]*snapshot.Pod{},
	}
	for _, n := range cfg.Names {
		s.names[n] = true
	}
	return s, nil
}

// result is what became of a binding; without an item, that a report has been written.
type result struct {
	item *queue.Item
	err  error
}

// Run schedules until ctx ends. It may be called again: what was known before is
// forgotten, since anything may have changed meanwhile.
func (s *Scheduler) Run(ctx context.Context) error {
	s.snapshot, s.queue = snapshot.New(), queue.New()
	s.assumed, s.inFlight = map[string]*snapshot.Pod{}, 0
	s.results = make(chan result, s.cfg.Bindings)
	s.inbox.take()
	c, all := s.cfg.Client, client.ListOptions{}
	namespaces := c.Informer(client.Namespaces.Resource, all)
	nodes := c.Informer(client.Nodes.Resource, all)
	pods := c.Informer(client.Pods.Resource, all)
	for _, v := range []client.Informer{namespaces, nodes, pods} {
		defer v.Subscribe(s.inbox.put)()
	}
	// Before every source has told what there is, a node would look emptier than it is.
	if err := client.WaitSynced(ctx, namespaces, nodes, pods); err != nil {
		return err
	}
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for synced := 0; ; {
		for _, e := range s.inbox.take() {
			if e.Type == client.Synced {
				synced++
				continue
			}
			s.observe(e)
		}
		s.collect()
		next := s.queue.Advance(time.Now())
		if synced == 3 && s.inFlight < s.cfg.Bindings && s.try(ctx, &work) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		s.measure()
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.inbox.wake:
		case r := <-s.results:
			s.settle(r)
		case <-timer.C:
		}
	}
}

// collect takes in the results that are there.
func (s *Scheduler) collect() {
	for {
		select {
		case r := <-s.results:
			s.settle(r)
		default:
			return
		}
	}
}

// try takes the next pod through a cycle; false if none waits.
func (s *Scheduler) try(ctx context.Context, work *sync.WaitGroup) bool {
	item := s.queue.Pop()
	if item == nil {
		return false
	}
	out := s.cycle.place(item.Pod, s.snapshot)
	if out.Node == "" {
		item.Rejected = out.Rejected
		s.queue.Park(item, time.Now())
		s.unschedulable.Add(1)
		s.inFlight++
		pod, results := item.Pod.Pod, s.results
		work.Go(func() {
			s.report(ctx, pod, out.String())
			results <- result{}
		})
		return true
	}
	assumed := *item.Pod
	assumed.Pod = withNode(item.Pod.Pod, out.Node)
	s.snapshot.SetPod(&assumed)
	s.assumed[assumed.Key] = &assumed
	s.inFlight++
	pod, results := item.Pod.Pod, s.results
	work.Go(func() { results <- result{item, s.bind(ctx, pod, out.Node)} })
	return true
}

// withNode is the pod as it will be once it is bound. Only what differs is copied.
func withNode(pod *corev1.Pod, node string) *corev1.Pod {
	out := *pod
	out.Spec.NodeName = node
	return &out
}

// settle takes in what became of a binding. A success stays an assumption until
// the pod's own event confirms it.
func (s *Scheduler) settle(r result) {
	s.inFlight--
	if r.item == nil { // a report
		return
	}
	if r.err == nil {
		s.scheduled.Add(1)
		return
	}
	s.failed.Add(1)
	if a := s.assumed[r.item.Pod.Key]; a != nil && a.UID == r.item.Pod.UID {
		delete(s.assumed, a.Key)
		s.snapshot.RemovePod(a.Key)
		s.queue.Backoff(r.item, time.Now())
	}
}

func (s *Scheduler) measure() {
	a, b, p := s.queue.Len()
	s.active.Store(int64(a))
	s.backoff.Store(int64(b))
	s.parked.Store(int64(p))
}

// WriteMetrics writes attempts and waiting pods in the Prometheus text format,
// under kube-scheduler's names.
func (s *Scheduler) WriteMetrics(w io.Writer) error {
	_, err := fmt.Fprintf(w, `# TYPE scheduler_schedule_attempts_total counter
scheduler_schedule_attempts_total{result="scheduled"} %d
scheduler_schedule_attempts_total{result="unschedulable"} %d
scheduler_schedule_attempts_total{result="error"} %d
# TYPE scheduler_pending_pods gauge
scheduler_pending_pods{queue="active"} %d
scheduler_pending_pods{queue="backoff"} %d
scheduler_pending_pods{queue="unschedulable"} %d
`, s.scheduled.Load(), s.unschedulable.Load(), s.failed.Load(), s.active.Load(), s.backoff.Load(), s.parked.Load())
	return err
}

// inbox is an unbounded queue of events from several informers.
type inbox struct {
	mu     sync.Mutex
	events []client.Event
	wake   chan struct{}
}

func (i *inbox) put(e client.Event) {
	i.mu.Lock()
	i.events = append(i.events, e)
	i.mu.Unlock()
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

func (i *inbox) take() []client.Event {
	i.mu.Lock()
	defer i.mu.Unlock()
	events := i.events
	i.events = nil
	return events
}
