package registry

import (
	"fmt"
	"math/rand"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/randfill"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// TestTracker holds the tracker against apimachinery's FieldManager: random
// objects of every kind are created and changed by several managers, and both
// must record the same.
func TestTracker(t *testing.T) {
	var f fieldManagers
	f.types = BuiltInTypes
	for _, k := range resource.Kinds() {
		if k.View != nil || k.Custom {
			continue
		}
		t.Run(k.Kind, func(t *testing.T) {
			for _, sub := range []string{"", "status"} {
				if sub == "status" && k.Status == nil {
					continue
				}
				m := f.get(k, sub)
				l, err := f.slow(m)
				if err != nil {
					t.Fatal(err)
				}
				if m.fast == nil {
					t.Logf("no plan for %s", k.Kind)
					continue
				}
				compared := 0
				for seed := range 25 {
					compared += compareTrackers(t, k, m.fast, l, int64(seed))
				}
				if compared < 25 {
					t.Errorf("%s %q: only %d writes took the short way", k.Kind, sub, compared)
				}
			}
		})
	}
}

func compareTrackers(t *testing.T, k *resource.Kind, fast *tracker, library *managedfields.FieldManager, seed int64) (compared int) {
	t.Helper()
	rnd := rand.New(rand.NewSource(seed))
	fill := randfill.NewWithSeed(seed).NilChance(0.4).NumElements(0, 3).MaxDepth(12).Funcs(
		func(t *metav1.Time, c randfill.Continue) { t.Time = time.Unix(c.Int63n(1e9), 0) },
		func(t *metav1.MicroTime, c randfill.Continue) { t.Time = time.Unix(c.Int63n(1e9), 0) },
		func(m *metav1.ManagedFieldsEntry, c randfill.Continue) {},
		func(r *runtime.RawExtension, c randfill.Continue) {},
		func(f *metav1.FieldsV1, c randfill.Continue) {},
	)
	random := func() resource.Object {
		o := k.New()
		fill.Fill(o)
		o.SetManagedFields(nil)
		o.SetUID("uid")
		return o
	}
	a, b := random(), random()
	old := k.New()
	for step := range 6 {
		next := a
		if step%2 == 1 {
			next = b
		}
		if step >= 4 { // most of the time little changes
			next = old.DeepCopyObject().(resource.Object)
			next.SetLabels(map[string]string{"step": fmt.Sprint(step, rnd.Intn(3))})
		}
		next = next.DeepCopyObject().(resource.Object)
		manager := fmt.Sprintf("m%d", rnd.Intn(3))
		want := slow(t, k, library, old, next, manager)
		got, err := fast.update(old, next, manager, metav1.Now())
		if err != nil {
			if want == nil {
				return compared
			}
			old = setEntries(next, want)
			continue // duplicates of random keys: the library's own
		}
		if g, w := describe(got), describe(want); g != w {
			t.Fatalf("seed %d, step %d:\ngot  %s\nwant %s", seed, step, g, w)
		}
		compared++
		old = setEntries(next, got)
	}
	return compared
}

func setEntries(o resource.Object, entries []metav1.ManagedFieldsEntry) resource.Object {
	for i := range entries {
		entries[i].Time = nil
	}
	o.SetManagedFields(entries)
	return o
}

func slow(t *testing.T, k *resource.Kind, library *managedfields.FieldManager, old, next resource.Object, manager string) []metav1.ManagedFieldsEntry {
	t.Helper()
	live, obj := old.DeepCopyObject().(resource.Object), next.DeepCopyObject().(resource.Object)
	live.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	obj.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	out, err := library.Update(live, obj, manager)
	if err != nil {
		return nil
	}
	return out.(resource.Object).GetManagedFields()
}

func describe(entries []metav1.ManagedFieldsEntry) (s string) {
	for _, e := range entries {
		s += fmt.Sprintf("\n  %s %s %s %s %s", e.Manager, e.Operation, e.Subresource, e.APIVersion, rawFields(e))
	}
	return s
}
