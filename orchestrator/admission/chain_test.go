package admission_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/xebec-mesh/xebec/orchestrator/admission"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// plugin is a webhook made of functions.
type plugin struct {
	name  string
	admit func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse
}

func (p plugin) Name() string { return p.name }
func (p plugin) Handles(_ admissionv1.Operation, gvr schema.GroupVersionResource, sub string) bool {
	return gvr.Resource == "pods" && sub == ""
}
func (p plugin) Admit(_ context.Context, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	return p.admit(r)
}

func patch(ops string) *admissionv1.AdmissionResponse {
	typ := admissionv1.PatchTypeJSONPatch
	return &admissionv1.AdmissionResponse{Allowed: true, Patch: []byte(ops), PatchType: &typ}
}

type mutator func(a *admission.Attributes) error

func (mutator) Name() string                                              { return "InProcess" }
func (m mutator) Mutate(_ context.Context, a *admission.Attributes) error { return m(a) }

func podKind() *resource.Kind {
	return resource.LookupKind(corev1.SchemeGroupVersion.WithKind("Pod"))
}

func create(k *resource.Kind, obj resource.Object) *admission.Attributes {
	return &admission.Attributes{Operation: admissionv1.Create, Kind: k, Namespace: obj.GetNamespace(), Name: obj.GetName(), Object: obj}
}

func chain(t *testing.T, cfg admission.Config) *admission.Chain {
	t.Helper()
	cfg.Log = quiet
	c, err := admission.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func testPod() *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "nginx"}}}}
	podKind().SetDefaults(p)
	return p
}

func TestPluginsSeeEachOther(t *testing.T) {
	runs := 0
	c := chain(t, admission.Config{
		Mutators: []admission.Mutator{mutator(func(a *admission.Attributes) error {
			runs++
			return nil
		})},
		Mutating: []admission.Plugin{
			plugin{"inject", func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
				var head metav1.TypeMeta
				if err := json.Unmarshal(r.Object.Raw, &head); err != nil || head.Kind != "Pod" || head.APIVersion != "v1" {
					t.Errorf("object has kind %v, %v", head, err)
				}
				return patch(`[{"op":"add","path":"/spec/initContainers","value":[{"name":"proxy","image":"envoy:1","restartPolicy":"Always"}]}]`)
			}},
			plugin{"label", func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
				if !strings.Contains(string(r.Object.Raw), "proxy") {
					t.Error("the second plugin does not see what the first did")
				}
				resp := patch(`[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]`)
				resp.Warnings = []string{"careful"}
				return resp
			}},
			plugin{"nothing", func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return nil }},
		},
	})
	a := create(podKind(), testPod())
	if err := c.Mutate(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	p := a.Object.(*corev1.Pod)
	if len(p.Spec.InitContainers) != 1 || p.Spec.InitContainers[0].ImagePullPolicy != corev1.PullIfNotPresent || p.Labels["a"] != "b" {
		t.Errorf("patched pod is not defaulted or not patched: %+v", p.Spec.InitContainers)
	}
	if runs != 2 || len(a.Warnings()) != 1 {
		t.Errorf("in-process plugins ran %d times, warnings %v", runs, a.Warnings())
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		admit  func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse
		code   int32
		reason metav1.StatusReason
		text   string
	}{
		{"denied", func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: "weight: 150"}}
		}, 403, metav1.StatusReasonForbidden, `admission plugin "p" denied the request: weight: 150`},
		{"invalid", func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			return &admissionv1.AdmissionResponse{Result: &metav1.Status{Code: 422, Reason: metav1.StatusReasonInvalid, Message: "no"}}
		}, 422, metav1.StatusReasonInvalid, "no"},
		{"panic", func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { panic("oh") }, 500, metav1.StatusReasonInternalError, `admission plugin "p" panicked`},
		{"bad patch", func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return patch(`{`) }, 500, metav1.StatusReasonInternalError, `admission plugin "p": decode patch for pods "web"`},
		{"lost patch", func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			return patch(`[{"op":"remove","path":"/nowhere"}]`)
		}, 500, metav1.StatusReasonInternalError, `admission plugin "p": apply patch to pods "web"`},
		{"wrong type", func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			return patch(`[{"op":"replace","path":"/spec/containers","value":7}]`)
		}, 500, metav1.StatusReasonInternalError, `admission plugin "p": decode the patched pods "web"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			ch := chain(t, admission.Config{Mutating: []admission.Plugin{plugin{"p", c.admit}}})
			err := ch.Mutate(t.Context(), create(podKind(), testPod()))
			status, ok := err.(apierrors.APIStatus)
			if !ok || status.Status().Code != c.code || status.Status().Reason != c.reason || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %+v, want %d %s %q", err, c.code, c.reason, c.text)
			}
		})
	}
}

func TestInProcessErrorsNameThePlugin(t *testing.T) {
	c := chain(t, admission.Config{Mutators: []admission.Mutator{mutator(func(*admission.Attributes) error { return fmt.Errorf("disk full") })}})
	err := c.Mutate(t.Context(), create(podKind(), testPod()))
	if !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), `admission plugin "InProcess": disk full`) {
		t.Error(err)
	}
}

func TestUnstructured(t *testing.T) {
	k := &resource.Kind{GroupVersionKind: schema.GroupVersionKind{Group: "g", Version: "v1", Kind: "Pod"}, Resource: "pods",
		New: func() resource.Object { return &unstructured.Unstructured{} }, Custom: true}
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "g/v1", "kind": "Pod", "metadata": map[string]any{"name": "a"}}}
	c := chain(t, admission.Config{Mutating: []admission.Plugin{plugin{"p", func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return patch(`[{"op":"add","path":"/spec","value":{"n":1}}]`)
	}}}})
	a := create(k, u)
	if err := c.Mutate(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if n, _, _ := unstructured.NestedInt64(a.Object.(*unstructured.Unstructured).Object, "spec", "n"); n != 1 {
		t.Errorf("%v", a.Object)
	}
}

func TestFinishOnce(t *testing.T) {
	a := create(podKind(), testPod())
	var got []error
	a.OnFinish(func(err error) { got = append(got, err) })
	a.Finish(fmt.Errorf("no"))
	a.Finish(nil)
	if len(got) != 1 || got[0] == nil {
		t.Errorf("%v", got)
	}
}
