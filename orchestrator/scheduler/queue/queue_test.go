package queue

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/scheduler/snapshot"
)

func pod(name string, priority int32) *snapshot.Pod {
	return snapshot.NewPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: name}, Spec: corev1.PodSpec{Priority: &priority}})
}

// TestOrder: priority first, then who came first; a parked pod comes back after a
// change that helps and its back-off, or after five minutes.
func TestOrder(t *testing.T) {
	q, now := New(), time.Unix(1000, 0)
	q.Add(pod("late", 0), true, now.Add(time.Second))
	q.Add(pod("early", 0), true, now)
	q.Add(pod("important", 10), true, now.Add(2*time.Second))
	var order []string
	var last *Item
	for i := q.Pop(); i != nil; i = q.Pop() {
		order = append(order, i.Pod.Name)
		last = i
	}
	if got := fmt.Sprint(order); got != "[important early late]" {
		t.Errorf("order %s", got)
	}
	q.Park(last, now)
	if next := q.Advance(now); !next.Equal(now.Add(parkedAtMost)) || q.Pop() != nil {
		t.Errorf("parked until %v", next)
	}
	q.Move(now, func(*Item) bool { return true })
	if next := q.Advance(now); !next.Equal(now.Add(firstBackoff)) {
		t.Errorf("moved before its back-off ended: next at %v", next)
	}
	q.Advance(now.Add(firstBackoff))
	if i := q.Pop(); i != last || i.Attempts != 2 {
		t.Errorf("after the back-off: %+v", i)
	}
	q.Delete(last.Pod.Key)
	q.Park(last, now) // an attempt that ends after the pod is gone
	if a, b, p := q.Len(); a+b+p != 0 {
		t.Errorf("a deleted pod waits: %d %d %d", a, b, p)
	}
}
