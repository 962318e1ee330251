package xds_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/pilot/xds"
)

// broken routes by an expression that admission would refuse, as if it had slipped
// through: the proxy is the one to refuse it.
func broken(name, host, regex string) *networkingv1.VirtualService {
	generation++
	return &networkingv1.VirtualService{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Generation: generation},
		Spec: networking.VirtualService{Hosts: []string{host}, Http: []*networking.HTTPRoute{{
			Match: []*networking.HTTPMatchRequest{{Uri: &networking.StringMatch{MatchType: &networking.StringMatch_Regex{Regex: regex}}}},
			Route: []*networking.HTTPRouteDestination{{Destination: &networking.Destination{Host: host}}},
		}}},
	}
}

func blamed(rs []xds.Rejection) []string {
	var out []string
	for _, r := range rs {
		for _, o := range r.Objects {
			if o.Kind == "VirtualService" && !r.Resolved {
				out = append(out, o.Name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestRealEnvoyRefuses lets the real Envoy refuse one route of several: the object
// behind it is named, the last good one stays in force, and nothing else is disturbed,
// neither here nor in an Envoy that starts now.
func TestRealEnvoyRefuses(t *testing.T) {
	envoyBinary(t)
	m := newMesh(t)
	reviews(t, m)
	caller := pod("caller", map[string]string{"app": "caller"}, "10.244.0.9")
	m.apply(subsets("v1", "v2"), weighted(100, 0), service("other", 80, "http", "10.96.0.30"))
	e := startEnvoy(t, m, caller)
	e.ready()
	answers := func(e *envoyProcess, host, want string) {
		t.Helper()
		eventually(t, func() error {
			if code, body, err := e.get(host, "/"); err != nil || body != want {
				return fmt.Errorf("%s: %d %q %v", host, code, body, err)
			}
			return nil
		})
	}
	answers(e, "reviews", "v1")

	bad := broken("reviews", "reviews", "(?=never)")
	m.apply(bad, broken("other", "other", "/fine"))
	eventually(t, func() error {
		if got := blamed(m.rejections()); !slices.Equal(got, []string{"reviews"}) {
			return fmt.Errorf("blamed %v: %+v", got, m.rejections())
		}
		return nil
	})
	if r := m.rejections()[0]; r.Proxy != "default/caller" || !strings.Contains(r.Resource, "reviews") || r.Objects[0].Generation != bad.Generation {
		t.Errorf("rejection %+v", r)
	}
	answers(e, "reviews", "v1")
	if code, _, _ := e.get("other", "/x"); code != 404 { // the good route of the same batch
		t.Errorf("other: %d, not 404", code)
	}

	late := startEnvoy(t, m, caller)
	late.ready()
	answers(late, "reviews", "v1")

	m.apply(weighted(0, 100))
	answers(e, "reviews", "v2")
	answers(late, "reviews", "v2")
	if rs := m.rejections(); !rs[len(rs)-1].Resolved {
		t.Errorf("not resolved: %+v", rs)
	}
}
