package deployment

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
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/controllertest"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/replicaset"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
	"github.com/xebec-mesh/xebec/tests/script"
)

func TestScripts(t *testing.T) {
	script.RunInBubble(t, "testdata/*.txtar", func(t *testing.T) map[string]script.Command {
		w := controllertest.New(t, func(c client.Interface) ([]controllertest.Runner, error) {
			recorder, err := reconcile.NewRecorder(reconcile.RecorderConfig{Client: c, Controller: "deployment-controller"})
			if err != nil {
				return nil, err
			}
			deployments, err := New(Config{Client: c, Recorder: recorder})
			if err != nil {
				return nil, err
			}
			sets, err := replicaset.New(replicaset.Config{Client: c})
			return []controllertest.Runner{recorder, deployments, sets}, err
		})
		return script.From(w.Commands())
	})
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// cluster plays the API server and the replica sets' controller for one deployment.
type cluster struct {
	d    *appsv1.Deployment
	sets []*appsv1.ReplicaSet
	made int
}

func (c *cluster) apply(p Plan) {
	if p.Status != nil {
		c.d.Status = *p.Status
	}
	if p.Revision != "" {
		c.d.Annotations = map[string]string{revisionAnnotation: p.Revision}
	}
	if p.Create != nil {
		c.made++
		rs := p.Create.DeepCopy()
		rs.UID = types.UID(fmt.Sprint(rs.Name, "-", c.made))
		rs.CreationTimestamp = metav1.NewTime(epoch.Add(time.Duration(c.made) * time.Second))
		c.sets = append(c.sets, rs)
	}
	for _, change := range p.Update {
		for i, rs := range c.sets {
			if rs.UID == change.Set.UID {
				next := rs.DeepCopy()
				next.Annotations, next.Spec.Replicas, next.Spec.MinReadySeconds = change.Annotations, &change.Replicas, change.MinReady
				c.sets[i] = next
			}
		}
	}
	for _, ref := range p.Delete {
		for i, rs := range c.sets {
			if rs.UID == ref.UID {
				c.sets = append(c.sets[:i:i], c.sets[i+1:]...)
				break
			}
		}
	}
}

// advance moves some sets' statuses towards their specs. Pods that are not available
// go first when a set shrinks.
func (c *cluster) advance(r *rand.Rand, all bool) {
	for i, rs := range c.sets {
		if !all && r.IntN(2) == 0 {
			continue
		}
		next := rs.DeepCopy()
		want := *rs.Spec.Replicas
		next.Status.Replicas = want
		next.Status.AvailableReplicas = min(next.Status.AvailableReplicas, want)
		if grow := want - next.Status.AvailableReplicas; grow > 0 && (all || r.IntN(2) == 0) {
			next.Status.AvailableReplicas += 1 + r.Int32N(grow)
		}
		next.Status.ReadyReplicas = next.Status.AvailableReplicas
		c.sets[i] = next
	}
}

func (c *cluster) available() (n int32) {
	for _, rs := range c.sets {
		n += min(rs.Status.AvailableReplicas, *rs.Spec.Replicas)
	}
	return n
}

func (c *cluster) asked() (n int32) {
	for _, rs := range c.sets {
		n += *rs.Spec.Replicas
	}
	return n
}

func (c *cluster) snapshot(r *rand.Rand) Snapshot {
	r.Shuffle(len(c.sets), func(i, j int) { c.sets[i], c.sets[j] = c.sets[j], c.sets[i] })
	return Snapshot{Deployment: c.d, Sets: c.sets}
}

func newDeployment(r *rand.Rand) *appsv1.Deployment {
	replicas, deadline := r.Int32N(12), int32(600)
	labels := map[string]string{"app": "web"}
	amount := func() *intstr.IntOrString {
		v := intstr.FromInt32(r.Int32N(4))
		if r.IntN(2) == 0 {
			v = intstr.FromString(fmt.Sprintf("%d%%", r.IntN(101)))
		}
		return &v
	}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "web", Generation: 1},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, ProgressDeadlineSeconds: &deadline,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: amount(), MaxUnavailable: amount()}},
		},
	}
}

// TestRolloutIsSafeAndEnds rolls random deployments through random templates, and
// holds every step against maxSurge and maxUnavailable.
func TestRolloutIsSafeAndEnds(t *testing.T) {
	check := func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 1))
		c := &cluster{d: newDeployment(r)}
		surge, unavailable := (&rollout{d: c.d}).limits()
		want := *c.d.Spec.Replicas
		for i := range 4 {
			c.d = c.d.DeepCopy()
			c.d.Spec.Template.Annotations = map[string]string{"image": fmt.Sprint(r.IntN(3))}
			c.d.Generation++
			settle := r.IntN(2) == 0 || i == 3
			for step := range 200 {
				s := c.snapshot(r)
				before := c.available()
				plan := compute(s, epoch)
				if again := compute(c.snapshot(r), epoch); again.String() != plan.String() {
					t.Logf("another order gives another plan:\n%s\n%s", plan, again)
					return false
				}
				c.apply(plan)
				if n := c.asked(); n > want+surge {
					t.Logf("asks for %d pods, at most %d+%d are allowed, after\n%s", n, want, surge, plan)
					return false
				}
				if n := c.available(); n < before && n < want-unavailable {
					t.Logf("leaves %d pods available of %d, %d are needed, after\n%s", n, before, want-unavailable, plan)
					return false
				}
				c.advance(r, step > 100)
				if !settle && step > 3 {
					break
				}
			}
		}
		last := compute(c.snapshot(r), epoch)
		c.apply(last)
		rollout := compute(c.snapshot(r), epoch)
		if rollout.String() != "" || c.d.Status.UpdatedReplicas != want || c.d.Status.Replicas != want || c.d.Status.AvailableReplicas != want {
			t.Logf("does not end: %+v\n%s", c.d.Status, rollout)
			return false
		}
		return true
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 40}); err != nil {
		t.Error(err)
	}
}

// TestPlanStandsAnything pauses, resizes and rolls at random, without waiting for
// anything, and then wants it all to end as if nothing had happened.
func TestPlanStandsAnything(t *testing.T) {
	check := func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 3))
		c := &cluster{d: newDeployment(r)}
		for step := range 60 {
			c.d = c.d.DeepCopy()
			c.d.Generation++
			switch r.IntN(4) {
			case 0:
				replicas := r.Int32N(12)
				c.d.Spec.Replicas = &replicas
			case 1:
				c.d.Spec.Template.Annotations = map[string]string{"image": fmt.Sprint(r.IntN(5))}
			case 2:
				c.d.Spec.Paused = r.IntN(2) == 0
			}
			if step >= 20 {
				c.d.Spec.Paused = false
			}
			c.apply(compute(c.snapshot(r), epoch))
			c.advance(r, r.IntN(2) == 0)
		}
		for range 60 {
			c.apply(compute(c.snapshot(r), epoch))
			c.advance(r, true)
		}
		if want := *c.d.Spec.Replicas; c.d.Status.UpdatedReplicas != want || c.d.Status.Replicas != want {
			t.Logf("does not end: %+v", c.d.Status)
			return false
		}
		return true
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 60}); err != nil {
		t.Error(err)
	}
}

func BenchmarkCompute(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{2, 11} {
		b.Run(fmt.Sprintf("sets=%d", n), func(b *testing.B) {
			c := &cluster{d: newDeployment(r)}
			for i := range n {
				c.d = c.d.DeepCopy()
				c.d.Spec.Template.Annotations = map[string]string{"image": fmt.Sprint(i)}
				c.apply(compute(c.snapshot(r), epoch))
			}
			b.ReportAllocs()
			for b.Loop() {
				compute(Snapshot{Deployment: c.d, Sets: c.sets}, epoch)
			}
		})
	}
}
