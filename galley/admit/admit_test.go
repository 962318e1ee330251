package admit_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/xebec-mesh/xebec/galley/admit"
	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/tests/script"
)

// TestScripts applies each file to an empty world: "apply FILE" prints what the
// person who applies it would read.
func TestScripts(t *testing.T) {
	script.Run(t, "testdata/*.txtar", func(t *testing.T) map[string]script.Command {
		return map[string]script.Command{"apply": func(s *script.State, args []string) (string, error) {
			data, err := s.File(args[0])
			if err != nil {
				return "", err
			}
			return apply(t, data)
		}}
	})
}

// world has the services reviews (port 80; subsets v1, v2) and ratings, both in default.
type world struct{}

func (world) Ports(host string) ([]uint32, bool) {
	ok := host == "reviews.default.svc.cluster.local" || host == "ratings.default.svc.cluster.local"
	return []uint32{80}, ok
}

func (world) Subsets(host string) []string {
	if strings.HasPrefix(host, "reviews") {
		return []string{"v1", "v2"}
	}
	return nil
}

func (world) Routers(string) []config.Ref { return nil }

func apply(t *testing.T, data []byte) (string, error) {
	t.Helper()
	p, err := admit.New(admit.Config{World: world{}})
	if err != nil {
		return "", err
	}
	raw, err := yaml.YAMLToJSON(data)
	if err != nil {
		return "", err
	}
	var head struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return "", err
	}
	gvk := head.GroupVersionKind()
	plural := strings.ToLower(gvk.Kind) + "s"
	if strings.HasSuffix(plural, "ys") && !strings.HasSuffix(plural, "ays") {
		plural = strings.TrimSuffix(plural, "ys") + "ies"
	}
	r := p.Admit(t.Context(), &admissionv1.AdmissionRequest{
		Kind:      metav1.GroupVersionKind{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind},
		Resource:  metav1.GroupVersionResource{Group: gvk.Group, Version: gvk.Version, Resource: plural},
		Namespace: head.Namespace, Name: head.Name, Operation: admissionv1.Create,
		Object: runtime.RawExtension{Raw: raw},
	})
	var out strings.Builder
	if r.Allowed {
		fmt.Fprintln(&out, "allowed")
		for _, w := range r.Warnings {
			fmt.Fprintln(&out, "warning:", w)
		}
		return out.String(), nil
	}
	fmt.Fprintf(&out, "denied, %d %s:\n", r.Result.Code, r.Result.Reason)
	for _, c := range r.Result.Details.Causes {
		fmt.Fprintf(&out, "%s: %s\n", c.Field, c.Message)
	}
	return out.String(), nil
}
