package node

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
)

// A node registers, says whether it is ready, and leaves alone what is not its own.
func TestRegister(t *testing.T) {
	api := memory.New(time.Now)
	defer api.Close()
	var cause atomic.Pointer[error]
	say := func(err error) { cause.Store(&err) }
	say(ErrStarting)
	n, err := New(Config{
		Client: api, Name: "n1", IPs: []string{"192.0.2.1"}, Port: 10250, Labels: map[string]string{"zone": "a"},
		Ready: func() error { return *cause.Load() },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	nodes := client.For[*corev1.Node](api, client.Nodes)
	await := func(what string, ok func(*corev1.Node) bool) *corev1.Node {
		t.Helper()
		got := make(chan *corev1.Node, 1)
		defer nodes.Informer(client.ListOptions{}).Subscribe(func(e client.Event) {
			if o, is := e.Object.(*corev1.Node); is && ok(o) {
				select {
				case got <- o:
				default:
				}
			}
		})()
		select {
		case o := <-got:
			return o
		case <-time.After(10 * time.Second):
			t.Fatalf("the node is not %s: %+v", what, n.Get())
			return nil
		}
	}
	ready := func(want corev1.ConditionStatus) func(*corev1.Node) bool {
		return func(o *corev1.Node) bool {
			for _, c := range o.Status.Conditions {
				if c.Type == corev1.NodeReady {
					return c.Status == want
				}
			}
			return false
		}
	}
	await("registered", ready(corev1.ConditionFalse))
	say(nil)
	n.Changed()
	o := await("ready", ready(corev1.ConditionTrue))
	if o.Labels["zone"] != "a" || o.Labels[corev1.LabelHostname] != "n1" || o.Status.Addresses[0].Address != "192.0.2.1" ||
		o.Status.DaemonEndpoints.KubeletEndpoint.Port != 10250 || o.Status.Capacity.Cpu().IsZero() {
		t.Errorf("node = %+v", o)
	}

	// People's labels stay; our own come back; an agent that starts anew does not
	// make the node unready.
	if _, err := nodes.Patch(ctx, "", "n1", "application/merge-patch+json", []byte(`{"metadata":{"labels":{"mine":"1","zone":null}}}`), ""); err != nil {
		t.Fatal(err)
	}
	say(ErrStarting)
	n.Changed()
	o = await("labelled again", func(o *corev1.Node) bool { return o.Labels["zone"] == "a" && o.Labels["mine"] == "1" })
	if !ready(corev1.ConditionTrue)(o) {
		t.Errorf("labels = %v, conditions = %v", o.Labels, o.Status.Conditions)
	}
	say(errors.New("no network"))
	n.Changed()
	await("unready", ready(corev1.ConditionFalse))

	if _, err := api.Get(ctx, client.Leases.Resource, client.Key(&metav1.ObjectMeta{Namespace: leaseNamespace, Name: "n1"})); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
