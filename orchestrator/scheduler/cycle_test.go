package scheduler

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/xebec-mesh/xebec/orchestrator/scheduler/snapshot"
	"github.com/xebec-mesh/xebec/tests/script"
)

// TestScripts: `cluster FILE` takes in namespaces, nodes and placed pods;
// `place FILE` places pods one after the other and prints where, or why not;
// `suitable FILE` prints all nodes that suit each pod.
func TestScripts(t *testing.T) {
	script.Run(t, "testdata/*.txtar", func(*testing.T) map[string]script.Command {
		w := &world{s: snapshot.New(), c: newCycle(rand.New(rand.NewPCG(1, 1)))}
		return map[string]script.Command{"cluster": w.cluster, "place": w.place, "suitable": w.suitable}
	})
}

type world struct {
	s *snapshot.Snapshot
	c *cycle
}

func (w *world) cluster(s *script.State, args []string) (string, error) {
	return "", objects(s, args[0], func(o any) {
		switch o := o.(type) {
		case *corev1.Namespace:
			w.s.SetNamespace(o.Name, labels.Set(o.Labels))
		case *corev1.Node:
			w.s.SetNode(o)
		case *corev1.Pod:
			w.s.SetPod(snapshot.NewPod(o))
		}
	})
}

func (w *world) place(s *script.State, args []string) (string, error) {
	var b strings.Builder
	err := objects(s, args[0], func(o any) {
		pod := o.(*corev1.Pod)
		out := w.c.place(snapshot.NewPod(pod), w.s)
		fmt.Fprintf(&b, "%s: %s\n", pod.Name, out.String())
		if out.Node != "" {
			w.s.SetPod(snapshot.NewPod(withNode(pod, out.Node)))
		}
	})
	return b.String(), err
}

func (w *world) suitable(s *script.State, args []string) (string, error) {
	var b strings.Builder
	err := objects(s, args[0], func(o any) {
		pod := o.(*corev1.Pod)
		var out Outcome
		w.c.prepare(snapshot.NewPod(pod), w.s)
		w.c.search(w.s, &out)
		var names []string
		for _, n := range w.c.feasible {
			names = append(names, n.Name)
		}
		slices.Sort(names)
		fmt.Fprintf(&b, "%s: %s\n", pod.Name, strings.Join(names, " "))
	})
	return b.String(), err
}

func objects(s *script.State, file string, visit func(any)) error {
	data, err := s.File(file)
	if err != nil {
		return err
	}
	for _, doc := range bytes.Split(data, []byte("\n---\n")) {
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode(doc, nil, nil)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		visit(o)
	}
	return nil
}

// TestSnapshotSums holds that sums are those of the pods that are there, in
// whatever order nodes and pods came and went.
func TestSnapshotSums(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	s := snapshot.New()
	for range 5000 {
		node := fmt.Sprintf("n%d", r.IntN(8))
		pod := plainPod(r.IntN(40), int64(r.IntN(500)))
		switch r.IntN(6) {
		case 0:
			s.SetNode(plainNode(node, 1000))
		case 1:
			s.RemoveNode(node)
		case 2:
			s.RemovePod(snapshot.Key(pod))
		default:
			s.SetPod(snapshot.NewPod(withNode(pod, node)))
		}
	}
	for _, n := range s.Nodes {
		var cpu, pods int64
		for _, p := range s.All() {
			if p.Spec.NodeName == n.Name {
				cpu += p.Requests.MilliCPU
				pods++
			}
		}
		if n.Requested.MilliCPU != cpu || n.Requested.Pods != pods || int(pods) != len(n.Pods) {
			t.Errorf("node %s counts %dm and %d pods, has %dm and %d", n.Name, n.Requested.MilliCPU, n.Requested.Pods, cpu, pods)
		}
	}
}

func plainNode(name string, pods int64) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("64"),
			corev1.ResourceMemory: resource.MustParse("256Gi"),
			corev1.ResourcePods:   *resource.NewQuantity(pods, resource.DecimalSI),
		}},
	}
}

func plainPod(i int, milliCPU int64) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("p%06d", i), UID: "u"},
		Spec: corev1.PodSpec{SchedulerName: corev1.DefaultSchedulerName, Containers: []corev1.Container{{
			Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceCPU:    *resource.NewMilliQuantity(milliCPU, resource.DecimalSI),
				corev1.ResourceMemory: *resource.NewQuantity(64<<20, resource.BinarySI),
			}},
		}}},
	}
}

// BenchmarkCycle places one more pod on a cluster that runs many.
func BenchmarkCycle(b *testing.B) {
	for _, size := range []struct{ nodes, pods int }{{1000, 10_000}, {10_000, 100_000}} {
		b.Run(fmt.Sprintf("nodes=%d/pods=%d", size.nodes, size.pods), func(b *testing.B) {
			s := snapshot.New()
			for i := range size.nodes {
				s.SetNode(plainNode(fmt.Sprintf("n%05d", i), 1000))
			}
			for i := range size.pods {
				s.SetPod(snapshot.NewPod(withNode(plainPod(i, 100), fmt.Sprintf("n%05d", i%size.nodes))))
			}
			c := newCycle(rand.New(rand.NewPCG(1, 1)))
			next := size.pods
			b.ReportAllocs()
			for b.Loop() {
				pod := plainPod(next, 100)
				next++
				p := snapshot.NewPod(pod)
				out := c.place(p, s)
				if out.Node == "" {
					b.Fatal(out.String())
				}
				assumed := *p
				assumed.Pod = withNode(pod, out.Node)
				s.SetPod(&assumed)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pods/s")
		})
	}
}
