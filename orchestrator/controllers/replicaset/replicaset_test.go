package replicaset

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/quick"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/controllertest"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
	"github.com/xebec-mesh/xebec/tests/script"
)

func TestScripts(t *testing.T) {
	script.RunInBubble(t, "testdata/*.txtar", func(t *testing.T) map[string]script.Command {
		w := controllertest.New(t, func(c client.Interface) ([]controllertest.Runner, error) {
			recorder, err := reconcile.NewRecorder(reconcile.RecorderConfig{Client: c, Controller: "replicaset-controller"})
			if err != nil {
				return nil, err
			}
			controller, err := New(Config{Client: c, Recorder: recorder})
			return []controllertest.Runner{recorder, controller}, err
		})
		return script.From(w.Commands())
	})
}

var labelsOfSet = map[string]string{"app": "web"}

func set(replicas int32) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "set"},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labelsOfSet},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labelsOfSet}},
		},
	}
}

// arbitrary is a random snapshot.
func arbitrary(r *rand.Rand) Snapshot {
	rs := set(r.Int32N(20))
	rs.Spec.MinReadySeconds = r.Int32N(2) * 10
	s := Snapshot{Set: rs, Crowd: map[string]int{"n1": r.IntN(5), "n2": r.IntN(5)}}
	for i := range r.IntN(30) {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: fmt.Sprint("web-", i), UID: types.UID(fmt.Sprint("pod-", i)),
			CreationTimestamp: metav1.NewTime(epoch.Add(-time.Duration(r.IntN(1000)) * time.Second)),
		}}
		if r.IntN(4) > 0 {
			p.Labels = labelsOfSet
		}
		if r.IntN(3) > 0 {
			p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
		}
		if r.IntN(5) == 0 {
			p.DeletionTimestamp = &metav1.Time{Time: epoch}
		}
		p.Status.Phase = []corev1.PodPhase{corev1.PodPending, corev1.PodRunning, corev1.PodRunning, corev1.PodFailed}[r.IntN(4)]
		p.Spec.NodeName = []string{"", "n1", "n2"}[r.IntN(3)]
		if p.Status.Phase == corev1.PodRunning && r.IntN(2) == 0 {
			controllertest.Run(p, "10.244.0.1", epoch.Add(-time.Duration(r.IntN(20))*time.Second))
		}
		s.Pods = append(s.Pods, p)
	}
	return s
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// carriedOut is the snapshot after a plan has been applied.
func carriedOut(s Snapshot, p Plan) Snapshot {
	in := func(refs []pods.Ref, pod *corev1.Pod) bool {
		for _, ref := range refs {
			if ref == pods.RefOf(pod) {
				return true
			}
		}
		return false
	}
	rs := s.Set.DeepCopy()
	if p.Status != nil {
		rs.Status = *p.Status
	}
	next := Snapshot{Set: rs, Crowd: s.Crowd}
	for _, pod := range s.Pods {
		pod = pod.DeepCopy()
		switch {
		case in(p.Adopt, pod) && !in(p.Delete, pod):
			pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
		case in(p.Release, pod):
			pod.OwnerReferences = nil
		}
		if !in(p.Delete, pod) {
			next.Pods = append(next.Pods, pod)
		}
	}
	for i := range p.Create {
		pod := newPod(rs)
		pod.Name, pod.UID = fmt.Sprint("new-", i), types.UID(fmt.Sprint("new-", i))
		next.Pods = append(next.Pods, pod)
	}
	return next
}

func TestPlanProperties(t *testing.T) {
	check := func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 0))
		s := arbitrary(r)
		plan := compute(s, epoch)
		r.Shuffle(len(s.Pods), func(i, j int) { s.Pods[i], s.Pods[j] = s.Pods[j], s.Pods[i] })
		if again := compute(s, epoch); again.String() != plan.String() {
			t.Logf("another order of pods gives another plan:\n%s\n%s", plan, again)
			return false
		}
		if plan.Create > 0 && len(plan.Delete) > 0 {
			t.Logf("creates and deletes:\n%s", plan)
			return false
		}
		after := carriedOut(s, plan)
		second := compute(after, epoch)
		last := compute(carriedOut(after, Plan{Status: second.Status}), epoch)
		last.RetryAfter = 0
		if second.Status = nil; second.Create+len(second.Delete)+len(second.Adopt)+len(second.Release) > 0 || last.String() != "" {
			t.Logf("not converged after\n%s: again\n%s%s", plan, second, last)
			return false
		}
		return true
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 500}); err != nil {
		t.Error(err)
	}
}

func BenchmarkCompute(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("pods=%d", n), func(b *testing.B) {
			s := Snapshot{Set: set(int32(n))}
			for i := range n {
				p := newPod(s.Set)
				p.Name, p.UID = fmt.Sprint(i), types.UID(fmt.Sprint(i))
				s.Pods = append(s.Pods, p)
			}
			b.ReportAllocs()
			for b.Loop() {
				compute(s, epoch)
			}
		})
	}
}
