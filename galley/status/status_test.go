package status_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/xebec-mesh/xebec/galley/status"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
)

func decode[T any](t *testing.T, text string) *T {
	t.Helper()
	o := new(T)
	if err := yaml.Unmarshal([]byte(text), o); err != nil {
		t.Fatal(err)
	}
	return o
}

// expect waits for the event after which the object's conditions read like want.
func expect(t *testing.T, c client.Interface, want ...string) {
	t.Helper()
	view := client.For(c, client.VirtualServices).Informer(client.ListOptions{})
	changed := make(chan struct{}, 100)
	defer view.Subscribe(func(client.Event) { changed <- struct{}{} })()
	deadline := time.After(10 * time.Second)
	var got []string
	for {
		got = nil
		if v, ok := view.Get("default", "reviews"); ok {
			for _, c := range v.Status.GetConditions() {
				got = append(got, fmt.Sprintf("%s=%s %s %s", c.GetType(), c.GetStatus(), c.GetReason(), c.GetMessage()))
			}
			for _, m := range v.Status.GetValidationMessages() {
				got = append(got, m.GetLevel().String()+" "+m.GetType().GetCode())
			}
		}
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestConditions(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := memory.New(nil)
	defer c.Close()
	w, err := status.New(status.Config{Client: c, World: status.NewWorld(c, "cluster.local"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	defer func() { cancel(); <-done }()

	virtuals := client.For(c, client.VirtualServices)
	v, err := virtuals.Create(ctx, decode[networkingv1.VirtualService](t, `
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews, subset: v2}}]}]`))
	if err != nil {
		t.Fatal(err)
	}
	const fine = "Programmed=True Accepted no proxy refuses what is made from it"
	expect(t, c,
		`Reconciled=False ReferencedResourceNotFound spec.http[0].route[0].destination.host: "reviews": there is no service reviews.default.svc.cluster.local; requests that go there are answered with 503`,
		fine, "ERROR IST0101")

	if _, err := client.For(c, client.Services).Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "reviews", Namespace: "default"}}); err != nil {
		t.Fatal(err)
	}
	expect(t, c,
		`Reconciled=False ReferencedResourceNotFound spec.http[0].route[0].destination.subset: "v2": no DestinationRule for reviews.default.svc.cluster.local declares it (there is none); requests that go there are answered with 503`,
		fine, "ERROR IST0101")

	if _, err := client.For(c, client.DestinationRules).Create(ctx, decode[networkingv1.DestinationRule](t, `
metadata: {name: reviews, namespace: default}
spec: {host: reviews, subsets: [{name: v2, labels: {version: v2}}]}`)); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "Reconciled=True Valid everything that it refers to exists", fine)

	r := status.Rejection{Kind: "VirtualService", Namespace: "default", Name: "reviews", Generation: v.Generation,
		Proxy: "default/web-0", TypeURL: "type.googleapis.com/envoy.config.route.v3.VirtualHost", Resource: "80/reviews", Detail: "bad regex"}
	w.Rejected(r)
	expect(t, c, "Reconciled=True Valid everything that it refers to exists",
		"Programmed=False RejectedByProxy VirtualHost 80/reviews was refused by default/web-0, the last good one stays in force: bad regex",
		"ERROR XBC0101")
	r.Resolved = true
	w.Rejected(r)
	expect(t, c, "Reconciled=True Valid everything that it refers to exists", fine)
}
