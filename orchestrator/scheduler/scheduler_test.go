package scheduler_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
	"github.com/xebec-mesh/xebec/orchestrator/scheduler"
)

// recorded collects events.
type recorded struct {
	mu    sync.Mutex
	notes []string
}

func (r *recorded) Event(o client.Object, _, reason, _, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, fmt.Sprintf("%s %s: ", o.GetName(), reason)+fmt.Sprintf(format, args...))
}

func (r *recorded) has(note string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.notes {
		if n == note {
			return true
		}
	}
	return false
}

type fixture struct {
	*testing.T
	api    *memory.Client
	events *recorded
	pods   client.Typed[*corev1.Pod]
	nodes  client.Typed[*corev1.Node]
}

func start(t *testing.T) *fixture {
	api := memory.New(nil)
	f := &fixture{t, api, &recorded{}, client.For(api, client.Pods), client.For(api, client.Nodes)}
	s, err := scheduler.New(scheduler.Config{Client: api, Events: f.events, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		api.Close()
	})
	return f
}

func (f *fixture) node(name, cpu string) {
	f.Helper()
	_, err := f.nodes.Create(context.Background(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("110"),
		}},
	})
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) pod(name, cpu string) {
	f.Helper()
	_, err := f.pods.Create(context.Background(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{SchedulerName: corev1.DefaultSchedulerName, Containers: []corev1.Container{{
			Name: "c", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}},
		}}},
	})
	if err != nil {
		f.Fatal(err)
	}
}

// until waits, by watch, until the pod satisfies ok.
func (f *fixture) until(name, what string, ok func(*corev1.Pod) bool) {
	f.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	w, err := f.api.Watch(ctx, client.Pods.Resource, client.ListOptions{FieldSelector: "metadata.name=" + name}, "")
	if err != nil {
		f.Fatal(err)
	}
	defer w.Stop()
	var last *corev1.Pod
	for e := range w.ResultChan() {
		if last = e.Object.(*corev1.Pod); ok(last) {
			return
		}
	}
	f.Fatalf("pod %s: not %s within 10 s: %+v", name, what, last)
}

func on(node string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return p.Spec.NodeName == node }
}

// TestPodWaitsForRoom follows a pod that fits nowhere until another one leaves.
func TestPodWaitsForRoom(t *testing.T) {
	f := start(t)
	f.node("n1", "1")
	f.pod("first", "800m")
	f.until("first", "on n1", on("n1"))
	f.pod("second", "800m")
	const message = "0/1 nodes are available: 1 Insufficient cpu."
	f.until("second", "marked unschedulable", func(p *corev1.Pod) bool {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
				return c.Reason == corev1.PodReasonUnschedulable && c.Message == message
			}
		}
		return false
	})
	if !f.events.has("second FailedScheduling: " + message) {
		t.Errorf("events: %q", f.events.notes)
	}
	now := int64(0)
	if err := f.pods.Delete(context.Background(), "default", "first", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	f.until("second", "on n1", on("n1"))
	if !f.events.has("second Scheduled: Successfully assigned default/second to n1") {
		t.Errorf("events: %q", f.events.notes)
	}
}

// TestNoNodeIsOverfilled creates more pods at once than fit: what is assumed
// counts before it is confirmed.
func TestNoNodeIsOverfilled(t *testing.T) {
	f := start(t)
	for i := range 3 {
		f.node(fmt.Sprintf("n%d", i), "1")
	}
	const pods, fit = 20, 12
	for i := range pods {
		f.pod(fmt.Sprintf("p%02d", i), "250m")
	}
	for i := range pods {
		f.until(fmt.Sprintf("p%02d", i), "decided", func(p *corev1.Pod) bool {
			return p.Spec.NodeName != "" || len(p.Status.Conditions) > 0
		})
	}
	list, err := f.pods.List(context.Background(), client.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	perNode := map[string]int{}
	for _, p := range list {
		perNode[p.Spec.NodeName]++
	}
	if perNode["n0"] != 4 || perNode["n1"] != 4 || perNode["n2"] != 4 || perNode[""] != pods-fit {
		t.Errorf("pods by node: %v, want 4 on each of three", perNode)
	}
}

// TestNewNodeHelps holds that a node that joins takes the pods that waited for it.
func TestNewNodeHelps(t *testing.T) {
	f := start(t)
	f.pod("early", "2")
	f.until("early", "marked unschedulable", func(p *corev1.Pod) bool { return len(p.Status.Conditions) > 0 })
	f.node("n1", "4")
	f.until("early", "on n1", on("n1"))
}
