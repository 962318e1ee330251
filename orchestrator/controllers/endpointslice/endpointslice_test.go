package endpointslice

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/quick"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/controllertest"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
	"github.com/xebec-mesh/xebec/tests/script"
)

func TestScripts(t *testing.T) {
	script.RunInBubble(t, "testdata/*.txtar", func(t *testing.T) map[string]script.Command {
		w := controllertest.New(t, func(c client.Interface) ([]controllertest.Runner, error) {
			controller, err := New(Config{Client: c})
			return []controllertest.Runner{controller}, err
		})
		return script.From(w.Commands())
	})
}

func service() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "web"},
		Spec: corev1.ServiceSpec{
			Selector:   map[string]string{"app": "web"},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
			Ports:      []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("http")}},
		},
	}
}

func pod(i int, port int32) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("web-", i), UID: types.UID(fmt.Sprint("pod-", i))}}
	p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: port}}}}
	p.Status.PodIPs = []corev1.PodIP{{IP: fmt.Sprintf("10.244.%d.%d", i/250, i%250+1)}, {IP: fmt.Sprintf("fd00::%x", i+1)}}
	return p
}

// carriedOut is what the API holds after a plan.
func carriedOut(have []*discoveryv1.EndpointSlice, p Plan, names *int) []*discoveryv1.EndpointSlice {
	next := map[string]*discoveryv1.EndpointSlice{}
	for _, s := range have {
		next[s.Name] = s
	}
	for _, s := range p.Update {
		next[s.Name] = s
	}
	for _, ref := range p.Delete {
		delete(next, ref.Name)
	}
	for _, s := range p.Create {
		*names++
		s.Name = fmt.Sprint(s.GenerateName, *names)
		next[s.Name] = s
	}
	var out []*discoveryv1.EndpointSlice
	for _, s := range next {
		out = append(out, s)
	}
	return out
}

func TestPlanProperties(t *testing.T) {
	check := func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 2))
		s := Snapshot{Service: service(), Zone: func(string) string { return "" }}
		names := 0
		present := map[int]*corev1.Pod{}
		for range 5 {
			for range r.IntN(300) {
				if i := r.IntN(400); present[i] != nil && r.IntN(2) == 0 {
					delete(present, i)
				} else {
					present[i] = pod(i, 8080+r.Int32N(2))
				}
			}
			s.Pods = nil
			for _, p := range present {
				s.Pods = append(s.Pods, p)
			}
			plan := compute(s)
			s.Slices = carriedOut(s.Slices, plan, &names)
			if again := compute(s); again.String() != "" {
				t.Logf("not converged after\n%s: again\n%s", plan, again)
				return false
			}
			seen := map[identity]bool{}
			for _, slice := range s.Slices {
				if len(slice.Endpoints) > Max {
					t.Logf("%s has %d endpoints", slice.Name, len(slice.Endpoints))
					return false
				}
				for i := range slice.Endpoints {
					if id := identityOf(&slice.Endpoints[i]); seen[id] {
						t.Logf("%v is in two slices", id)
						return false
					} else {
						seen[id] = true
					}
				}
			}
			if len(seen) != 2*len(present) {
				t.Logf("%d endpoints for %d pods of two families", len(seen), len(present))
				return false
			}
		}
		return true
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 15}); err != nil {
		t.Error(err)
	}
}

// TestOneChangeTouchesOneSliceAFamily holds the budget of a pod that becomes ready.
func TestOneChangeTouchesOneSliceAFamily(t *testing.T) {
	s := Snapshot{Service: service(), Zone: func(string) string { return "" }}
	for i := range 1000 {
		s.Pods = append(s.Pods, pod(i, 8080))
	}
	names := 0
	s.Slices = carriedOut(nil, compute(s), &names)
	if len(s.Slices) != 20 {
		t.Fatalf("%d slices for 1000 pods of two families", len(s.Slices))
	}
	s.Pods[500] = s.Pods[500].DeepCopy()
	s.Pods[500].Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	if p := compute(s); len(p.Update) != 2 || len(p.Create)+len(p.Delete) != 0 {
		t.Errorf("one pod became ready:\n%s", p)
	}
	if !pods.Ready(s.Pods[500]) {
		t.Error("the pod is not ready")
	}
}

func BenchmarkCompute(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("endpoints=%d", n), func(b *testing.B) {
			s := Snapshot{Service: service(), Zone: func(string) string { return "" }}
			for i := range n {
				s.Pods = append(s.Pods, pod(i, 8080))
			}
			names := 0
			s.Slices = carriedOut(nil, compute(s), &names)
			b.ReportAllocs()
			for b.Loop() {
				compute(s)
			}
		})
	}
}
