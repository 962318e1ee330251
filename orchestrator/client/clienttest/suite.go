// Package clienttest is the suite that every implementation of client.Interface
// passes: what its users may rely on, whichever one they are given.
package clienttest

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	networkingapi "istio.io/api/networking/v1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// Run runs the suite. open gives a client of an empty API each time, with
// VirtualServices served; it ends with the test.
func Run(t *testing.T, open func(t *testing.T) client.Interface) {
	for name, test := range map[string]func(*testing.T, client.Interface){
		"verbs":          verbs,
		"conflicts":      conflicts,
		"unconditional":  unconditional,
		"patches":        patches,
		"apply":          apply,
		"finalizers":     finalizers,
		"pod life":       podLife,
		"watch":          follow,
		"informer":       informer,
		"indexes":        indexes,
		"immutable":      immutable,
		"custom kinds":   custom,
		"generate names": generateNames,
		"dry run":        dryRun,
		"lost update":    lostUpdate,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

const wait = 10 * time.Second

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{"k": value}}
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
}

func verbs(t *testing.T, c client.Interface) {
	ctx := t.Context()
	maps := client.For(c, client.ConfigMaps)
	if _, err := maps.Get(ctx, "default", "a"); !apierrors.IsNotFound(err) {
		t.Fatalf("get of nothing: %v", err)
	}
	made, err := maps.Create(ctx, configMap("a", "1"))
	check(t, err)
	if made.UID == "" || made.ResourceVersion == "" || made.CreationTimestamp.IsZero() {
		t.Errorf("created without metadata: %+v", made.ObjectMeta)
	}
	if _, err := maps.Create(ctx, configMap("a", "1")); !apierrors.IsAlreadyExists(err) {
		t.Errorf("second create: %v", err)
	}
	got, err := maps.Get(ctx, "default", "a")
	check(t, err)
	if got.ResourceVersion != made.ResourceVersion || got.Data["k"] != "1" {
		t.Errorf("got %+v", got)
	}
	labelled := configMap("b", "2")
	labelled.Labels = map[string]string{"x": "y"}
	_, err = maps.Create(ctx, labelled)
	check(t, err)
	for _, l := range []struct {
		opts client.ListOptions
		want int
	}{
		{client.ListOptions{}, 2},
		{client.ListOptions{Namespace: "default"}, 2},
		{client.ListOptions{Namespace: "other"}, 0},
		{client.ListOptions{LabelSelector: "x=y"}, 1},
		{client.ListOptions{FieldSelector: "metadata.name=a"}, 1},
	} {
		items, err := maps.List(ctx, l.opts)
		check(t, err)
		if len(items) != l.want {
			t.Errorf("%+v: %d objects, want %d", l.opts, len(items), l.want)
		}
	}
	check(t, maps.Delete(ctx, "default", "a", metav1.DeleteOptions{}))
	if _, err := maps.Get(ctx, "default", "a"); !apierrors.IsNotFound(err) {
		t.Errorf("get after delete: %v", err)
	}
	if err := maps.Delete(ctx, "default", "a", metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("second delete: %v", err)
	}
}

func conflicts(t *testing.T, c client.Interface) {
	ctx := t.Context()
	maps := client.For(c, client.ConfigMaps)
	first, err := maps.Create(ctx, configMap("a", "1"))
	check(t, err)
	next := first.DeepCopy()
	next.Data["k"] = "2"
	second, err := maps.Update(ctx, next)
	check(t, err)
	stale := first.DeepCopy()
	stale.Data["k"] = "3"
	if _, err := maps.Update(ctx, stale); !apierrors.IsConflict(err) {
		t.Errorf("stale update: %v", err)
	}
	same, err := maps.Update(ctx, second.DeepCopy())
	check(t, err)
	if same.ResourceVersion != second.ResourceVersion {
		t.Errorf("an update without change went from %s to %s", second.ResourceVersion, same.ResourceVersion)
	}
	other := types.UID("other")
	err = maps.Delete(ctx, "default", "a", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}})
	if !apierrors.IsConflict(err) {
		t.Errorf("delete of another uid: %v", err)
	}
}

func unconditional(t *testing.T, c client.Interface) {
	ctx := t.Context()
	maps := client.For(c, client.ConfigMaps)
	made, err := maps.Create(ctx, configMap("a", "1"))
	check(t, err)
	got, err := maps.Update(ctx, configMap("a", "2"))
	check(t, err)
	if got.Data["k"] != "2" || got.UID != made.UID || !got.CreationTimestamp.Equal(&made.CreationTimestamp) {
		t.Errorf("updated to %+v", got)
	}
}

func patches(t *testing.T, c client.Interface) {
	ctx := t.Context()
	maps := client.For(c, client.ConfigMaps)
	_, err := maps.Create(ctx, configMap("a", "1"))
	check(t, err)
	for _, p := range []struct {
		pt         types.PatchType
		data, want string
	}{
		{types.JSONPatchType, `[{"op":"add","path":"/data/j","value":"1"}]`, "map[j:1 k:1]"},
		{types.MergePatchType, `{"data":{"j":null,"m":"1"}}`, "map[k:1 m:1]"},
		{types.StrategicMergePatchType, `{"data":{"s":"1"}}`, "map[k:1 m:1 s:1]"},
	} {
		got, err := maps.Patch(ctx, "default", "a", p.pt, []byte(p.data), "")
		check(t, err)
		if fmt.Sprint(got.Data) != p.want {
			t.Errorf("%s: %v, want %s", p.pt, got.Data, p.want)
		}
	}
	if _, err := maps.Patch(ctx, "default", "none", types.MergePatchType, []byte(`{}`), ""); !apierrors.IsNotFound(err) {
		t.Errorf("patch of nothing: %v", err)
	}
}

func apply(t *testing.T, c client.Interface) {
	force := true
	o, err := c.Patch(t.Context(), client.ConfigMaps.Resource, types.NamespacedName{Namespace: "default", Name: "a"}, types.ApplyPatchType,
		[]byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"default"},"data":{"k":"1"}}`), "",
		metav1.PatchOptions{FieldManager: "suite", Force: &force})
	check(t, err)
	if o.(*corev1.ConfigMap).Data["k"] != "1" {
		t.Errorf("applied %+v", o)
	}
}

func finalizers(t *testing.T, c client.Interface) {
	ctx := t.Context()
	maps := client.For(c, client.ConfigMaps)
	held := configMap("a", "1")
	held.Finalizers = []string{"example.com/hold"}
	_, err := maps.Create(ctx, held)
	check(t, err)
	check(t, maps.Delete(ctx, "default", "a", metav1.DeleteOptions{}))
	got, err := maps.Get(ctx, "default", "a")
	check(t, err)
	if got.DeletionTimestamp == nil {
		t.Error("no deletionTimestamp")
	}
	free := got.DeepCopy()
	free.Finalizers = nil
	_, err = maps.Update(ctx, free)
	check(t, err)
	if _, err := maps.Get(ctx, "default", "a"); !apierrors.IsNotFound(err) {
		t.Errorf("get after the last finalizer: %v", err)
	}
}

func podLife(t *testing.T, c client.Interface) {
	ctx := t.Context()
	pods := client.For(c, client.Pods)
	made, err := pods.Create(ctx, pod("p"))
	check(t, err)
	bind := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}
	_, err = c.CreateSub(ctx, client.Pods.Resource, client.Key(made), "binding", bind)
	check(t, err)
	if _, err = c.CreateSub(ctx, client.Pods.Resource, client.Key(made), "binding", bind); !apierrors.IsConflict(err) {
		t.Errorf("second binding: %v", err)
	}
	bound, err := pods.Get(ctx, "default", "p")
	check(t, err)
	if bound.Spec.NodeName != "n1" {
		t.Fatalf("bound to %q", bound.Spec.NodeName)
	}
	status := bound.DeepCopy()
	status.Status.Phase = corev1.PodRunning
	status.Spec.Containers[0].Image = "other"
	running, err := pods.UpdateStatus(ctx, status)
	check(t, err)
	if running.Status.Phase != corev1.PodRunning || running.Spec.Containers[0].Image != "i" {
		t.Errorf("status update made %s, %s", running.Status.Phase, running.Spec.Containers[0].Image)
	}
	check(t, pods.Delete(ctx, "default", "p", metav1.DeleteOptions{}))
	dying, err := pods.Get(ctx, "default", "p")
	check(t, err)
	if dying.DeletionTimestamp == nil || dying.DeletionGracePeriodSeconds == nil {
		t.Errorf("a running pod was not given time: %+v", dying.ObjectMeta)
	}
	now := int64(0)
	check(t, pods.Delete(ctx, "default", "p", metav1.DeleteOptions{GracePeriodSeconds: &now}))
	if _, err := pods.Get(ctx, "default", "p"); !apierrors.IsNotFound(err) {
		t.Errorf("get after the end: %v", err)
	}
}

func follow(t *testing.T, c client.Interface) {
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	maps := client.For(c, client.ConfigMaps)
	first, err := maps.Create(ctx, configMap("a", "1"))
	check(t, err)
	w, err := c.Watch(ctx, client.ConfigMaps.Resource, client.ListOptions{Namespace: "default"}, first.ResourceVersion)
	check(t, err)
	defer w.Stop()
	_, err = maps.Update(ctx, configMap("a", "2"))
	check(t, err)
	_, err = maps.Create(ctx, configMap("b", "1"))
	check(t, err)
	check(t, maps.Delete(ctx, "default", "a", metav1.DeleteOptions{}))
	var got []string
	for len(got) < 3 {
		e, ok := <-w.ResultChan()
		if !ok {
			t.Fatalf("watch ended after %v", got)
		}
		if e.Type == watch.Bookmark {
			continue
		}
		m := e.Object.(*corev1.ConfigMap)
		got = append(got, fmt.Sprintf("%s %s=%s", e.Type, m.Name, m.Data["k"]))
	}
	if want := "[MODIFIED a=2 ADDED b=1 DELETED a=2]"; fmt.Sprint(got) != want {
		t.Errorf("saw %v, want %s", got, want)
	}
	w.Stop()
	for range w.ResultChan() {
	}
}

// informer holds that a handler sees every object, Synced once, and changes in
// order, and that the view is never older than the event.
func informer(t *testing.T, c client.Interface) {
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	pods := client.For(c, client.Pods)
	_, err := pods.Create(ctx, pod("before"))
	check(t, err)
	view := pods.Informer(client.ListOptions{})
	onNode := pods.Informer(client.ListOptions{FieldSelector: "spec.nodeName=n1"})
	if pods.Informer(client.ListOptions{}).Informer != view.Informer {
		t.Error("equal arguments gave another view")
	}
	check(t, client.WaitSynced(ctx, view, onNode))
	events := make(chan string, 100)
	stop := view.Subscribe(func(e client.Event) {
		if e.Type == client.Synced {
			events <- "synced"
			return
		}
		p := e.Object.(*corev1.Pod)
		if seen, ok := view.Get(p.Namespace, p.Name); ok && older(seen, p, e.Type) {
			events <- "the view is older than the event"
		}
		events <- fmt.Sprintf("%d %s %s", e.Type, p.Name, p.Spec.NodeName)
	})
	bound := make(chan string, 100)
	defer onNode.Subscribe(func(e client.Event) {
		if e.Object != nil {
			bound <- fmt.Sprintf("%d %s", e.Type, e.Object.GetName())
		}
	})()
	p, err := pods.Create(ctx, pod("p"))
	check(t, err)
	bind := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}
	_, err = c.CreateSub(ctx, client.Pods.Resource, client.Key(p), "binding", bind)
	check(t, err)
	now := int64(0)
	check(t, pods.Delete(ctx, "default", "p", metav1.DeleteOptions{GracePeriodSeconds: &now}))
	expect(t, ctx, events, "1 before ", "synced", "1 p ", "2 p n1", "3 p n1")
	expect(t, ctx, bound, "1 p", "3 p")
	stop()
	if got := view.List("default"); len(got) != 1 || got[0].Name != "before" {
		t.Errorf("view has %v", got)
	}
}

// older says whether what a view has is from before an event.
func older(seen, told *corev1.Pod, typ client.EventType) bool {
	was, _ := strconv.Atoi(seen.ResourceVersion)
	is, _ := strconv.Atoi(told.ResourceVersion)
	return was < is || typ == client.Deleted && seen.UID == told.UID
}

func expect(t *testing.T, ctx context.Context, events <-chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case got := <-events:
			if got != w {
				t.Fatalf("event %q, want %q", got, w)
			}
		case <-ctx.Done():
			t.Fatalf("no event, want %q", w)
		}
	}
}

func indexes(t *testing.T, c client.Interface) {
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	maps := client.For(c, client.ConfigMaps)
	view := maps.Informer(client.ListOptions{})
	view.AddIndex("value", func(o client.Object) []string { return []string{o.(*corev1.ConfigMap).Data["k"]} })
	check(t, client.WaitSynced(ctx, view))
	seen := make(chan string, 10)
	defer view.Subscribe(func(e client.Event) {
		if e.Object != nil {
			seen <- fmt.Sprint(len(view.ByIndex("value", "1")), len(view.ByIndex("value", "2")))
		}
	})()
	_, err := maps.Create(ctx, configMap("a", "1"))
	check(t, err)
	expect(t, ctx, seen, "1 0")
	_, err = maps.Update(ctx, configMap("a", "2"))
	check(t, err)
	expect(t, ctx, seen, "0 1")
	check(t, maps.Delete(ctx, "default", "a", metav1.DeleteOptions{}))
	expect(t, ctx, seen, "0 0")
}

// immutable holds that what a caller does to an object afterwards changes nothing.
func immutable(t *testing.T, c client.Interface) {
	ctx := t.Context()
	maps := client.For(c, client.ConfigMaps)
	mine := configMap("a", "1")
	_, err := maps.Create(ctx, mine)
	check(t, err)
	mine.Data["k"] = "changed"
	got, err := maps.Get(ctx, "default", "a")
	check(t, err)
	if got.Data["k"] != "1" {
		t.Error("the stored object shares memory with the caller's")
	}
	mine = got.DeepCopy()
	mine.Data["k"] = "2"
	_, err = maps.Update(ctx, mine)
	check(t, err)
	mine.Data["k"] = "changed"
	if got, _ = maps.Get(ctx, "default", "a"); got.Data["k"] != "2" {
		t.Error("the stored object shares memory with the caller's")
	}
}

// custom holds that custom kinds come in the Go type that the Scheme has.
func custom(t *testing.T, c client.Interface) {
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	services := client.For(c, client.VirtualServices)
	vs := &networkingv1.VirtualService{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "v"}}
	vs.Spec.Hosts = []string{"a"}
	vs.Spec.Http = []*networkingapi.HTTPRoute{{Route: []*networkingapi.HTTPRouteDestination{{Weight: 10}}}}
	made, err := services.Create(ctx, vs)
	check(t, err)
	view := services.Informer(client.ListOptions{})
	check(t, client.WaitSynced(ctx, view))
	if got, ok := view.Get("default", "v"); !ok || got.Spec.Http[0].Route[0].Weight != 10 {
		t.Errorf("the view has %v", got)
	}
	next := made.DeepCopy()
	next.Spec.Http[0].Route[0].Weight = 20
	got, err := services.Update(ctx, next)
	check(t, err)
	if got.Spec.Http[0].Route[0].Weight != 20 || got.UID != made.UID {
		t.Errorf("updated to %v", got)
	}
	if _, err := services.Update(ctx, next); !apierrors.IsConflict(err) {
		t.Errorf("stale update: %v", err)
	}
	items, err := services.List(ctx, client.ListOptions{Namespace: "default"})
	check(t, err)
	if len(items) != 1 || items[0].Spec.Http[0].Route[0].Weight != 20 {
		t.Errorf("listed %v", items)
	}
}

func generateNames(t *testing.T, c client.Interface) {
	m := configMap("", "1")
	m.GenerateName = "web-"
	got, err := client.For(c, client.ConfigMaps).Create(t.Context(), m)
	check(t, err)
	if len(got.Name) != len("web-")+5 || m.Name != "" {
		t.Errorf("generated %q from %q", got.Name, m.Name)
	}
}

func dryRun(t *testing.T, c client.Interface) {
	_, err := c.Create(t.Context(), client.ConfigMaps.Resource, configMap("a", "1"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	check(t, err)
	if _, err := client.For(c, client.ConfigMaps).Get(t.Context(), "default", "a"); !apierrors.IsNotFound(err) {
		t.Errorf("a dry run was stored: %v", err)
	}
}

// lostUpdate scales a deployment up from many sides with versioned updates.
func lostUpdate(t *testing.T, c client.Interface) {
	ctx := t.Context()
	deployments := client.For(c, client.Deployments)
	zero := int32(0)
	labels := map[string]string{"a": "b"}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "d"}, Spec: appsv1.DeploymentSpec{
		Replicas: &zero,
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod("").Spec},
	}}
	_, err := deployments.Create(ctx, d)
	check(t, err)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			for done := 0; done < 10; {
				got, err := deployments.Get(ctx, "default", "d")
				if err != nil {
					t.Error(err)
					return
				}
				next := got.DeepCopy()
				*next.Spec.Replicas++
				if _, err = deployments.Update(ctx, next); err == nil {
					done++
				} else if !apierrors.IsConflict(err) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got, _ := deployments.Get(ctx, "default", "d"); *got.Spec.Replicas != 50 {
		t.Errorf("counted to %d, want 50", *got.Spec.Replicas)
	}
}
