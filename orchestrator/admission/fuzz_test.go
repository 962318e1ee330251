package admission_test

import (
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/xebec-mesh/xebec/orchestrator/admission"
)

// Whatever a plugin answers, the pod is patched or the error names the plugin.
func FuzzPatch(f *testing.F) {
	f.Add([]byte(`[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]`))
	f.Add([]byte(`[{"op":"replace","path":"","value":null}]`))
	f.Add([]byte(`[{"op":"remove","path":"/spec/containers/0"}]`))
	f.Add([]byte(`[{"op":"copy","from":"/spec","path":"/spec/containers/-"}]`))
	f.Add([]byte(`[{"op":"move","from":"/metadata","path":"/spec/volumes"}]`))
	f.Fuzz(func(t *testing.T, ops []byte) {
		c, err := admission.New(admission.Config{Log: quiet, Mutating: []admission.Plugin{plugin{"p", func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			return patch(string(ops))
		}}}})
		if err != nil {
			t.Fatal(err)
		}
		a := create(podKind(), testPod())
		if err := c.Mutate(t.Context(), a); err != nil && apierrors.ReasonForError(err) == "" {
			t.Errorf("not an API error: %v", err)
		}
		if a.Object == nil {
			t.Error("the object is gone")
		}
	})
}
