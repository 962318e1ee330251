package xds_test

import (
	"fmt"
	"slices"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// TestBudget: what one edit may touch, with many services and callers in two namespaces.
func TestBudget(t *testing.T) {
	m := newMesh(t)
	var objs []client.Object
	for i := range 300 {
		name := fmt.Sprintf("svc-%d", i)
		objs = append(objs, service(name, 80, "http", fmt.Sprintf("10.96.%d.%d", i/250, i%250+1)))
		objs = append(objs, slice(name, "http", fmt.Sprintf("10.1.%d.%d", i/250, i%250+1), backend{name, 8080})...)
	}
	objs = append(objs, service("reviews", 80, "http", "10.97.0.1"), subsets("v1", "v2"), weighted(90, 10))
	m.apply(objs...)
	for i := range 20 {
		p := pod(fmt.Sprintf("caller-%d", i), map[string]string{"app": fmt.Sprintf("app-%d", i)}, "10.2.0.1")
		if i%2 == 0 {
			p.Namespace = "other"
		}
		m.server.Hold(p)
	}
	m.server.Touched()

	const host = "reviews.default.svc.cluster.local"
	vhost := "type.googleapis.com/envoy.config.route.v3.VirtualHost 80/" + host + ":80"
	changed := func(what string, want []string, objs ...client.Object) {
		t.Helper()
		m.apply(objs...)
		if got := m.server.Touched(); !slices.Equal(got, want) {
			t.Errorf("%s rebuilt\n%v\nwant\n%v", what, got, want)
		}
	}
	changed("a change of weights", []string{vhost}, weighted(50, 50))

	cla := "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment outbound|80|"
	changed("an endpoint", []string{cla + "|svc-0.default.svc.cluster.local"},
		slice("svc-0", "http", "10.1.9.9", backend{"svc-0", 8080})...)
	gone := slice("svc-0", "http", "10.1.9.9", backend{"svc-0", 8080})[0].(*discoveryv1.EndpointSlice)
	gone.Endpoints = nil
	changed("the end of an endpoint", []string{cla + "|svc-0.default.svc.cluster.local"}, gone)

	labelled := pod("nobody", map[string]string{"app": "x"}, "10.2.0.9")
	changed("a pod that serves nothing", nil, labelled)

	extra := service("extra", 80, "http", "10.97.0.9")
	changed("a service", []string{
		"type.googleapis.com/envoy.config.cluster.v3.Cluster outbound|80||extra.default.svc.cluster.local",
		cla + "|extra.default.svc.cluster.local",
		"type.googleapis.com/envoy.config.route.v3.VirtualHost 80/extra.default.svc.cluster.local:80",
	}, extra)
}
