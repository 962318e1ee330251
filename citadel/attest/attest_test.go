package attest

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/citadel/ca"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
)

func pod(name, node, sa string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       corev1.PodSpec{NodeName: node, ServiceAccountName: sa},
	}
}

func TestOnlyPodsOfTheNode(t *testing.T) {
	ctx := context.Background()
	c := memory.New(nil)
	defer c.Close()
	pods := client.For(c, client.Pods)
	a, err := New(Config{Client: c})
	if err != nil {
		t.Fatal(err)
	}
	create := func(p *corev1.Pod) {
		t.Helper()
		if _, err := pods.Create(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	create(pod("cart-0", "n1", "cart"))
	create(pod("pending", "", "lost"))
	create(pod("plain", "n2", ""))
	for _, tc := range []struct {
		node string
		id   ca.Identity
		ok   bool
	}{
		{"n1", ca.Identity{Namespace: "shop", ServiceAccount: "cart"}, true},
		{"n2", ca.Identity{Namespace: "shop", ServiceAccount: "cart"}, false},
		{"n1", ca.Identity{Namespace: "bank", ServiceAccount: "cart"}, false},
		{"n2", ca.Identity{Namespace: "shop", ServiceAccount: "default"}, true},
		{"", ca.Identity{Namespace: "shop", ServiceAccount: "lost"}, false},
	} {
		err := a.Attest(ctx, tc.node, tc.id)
		if (err == nil) != tc.ok {
			t.Errorf("node %q, %s: %v, want ok=%v", tc.node, tc.id, err, tc.ok)
		}
		var denied *Denied
		if !tc.ok && tc.node != "" && !errors.As(err, &denied) {
			t.Errorf("node %q, %s: %v is not Denied", tc.node, tc.id, err)
		}
	}
	p, err := pods.Get(ctx, "shop", "cart-0")
	if err != nil {
		t.Fatal(err)
	}
	p = p.DeepCopy()
	p.Status.Phase = corev1.PodSucceeded
	ended := make(chan struct{})
	defer a.view.Subscribe(func(ev client.Event) {
		if o, ok := ev.Object.(*corev1.Pod); ok && o.Status.Phase == corev1.PodSucceeded {
			close(ended)
		}
	})()
	if _, err := pods.UpdateStatus(ctx, p); err != nil {
		t.Fatal(err)
	}
	<-ended
	if err := a.Attest(ctx, "n1", ca.Identity{Namespace: "shop", ServiceAccount: "cart"}); err == nil {
		t.Error("a pod that has ended still gives its node an identity")
	}
}
