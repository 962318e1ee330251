package reconcile_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

func TestRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := memory.New(nil)
		defer api.Close()
		r, err := reconcile.NewRecorder(reconcile.RecorderConfig{Client: api, Controller: "test"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "u"}}
		count := func(when string, want int) {
			t.Helper()
			synctest.Wait()
			list, err := client.For(api, client.Events).List(ctx, client.ListOptions{})
			if err != nil || len(list) != want {
				t.Errorf("%s: %d events, want %d (%v)", when, len(list), want, err)
			}
		}

		// The same event becomes a series, whose count is written now and then.
		for range 100 {
			r.Event(pod, corev1.EventTypeWarning, "BackOff", "Start", "back-off %d s", 10)
		}
		count("repeated", 1)
		time.Sleep(time.Minute)
		list, _ := client.For(api, client.Events).List(ctx, client.ListOptions{})
		if s := list[0].Series; s == nil || s.Count != 100 {
			t.Errorf("series %+v", s)
		}
		if ref := list[0].Regarding; ref.Kind != "Pod" || ref.UID != "u" || ref.APIVersion != "v1" {
			t.Errorf("regarding %+v", ref)
		}
		time.Sleep(10 * time.Minute)
		r.Event(pod, corev1.EventTypeWarning, "BackOff", "Start", "back-off %d s", 10)
		count("after a long silence", 2)

		// One object cannot flood the store, and does not keep others waiting.
		for i := range 500 {
			r.Event(pod, corev1.EventTypeNormal, "Different", "Do", "%d", i)
		}
		other := pod.DeepCopy()
		other.Name, other.UID = "other", "v"
		r.Event(other, corev1.EventTypeNormal, "Started", "Start", "started")
		count("flooded", 2+24+1)
		time.Sleep(2 * time.Minute)
		r.Event(pod, corev1.EventTypeNormal, "Different", "Do", "again")
		count("allowed again", 2+24+1+1)
		cancel()
		<-done
	})
}
