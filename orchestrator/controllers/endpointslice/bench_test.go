package endpointslice

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
)

// BenchmarkFollow measures from a pod's change of readiness to the slice that says
// so, in a namespace with many Services of ten pods each.
func BenchmarkFollow(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) { follow(b, n) })
	}
}

func follow(b *testing.B, services int) {
	api := memory.New(nil)
	defer api.Close()
	ctx, cancel := context.WithCancel(b.Context())
	pods, ready := client.For(api, client.Pods), corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue}
	for i := range services {
		app := map[string]string{"app": fmt.Sprint("app-", i), "tier": "web"}
		svc := service()
		svc.Name, svc.UID, svc.Spec.Selector, svc.Spec.IPFamilies = app["app"], "", app, nil
		if _, err := client.For(api, client.Services).Create(ctx, svc); err != nil {
			b.Fatal(err)
		}
		for j := range 10 {
			p := pod(i*10+j, 8080)
			p.Labels, p.Status.Conditions = app, []corev1.PodCondition{ready}
			if _, err := pods.Create(ctx, p); err != nil {
				b.Fatal(err)
			}
		}
	}
	c, err := New(Config{Client: api})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	defer func() { cancel(); <-done }()

	changed := make(chan *discoveryv1.EndpointSlice, 16*services)
	stop := client.For(api, client.EndpointSlices).Informer(client.ListOptions{}).Subscribe(func(ev client.Event) {
		if ev.Object != nil {
			changed <- ev.Object.(*discoveryv1.EndpointSlice)
		}
	})
	defer stop()
	quiet(changed)
	i := 0
	for b.Loop() {
		p, err := pods.Get(ctx, "default", fmt.Sprint("web-", i%(services*10)))
		if err != nil {
			b.Fatal(err)
		}
		p = p.DeepCopy()
		c := &p.Status.Conditions[0]
		if c.Status == corev1.ConditionTrue {
			c.Status = corev1.ConditionFalse
		} else {
			c.Status = corev1.ConditionTrue
		}
		c.LastTransitionTime = metav1.Now()
		if _, err := pods.UpdateStatus(ctx, p); err != nil {
			b.Fatal(err)
		}
		<-changed
		i++
	}
}

// quiet waits until the first slices of all Services have come.
func quiet(changed <-chan *discoveryv1.EndpointSlice) {
	for {
		select {
		case <-changed:
		case <-time.After(300 * time.Millisecond):
			return
		}
	}
}
