package service

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/dataplane/dns"
	"github.com/xebec-mesh/xebec/dataplane/service"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
)

func parse[T any](t testing.TB, text string) *T {
	t.Helper()
	var v T
	if err := yaml.UnmarshalStrict([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return &v
}

const web = `
metadata: {namespace: default, name: web}
spec:
  clusterIP: 10.96.0.5
  clusterIPs: [10.96.0.5, "fd00::5"]
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: dns, port: 53, protocol: UDP}
`

const slice = `
metadata: {namespace: default, name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}, {name: dns, port: 5353, protocol: UDP}]
endpoints:
- {addresses: [10.244.0.7], conditions: {ready: true}, nodeName: n1}
- {addresses: [10.244.1.8], conditions: {ready: false, serving: true, terminating: true}, nodeName: n2}
`

func text(s service.Service) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %v local=%t affinity=%s\n", s.Name, s.Addrs, s.LocalOnly, s.Affinity)
	for _, p := range s.Ports {
		fmt.Fprintf(&b, "%s %s/%d", p.Name, p.Protocol, p.Port)
		for _, e := range p.Endpoints {
			fmt.Fprintf(&b, " %s(ready=%t serving=%t terminating=%t local=%t)", e.Addr, e.Ready, e.Serving, e.Terminating, e.Local)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestBalance(t *testing.T) {
	got := text(Balance(parse[corev1.Service](t, web), []*discoveryv1.EndpointSlice{parse[discoveryv1.EndpointSlice](t, slice)}, "n1"))
	const want = `default/web [10.96.0.5 fd00::5] local=false affinity=1m0s
http TCP/80 10.244.0.7:8080(ready=true serving=true terminating=false local=true) 10.244.1.8:8080(ready=false serving=true terminating=true local=false)
dns UDP/53 10.244.0.7:5353(ready=true serving=true terminating=false local=true) 10.244.1.8:5353(ready=false serving=true terminating=true local=false)
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestResolve(t *testing.T) {
	s := parse[corev1.Service](t, web)
	s.Spec.ClusterIP, s.Spec.ClusterIPs = corev1.ClusterIPNone, []string{corev1.ClusterIPNone}
	d := Resolve(s, []*discoveryv1.EndpointSlice{parse[discoveryv1.EndpointSlice](t, slice)})
	if len(d.Addrs) != 0 || len(d.Endpoints) != 1 || d.Endpoints[0].Addr.String() != "10.244.0.7" {
		t.Errorf("headless = %+v", d)
	}
	s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}
	if d := Resolve(s, nil); d.ExternalName != "example.com" || len(d.Ports) != 0 {
		t.Errorf("external = %+v", d)
	}
}

type told struct{ what chan string }

func (r told) Apply(s []service.Service, _ uint64) error {
	r.what <- fmt.Sprintf("all %d", len(s))
	return nil
}
func (r told) Update(s ...service.Service) error {
	for _, v := range s {
		n := 0
		for _, p := range v.Ports {
			n += len(p.Endpoints)
		}
		r.what <- fmt.Sprintf("update %s %d", v.Name, n)
	}
	return nil
}
func (r told) Delete(names ...string) error {
	r.what <- fmt.Sprintf("delete %s", strings.Join(names, " "))
	return nil
}
func (told) Send(dns.Update) {}

// The whole state first, then what changes.
func TestFollow(t *testing.T) {
	api := memory.New(time.Now)
	defer api.Close()
	create := func(r client.Resource, o client.Object) {
		t.Helper()
		if _, err := api.Create(t.Context(), r, o, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	create(client.Services.Resource, parse[corev1.Service](t, web))
	tables := told{make(chan string, 100)}
	f, err := New(Config{Client: api, Node: "n1", Balancer: tables, Resolver: tables})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	expect := func(want string) {
		t.Helper()
		for {
			select {
			case got := <-tables.what:
				if got == want {
					return
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("not told %q", want)
			}
		}
	}
	expect("all 1")
	create(client.EndpointSlices.Resource, parse[discoveryv1.EndpointSlice](t, slice))
	expect("update default/web 4")
	if err := client.For[*corev1.Service](api, client.Services).Delete(t.Context(), "default", "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	expect("delete default/web")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
