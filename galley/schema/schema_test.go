package schema_test

import (
	"slices"
	"testing"

	"github.com/xebec-mesh/xebec/galley/schema"
)

func TestCRDs(t *testing.T) {
	crds, err := schema.CRDs()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range crds {
		names = append(names, c.Name)
		for _, v := range c.Spec.Versions {
			if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil || v.Schema.OpenAPIV3Schema.Type != "object" {
				t.Errorf("%s %s has no structural schema", c.Name, v.Name)
			}
		}
	}
	for _, want := range []string{
		"virtualservices.networking.istio.io", "destinationrules.networking.istio.io", "gateways.networking.istio.io",
		"serviceentries.networking.istio.io", "sidecars.networking.istio.io", "peerauthentications.security.istio.io",
		"authorizationpolicies.security.istio.io", "requestauthentications.security.istio.io", "telemetries.telemetry.istio.io",
		"httproutes.gateway.networking.k8s.io", "gateways.gateway.networking.k8s.io", "gatewayclasses.gateway.networking.k8s.io",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("no %s among %v", want, names)
		}
	}
}

func BenchmarkCRDs(b *testing.B) {
	for b.Loop() {
		if _, err := schema.CRDs(); err != nil {
			b.Fatal(err)
		}
	}
}
