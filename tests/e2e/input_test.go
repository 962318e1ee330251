package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestBadInput gives the cluster what it must refuse or mark, under load: the
// answer says what is wrong and where, and no visitor notices.
func TestBadInput(t *testing.T) {
	l := startLoad(2)
	defer l.stop(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"malformed YAML", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n data: [", []string{"yaml", "line"}},
		{"unknown field", `{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}, spec: {replicaz: 3,
			selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}`,
			[]string{`unknown field "spec.replicaz"`}},
		{"weight of 150", `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: x, namespace: pictures},
			spec: {hosts: [metadata], http: [{route: [{destination: {host: metadata}, weight: 50}, {destination: {host: pictures}, weight: 150}]}]}}`,
			[]string{"spec.http[0].route[1].weight", "150"}},
		{"2 MiB object", "{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, data: {big: " + strings.Repeat("a", 2<<20) + "}}",
			[]string{"ConfigMap", "1048576"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := kubectlFails(t, "create", "--validate=strict", "-f", write("x.yaml", c.text))
			for _, w := range c.want {
				if !strings.Contains(out, w) {
					t.Errorf("the error does not say %q:\n%.600s", w, out)
				}
			}
			if len(out) > 4000 {
				t.Errorf("the error is %d bytes long", len(out))
			}
		})
	}
	t.Run("absent subset", func(t *testing.T) { absentSubset(t, write) })
	t.Run("10,000 CPUs", manyCPUs)
}

// absentSubset routes to a subset that no DestinationRule has: the object says so.
func absentSubset(t *testing.T, write func(name, text string) string) {
	kubectl(t, "apply", "-f", write("absent.yaml", `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: absent, namespace: pictures},
		spec: {hosts: [absent.example], http: [{route: [{destination: {host: pictures, subset: v9}}]}]}}`))
	t.Cleanup(func() { kubectl(t, "-n", "pictures", "delete", "virtualservice", "absent") })
	eventually(t, 10*time.Second, "the VirtualService says that the subset does not exist", func() (bool, string) {
		out := kubectl(t, "-n", "pictures", "get", "virtualservice", "absent", "-o", "jsonpath={.status}")
		return strings.Contains(out, "v9") && strings.Contains(out, "False"), out
	})
}

// manyCPUs asks for more than any node has: an event says so.
func manyCPUs(t *testing.T) {
	ctx := context.Background()
	pods := cluster.api.CoreV1().Pods("default")
	_, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "huge"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "c", Image: "xebec.local/e2e/probe:v1",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10000")}},
		}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pods.Delete(ctx, "huge", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	eventually(t, 10*time.Second, "kubectl describe says why the pod is pending", func() (bool, string) {
		out := kubectl(t, "describe", "pod", "huge")
		return strings.Contains(out, "FailedScheduling") && strings.Contains(out, "Insufficient cpu"), out
	})
}
