package admit_test

import (
	"context"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/xebec-mesh/xebec/galley/admit"
)

// FuzzAdmit: whatever is sent gets an answer.
func FuzzAdmit(f *testing.F) {
	for _, seed := range []string{
		`{"metadata":{"name":"a","namespace":"b"},"spec":{"hosts":["a"],"http":[{"route":[{"destination":{"host":"a"},"weight":150}]}]}}`,
		`{"spec":{"http":[null,{"match":[null],"route":[null],"mirrors":[null],"rewrite":{"uriRegexRewrite":{"match":"(","rewrite":"\\"}}}]}}`,
		`{"spec":{"host":"a","subsets":[null,{"trafficPolicy":{"portLevelSettings":[null]}}],"trafficPolicy":{"loadBalancer":{"consistentHash":{}}}}}`,
		`{"spec":{"mtls":{"mode":"STRICT"},"portLevelMtls":{"0":null}}}`,
		`{"spec":{"rules":[null,{"from":[null],"to":[null],"when":[null]}]}}`,
		`{"spec":{"servers":[null],"egress":[null],"ingress":[null],"jwtRules":[null],"ports":[null],"endpoints":[null]}}`,
	} {
		f.Add([]byte(seed))
	}
	p, err := admit.New(admit.Config{World: world{}})
	if err != nil {
		f.Fatal(err)
	}
	resources := map[string][]string{
		"networking.istio.io": {"virtualservices", "destinationrules", "gateways", "serviceentries", "sidecars"},
		"security.istio.io":   {"peerauthentications", "authorizationpolicies", "requestauthentications"},
		"telemetry.istio.io":  {"telemetries"},
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for group, names := range resources {
			for _, name := range names {
				r := p.Admit(context.Background(), &admissionv1.AdmissionRequest{
					Resource:  metav1.GroupVersionResource{Group: group, Version: "v1", Resource: name},
					Operation: admissionv1.Update, Object: runtime.RawExtension{Raw: data},
				})
				if !r.Allowed && r.Result.Message == "" {
					t.Errorf("%s: denied without a word", name)
				}
			}
		}
	})
}
