package memory_test

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
)

// TestPodLife follows a pod from creation over binding to its graceful end, as
// an informer that selects its node sees it.
func TestPodLife(t *testing.T) {
	ctx := context.Background()
	c := memory.New(nil)
	defer c.Close()
	pods := client.For(c, client.Pods)
	events := make(chan string, 16)
	view := pods.Informer(client.ListOptions{FieldSelector: "spec.nodeName=n1"})
	view.Subscribe(func(e client.Event) {
		if e.Type != client.Synced {
			events <- fmt.Sprintf("%d %s", e.Type, e.Object.GetName())
		}
	})
	if err := client.WaitSynced(ctx, view); err != nil {
		t.Fatal(err)
	}

	pod, err := pods.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", GenerateName: "web-"}})
	if err != nil {
		t.Fatal(err)
	}
	key := client.Key(pod)
	bind := &corev1.Binding{Target: corev1.ObjectReference{Name: "n1"}}
	if _, err := c.CreateSub(ctx, client.Pods.Resource, key, "binding", bind); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateSub(ctx, client.Pods.Resource, key, "binding", bind); !apierrors.IsConflict(err) {
		t.Errorf("second binding: %v, want a conflict", err)
	}
	if err := pods.Delete(ctx, pod.Namespace, pod.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if pod, err = pods.Get(ctx, pod.Namespace, pod.Name); err != nil || pod.DeletionTimestamp == nil {
		t.Fatalf("a running pod is deleted gracefully: %v, %v", pod, err)
	}
	now := int64(0)
	if err := pods.Delete(ctx, pod.Namespace, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	if _, err = pods.Get(ctx, pod.Namespace, pod.Name); !apierrors.IsNotFound(err) {
		t.Errorf("after force: %v, want not found", err)
	}
	for _, want := range []client.EventType{client.Added, client.Modified, client.Deleted} {
		if got, want := <-events, fmt.Sprintf("%d %s", want, key.Name); got != want {
			t.Errorf("event %q, want %q", got, want)
		}
	}
}

// TestConflict holds that a stale update changes nothing and a status update
// leaves the spec alone.
func TestConflict(t *testing.T) {
	ctx := context.Background()
	c := memory.New(nil)
	defer c.Close()
	nodes := client.For(c, client.Nodes)
	first, err := nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	if err != nil {
		t.Fatal(err)
	}
	update := first.DeepCopy()
	update.Spec.PodCIDR = "10.244.0.0/24"
	second, err := nodes.Update(ctx, update)
	if err != nil {
		t.Fatal(err)
	}
	if second.Generation != 2 {
		t.Errorf("generation %d after a change of spec, want 2", second.Generation)
	}
	if _, err := nodes.Update(ctx, update); !apierrors.IsConflict(err) {
		t.Errorf("stale update: %v, want a conflict", err)
	}
	status := second.DeepCopy()
	status.Spec.PodCIDR = "ignored"
	status.Status.NodeInfo.KubeletVersion = "v1"
	third, err := nodes.UpdateStatus(ctx, status)
	if err != nil {
		t.Fatal(err)
	}
	if third.Spec.PodCIDR != "10.244.0.0/24" || third.Status.NodeInfo.KubeletVersion != "v1" || third.Generation != 2 {
		t.Errorf("status update stored %+v", third)
	}
	same, err := nodes.Patch(ctx, "", "n1", types.MergePatchType, []byte(`{"metadata":{"labels":null}}`), "")
	if err != nil || same.ResourceVersion != third.ResourceVersion {
		t.Errorf("a patch that changes nothing: version %v → %v, %v", third.ResourceVersion, same.ResourceVersion, err)
	}
}
