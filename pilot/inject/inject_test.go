package inject_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
	"github.com/xebec-mesh/xebec/pilot/inject"
	"github.com/xebec-mesh/xebec/pilot/model"
	"github.com/xebec-mesh/xebec/tests/script"
)

// TestScripts: "namespace NAME [label=value]..." makes a namespace; "create FILE" prints
// the pod that results, or the refusal; "again" runs the plugin on what it made.
func TestScripts(t *testing.T) {
	script.Run(t, "testdata/*.txtar", func(t *testing.T) map[string]script.Command {
		c := memory.New(nil)
		t.Cleanup(c.Close)
		p, err := inject.New(inject.Config{Client: c, Revision: "canary", Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		var last []byte
		return map[string]script.Command{
			"namespace": func(_ *script.State, args []string) (string, error) { return "", namespace(c, args) },
			"create": func(s *script.State, args []string) (string, error) {
				data, err := s.File(args[0])
				if err != nil {
					return "", err
				}
				raw, err := yaml.YAMLToJSON(data)
				if err != nil {
					return "", err
				}
				last, err = admit(p, raw)
				return show(last, err)
			},
			"again": func(*script.State, []string) (string, error) {
				next, err := admit(p, last)
				if string(next) != string(last) {
					return "", fmt.Errorf("changed again: %s", next)
				}
				return "the same\n", err
			},
		}
	})
}

func namespace(c client.Interface, args []string) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: args[0], Labels: map[string]string{}}}
	for _, a := range args[1:] {
		k, v, _ := strings.Cut(a, "=")
		ns.Labels[k] = v
	}
	_, err := client.For(c, client.Namespaces).Create(context.Background(), ns)
	return err
}

func admit(p *inject.Plugin, raw []byte) ([]byte, error) {
	var head metav1.PartialObjectMetadata
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, err
	}
	r := p.Admit(context.Background(), &admissionv1.AdmissionRequest{
		Operation: admissionv1.Create, Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
		Namespace: head.Namespace, Object: runtime.RawExtension{Raw: raw},
	})
	if !r.Allowed {
		return nil, fmt.Errorf("%d: %s", r.Result.Code, r.Result.Message)
	}
	if r.Patch == nil {
		return raw, nil
	}
	patch, err := jsonpatch.DecodePatch(r.Patch)
	if err != nil {
		return nil, err
	}
	return patch.Apply(raw)
}

// show prints in one word or, for a meshed pod, what was added.
func show(raw []byte, err error) (string, error) {
	if err != nil {
		return "refused, " + err.Error() + "\n", nil
	}
	var pod corev1.Pod
	if err := json.Unmarshal(raw, &pod); err != nil {
		return "", err
	}
	if !model.IsMeshed(&pod) {
		return "plain\n", nil
	}
	var b strings.Builder
	fmt.Fprintln(&b, "meshed")
	for _, c := range pod.Spec.InitContainers {
		fmt.Fprintf(&b, "init %s\n", c.Name)
		if c.Name != model.SidecarContainer {
			continue
		}
		text, err := yaml.Marshal(c)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s", text)
	}
	for _, m := range []map[string]string{pod.Annotations, pod.Labels} {
		text, err := yaml.Marshal(m)
		if err != nil {
			return "", err
		}
		b.Write(text)
	}
	for _, v := range pod.Spec.Volumes {
		fmt.Fprintf(&b, "volume %s\n", v.Name)
	}
	return b.String(), nil
}
