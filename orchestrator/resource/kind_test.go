package resource_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/yaml"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// objects are the YAML inputs of the scripts.
func objects(t testing.TB) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range txtar.Parse(data).Files {
			if strings.HasSuffix(f.Name, ".yaml") {
				out[filepath.Base(path)+"/"+f.Name] = f.Data
			}
		}
	}
	return out
}

func TestDefaultingTwiceChangesNothing(t *testing.T) {
	for name, data := range objects(t) {
		k, obj, err := prepared(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		again := obj.DeepCopyObject().(resource.Object)
		k.SetDefaults(again)
		if d := cmp.Diff(asJSON(t, obj), asJSON(t, again)); d != "" {
			t.Errorf("%s: defaulting is not idempotent:\n%s", name, d)
		}
	}
}

// A stored object read and written back as it is is accepted, changes nothing
// and leaves no mark on what it was read from.
func TestUpdateWithoutChange(t *testing.T) {
	for name, data := range objects(t) {
		k, obj, err := prepared(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(k.CheckCreate(obj)) > 0 {
			continue
		}
		obj.SetResourceVersion("1")
		before := asJSON(t, obj)
		parts := []string{""}
		if k.Status != nil {
			parts = append(parts, "status")
		}
		for sub := range k.Parts {
			parts = append(parts, sub)
		}
		for _, sub := range parts {
			next, part := obj.DeepCopyObject().(resource.Object), k.Part(sub)
			k.SetDefaults(next)
			part.BeforeUpdate(next, obj)
			k.SetDefaults(next)
			for _, e := range part.CheckUpdate(next, obj) {
				t.Errorf("%s %s: %v", name, sub, e)
			}
			if d := cmp.Diff(before, asJSON(t, next)); d != "" {
				t.Errorf("%s %s: an update without change changed:\n%s", name, sub, d)
			}
			if d := cmp.Diff(before, asJSON(t, obj)); d != "" {
				t.Errorf("%s %s: the old object changed:\n%s", name, sub, d)
			}
		}
	}
}

func asJSON(t testing.TB, obj any) string {
	t.Helper()
	b, err := json.MarshalIndent(obj, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Every kind has what the API server and the store rely on.
func TestKindsAreComplete(t *testing.T) {
	for _, k := range resource.Kinds() {
		t.Run(k.Kind+"."+k.Group, func(t *testing.T) {
			obj := k.New()
			if k.NewList() == nil || k.Resource == "" || k.Singular == "" || k.Version == "" {
				t.Error("incomplete names")
			}
			if resource.Lookup(k.GroupVersionResource()) != k || resource.LookupKind(k.GroupVersionKind) != k {
				t.Error("cannot be looked up")
			}
			if len(k.TableColumns()) != len(k.TableRow(obj, now)) {
				t.Errorf("%d columns, %d cells", len(k.TableColumns()), len(k.TableRow(obj, now)))
			}
			set := k.Selectable(obj)
			for _, name := range append([]string{"metadata.name"}, k.FieldNames...) {
				if !set.Has(name) {
					t.Errorf("no value for selectable field %s", name)
				}
			}
			k.SetDefaults(obj)
			k.BeforeCreate(obj)
			k.SetDefaults(obj)
			k.CheckCreate(obj) // must not panic on an empty object
			if k.Status != nil {
				k.Status.BeforeUpdate(obj, k.New())
				k.Status.CheckUpdate(obj, k.New())
			}
		})
	}
}

func TestBinding(t *testing.T) {
	k := resource.LookupKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	bind := k.Actions["binding"]
	at := metav1.NewTime(now)
	to := func(node string) *corev1.Binding {
		return &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{"x": "y"}}, Target: corev1.ObjectReference{Kind: "Node", Name: node}}
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "1"}}
	if err := bind.Apply(pod, to(""), at); !apierrors.IsInvalid(err) {
		t.Errorf("binding to no node: %v", err)
	}
	if err := bind.Apply(pod, to("n1"), at); err != nil {
		t.Fatal(err)
	}
	if c := pod.Status.Conditions; pod.Spec.NodeName != "n1" || pod.Annotations["x"] != "y" || len(c) != 1 || c[0].Status != corev1.ConditionTrue || !c[0].LastTransitionTime.Equal(&at) {
		t.Errorf("bound pod: %+v", pod)
	}
	if err := bind.Apply(pod, to("n2"), at); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `pod a is already assigned to node "n1"`) {
		t.Errorf("binding again: %v", err)
	}
	gated := &corev1.Pod{Spec: corev1.PodSpec{SchedulingGates: []corev1.PodSchedulingGate{{Name: "g"}}}}
	if err := bind.Apply(gated, to("n1"), at); !apierrors.IsConflict(err) {
		t.Errorf("binding a gated pod: %v", err)
	}
}

func TestGracePeriod(t *testing.T) {
	k := resource.LookupKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	n := func(v int64) *int64 { return &v }
	for _, c := range []struct {
		name  string
		node  string
		phase corev1.PodPhase
		spec  *int64
		asked *int64
		want  int64
	}{
		{"its own", "n1", corev1.PodRunning, n(30), nil, 30},
		{"asked for", "n1", corev1.PodRunning, n(30), n(5), 5},
		{"force", "n1", corev1.PodRunning, n(30), n(0), 0},
		{"negative", "n1", corev1.PodRunning, n(-1), nil, 1},
		{"not bound", "", corev1.PodPending, n(30), nil, 0},
		{"ended", "n1", corev1.PodSucceeded, n(30), n(9), 0},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{NodeName: c.node, TerminationGracePeriodSeconds: c.spec}, Status: corev1.PodStatus{Phase: c.phase}}
		if got := k.GracePeriod(pod, c.asked); got != c.want {
			t.Errorf("%s: %d s, want %d s", c.name, got, c.want)
		}
	}
}

func TestScale(t *testing.T) {
	k := resource.LookupKind(appsv1.SchemeGroupVersion.WithKind("Deployment"))
	_, obj, err := prepared(objects(t)["workloads.txtar/deployment.yaml"])
	if err != nil {
		t.Fatal(err)
	}
	scale, err := k.Scale.Get(obj)
	if err != nil || scale.Spec.Replicas != 1 || scale.Status.Selector != "app=web" || scale.Name != "web" {
		t.Errorf("scale %+v, %v", scale, err)
	}
	if err := k.Scale.Set(obj, &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: 7}}); err != nil || *obj.(*appsv1.Deployment).Spec.Replicas != 7 {
		t.Errorf("replicas %d, %v", *obj.(*appsv1.Deployment).Spec.Replicas, err)
	}
}

func TestEventsAreOneObjectInTwoGroups(t *testing.T) {
	k := resource.LookupKind(eventsv1.SchemeGroupVersion.WithKind("Event"))
	_, obj, err := parse(objects(t)["others.txtar/newevent.yaml"])
	if err != nil {
		t.Fatal(err)
	}
	obj.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	stored, err := k.View.To(obj)
	if err != nil {
		t.Fatal(err)
	}
	face, err := k.View.From(stored)
	if err != nil {
		t.Fatal(err)
	}
	face.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	if d := cmp.Diff(asJSON(t, obj), asJSON(t, face)); d != "" {
		t.Error(d)
	}
	if errs := k.View.Validate(face); len(errs) > 0 {
		t.Error(errs)
	}
	if errs := k.Stored().CheckCreate(stored); len(errs) > 0 {
		t.Error(errs)
	}
	selector := fields.ParseSelectorOrDie(k.StoredField("regarding.name") + "=web")
	if !selector.Matches(k.Stored().Selectable(stored)) {
		t.Error("a selector by the face's field does not find the stored event")
	}
}

func FuzzObject(f *testing.F) {
	for _, data := range objects(f) {
		if raw, err := yaml.YAMLToJSON(data); err == nil {
			f.Add(raw)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var head metav1.TypeMeta
		if json.Unmarshal(data, &head) != nil {
			return
		}
		k, obj, err := prepared(data)
		if err != nil {
			return
		}
		if len(k.CheckCreate(obj)) > 0 {
			return
		}
		k.TableRow(obj, now)
		k.Selectable(obj)
		obj.SetResourceVersion("1")
		next, part := obj.DeepCopyObject().(resource.Object), k.Part("")
		part.BeforeUpdate(next, obj)
		k.SetDefaults(next)
		if errs := part.CheckUpdate(next, obj); len(errs) > 0 {
			t.Errorf("a valid object cannot be written back: %v", errs)
		}
	})
}

// The path of a create: default, prepare, default, validate.
func BenchmarkCreate(b *testing.B) {
	all := objects(b)
	for _, c := range []struct{ name, file string }{
		{"pod=minimal", "pod_defaults.txtar/minimal.yaml"},
		{"pod=full", "pod_defaults.txtar/full.yaml"},
		{"deployment", "workloads.txtar/deployment.yaml"},
		{"service", "services.txtar/plain.yaml"},
		{"node", "others.txtar/node.yaml"},
	} {
		b.Run(c.name, func(b *testing.B) {
			k, obj, err := parse(all[c.file])
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				o := obj.DeepCopyObject().(resource.Object)
				k.SetDefaults(o)
				k.BeforeCreate(o)
				k.SetDefaults(o)
				if errs := k.CheckCreate(o); len(errs) > 0 {
					b.Fatal(errs)
				}
			}
		})
	}
	for _, size := range []int{1 << 10, 1 << 18} {
		b.Run(fmt.Sprintf("configmap=%d", size), func(b *testing.B) {
			k := resource.LookupKind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
			o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "b"}, Data: map[string]string{"k": strings.Repeat("x", size)}}
			b.ReportAllocs()
			for b.Loop() {
				if errs := k.CheckCreate(o); len(errs) > 0 {
					b.Fatal(errs)
				}
			}
		})
	}
}

// The path of a node agent's report.
func BenchmarkPodStatus(b *testing.B) {
	k, obj, err := prepared(objects(b)["pod_defaults.txtar/full.yaml"])
	if err != nil {
		b.Fatal(err)
	}
	obj.SetResourceVersion("1")
	next, part := obj.DeepCopyObject().(resource.Object), k.Part("status")
	b.ReportAllocs()
	for b.Loop() {
		k.SetDefaults(next)
		part.BeforeUpdate(next, obj)
		k.SetDefaults(next)
		if errs := part.CheckUpdate(next, obj); len(errs) > 0 {
			b.Fatal(errs)
		}
	}
}

func BenchmarkPodRow(b *testing.B) {
	k, obj, err := parse(objects(b)["pod_table.txtar/running.yaml"])
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		k.TableRow(obj, now)
	}
}
