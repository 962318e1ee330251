package registry_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/registry"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
	"github.com/xebec-mesh/xebec/orchestrator/store"
)

// world is a registry over a store in memory.
type world struct {
	testing.TB
	*registry.Registry
	store *store.Memory
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{TB: t, store: store.NewMemory()}
	w.Registry = open(t, w.store)
	return w
}

func open(t testing.TB, s store.Store) *registry.Registry { return reopen(t, s, widgets, widgetsOld) }

func reopen(t testing.TB, s store.Store, custom ...*resource.Kind) *registry.Registry {
	t.Helper()
	kinds := append(resource.Kinds()[:len(resource.Kinds()):len(resource.Kinds())], custom...)
	r, err := registry.New(registry.Config{Store: s, Kinds: kinds, Log: slog.New(slog.DiscardHandler)})
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return r
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func on(group, resourceName, name string, sub ...string) registry.Request {
	gvr := schema.GroupVersionResource{Group: group, Version: "v1", Resource: resourceName}
	k := resource.Lookup(gvr)
	if resourceName == "widgets" {
		k = widgets
	}
	req := registry.Request{Kind: k, Namespace: "default", Name: name, FieldManager: "test"}
	if !k.Namespaced {
		req.Namespace = ""
	}
	if len(sub) > 0 {
		req.Subresource = sub[0]
	}
	return req
}

func cm(name string) registry.Request { return on("", "configmaps", name) }

func (w *world) create(req registry.Request, obj runtime.Object) *cache.Object {
	w.Helper()
	o, err := w.Create(w.Context(), req, obj)
	check(w, err)
	return o
}

func (w *world) get(req registry.Request) *cache.Object {
	w.Helper()
	o, err := w.Get(w.Context(), req, metav1.GetOptions{})
	check(w, err)
	return o
}

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"k": value}}
}

func TestCreate(t *testing.T) {
	w := newWorld(t)
	o := w.create(cm(""), configMap("a", "1"))
	c := o.Obj.(*corev1.ConfigMap)
	if c.UID == "" || c.ResourceVersion == "" || c.CreationTimestamp.IsZero() || c.Namespace != "default" {
		t.Errorf("metadata is incomplete: %+v", c.ObjectMeta)
	}
	if len(c.ManagedFields) != 1 || c.ManagedFields[0].Manager != "test" || !strings.Contains(string(c.ManagedFields[0].FieldsV1.Raw), `"f:data"`) {
		t.Errorf("managedFields: %+v", c.ManagedFields)
	}
	if got := w.get(cm("a")); got != o {
		t.Errorf("get is another object: %v", got)
	}
	_, err := w.Create(t.Context(), cm(""), configMap("a", "1"))
	wantError(t, err, apierrors.IsAlreadyExists, `configmaps "a" already exists`)
	bad := configMap("b", "1")
	bad.ResourceVersion = "5"
	_, err = w.Create(t.Context(), cm(""), bad)
	wantError(t, err, apierrors.IsBadRequest, "resourceVersion should not be set on objects to be created")
	bad = configMap("b", "1")
	bad.Namespace = "other"
	_, err = w.Create(t.Context(), cm(""), bad)
	wantError(t, err, apierrors.IsBadRequest, "does not match the namespace")
	_, err = w.Create(t.Context(), cm(""), configMap("Not A Name", "1"))
	wantError(t, err, apierrors.IsInvalid, "metadata.name: Invalid value")
	big := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Widget",
		"metadata": map[string]any{"name": "w"}, "spec": strings.Repeat("x", 2<<20)}}
	_, err = w.Create(t.Context(), on("example.com", "widgets", ""), big)
	wantError(t, err, apierrors.IsRequestEntityTooLargeError, "more than the limit of 1572864 bytes")
}

func wantError(t testing.TB, err error, is func(error) bool, text string) {
	t.Helper()
	if !is(err) || !strings.Contains(fmt.Sprint(err), text) {
		t.Errorf("got error %v, want %q", err, text)
	}
}

func TestGenerateName(t *testing.T) {
	w := newWorld(t)
	obj := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: strings.Repeat("n", 70)}}
	o := w.create(cm(""), obj)
	if n := o.Obj.GetName(); len(n) != 63 || !strings.HasPrefix(n, "nnn") {
		t.Errorf("generated %q", n)
	}
}

func TestDryRun(t *testing.T) {
	w := newWorld(t)
	req := cm("")
	req.DryRun = true
	o := w.create(req, configMap("a", "1"))
	if o.Obj.GetUID() == "" {
		t.Error("a dry run shows no uid")
	}
	_, err := w.Get(t.Context(), cm("a"), metav1.GetOptions{})
	wantError(t, err, apierrors.IsNotFound, `configmaps "a" not found`)
	o = w.create(cm(""), configMap("a", "1"))
	req.Name = "a"
	d, _, err := w.Update(t.Context(), req, configMap("a", "2"))
	check(t, err)
	if d.Obj.(*corev1.ConfigMap).Data["k"] != "2" || w.get(cm("a")) != o {
		t.Error("a dry run of an update was stored or not shown")
	}
	_, _, err = w.Delete(t.Context(), req, metav1.DeleteOptions{})
	check(t, err)
	if w.get(cm("a")) != o {
		t.Error("a dry run deleted")
	}
}

func TestUpdate(t *testing.T) {
	w := newWorld(t)
	first := w.create(cm(""), configMap("a", "1"))
	next := first.Obj.DeepCopyObject().(*corev1.ConfigMap)
	next.Data["k"] = "2"
	o, created, err := w.Update(t.Context(), cm("a"), next)
	check(t, err)
	if created || o.RV <= first.RV || o.Obj.GetUID() != first.Obj.GetUID() {
		t.Errorf("updated to %+v", o.Obj)
	}
	stale := first.Obj.DeepCopyObject().(*corev1.ConfigMap)
	stale.Data["k"] = "3"
	_, _, err = w.Update(t.Context(), cm("a"), stale)
	wantError(t, err, apierrors.IsConflict, `Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again`)
	same, _, err := w.Update(t.Context(), cm("a"), o.Obj.DeepCopyObject())
	check(t, err)
	if same.RV != o.RV {
		t.Errorf("an update without change went from %d to %d", o.RV, same.RV)
	}
	o, _, err = w.Update(t.Context(), cm("a"), configMap("a", "4")) // without a version
	check(t, err)
	if o.Obj.(*corev1.ConfigMap).Data["k"] != "4" || o.Obj.GetUID() != first.Obj.GetUID() {
		t.Errorf("unconditional update made %+v", o.Obj)
	}
	_, created, err = w.Update(t.Context(), cm("new"), configMap("new", "1"))
	check(t, err)
	if !created {
		t.Error("update did not create")
	}
	wrong := configMap("a", "5")
	wrong.UID = "other"
	_, _, err = w.Update(t.Context(), cm("a"), wrong)
	wantError(t, err, apierrors.IsConflict, "Precondition failed: UID")
}

// TestLostUpdate counts with patches and with versioned updates from many sides.
func TestLostUpdate(t *testing.T) {
	w := newWorld(t)
	other := open(t, w.store) // a second server
	w.create(cm(""), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Data: map[string]string{"n": "0"}})
	var wg sync.WaitGroup
	for i := range 6 {
		r := w.Registry
		if i%2 == 1 {
			r = other
		}
		wg.Go(func() {
			for done := 0; done < 20; {
				o, err := r.Get(t.Context(), cm("n"), metav1.GetOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				c := o.Obj.DeepCopyObject().(*corev1.ConfigMap)
				var n int
				_, _ = fmt.Sscan(c.Data["n"], &n)
				c.Data["n"] = fmt.Sprint(n + 1)
				if _, _, err = r.Update(t.Context(), cm("n"), c); err == nil {
					done++
				} else if !apierrors.IsConflict(err) {
					t.Error(err)
					return
				}
			}
		})
		wg.Go(func() {
			for j := range 20 {
				p := registry.Patch{Type: types.MergePatchType, Data: []byte(fmt.Sprintf(`{"data":{"p%d-%d":"x"}}`, i, j))}
				if _, _, err := r.Patch(t.Context(), cm("n"), p); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	c := w.get(cm("n")).Obj.(*corev1.ConfigMap)
	if c.Data["n"] != "120" || len(c.Data) != 121 {
		t.Errorf("counted to %s with %d marks, want 120 and 120", c.Data["n"], len(c.Data)-1)
	}
}

func TestPatch(t *testing.T) {
	w := newWorld(t)
	w.create(cm(""), configMap("a", "1"))
	patch := func(pt types.PatchType, data string) (map[string]string, error) {
		o, _, err := w.Patch(t.Context(), cm("a"), registry.Patch{Type: pt, Data: []byte(data)})
		if err != nil {
			return nil, err
		}
		return o.Obj.(*corev1.ConfigMap).Data, nil
	}
	for _, c := range []struct {
		pt   types.PatchType
		data string
		want string
	}{
		{types.JSONPatchType, `[{"op":"replace","path":"/data/k","value":"2"}]`, "map[k:2]"},
		{types.MergePatchType, `{"data":{"m":"1"}}`, "map[k:2 m:1]"},
		{types.StrategicMergePatchType, `{"data":{"m":null,"s":"1"}}`, "map[k:2 s:1]"},
	} {
		if got, err := patch(c.pt, c.data); err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("%s: %v, %v; want %s", c.pt, got, err, c.want)
		}
	}
	_, err := patch(types.JSONPatchType, `[{"op":"test","path":"/data/k","value":"9"}]`)
	wantError(t, err, func(err error) bool { return apierrors.ReasonForError(err) == metav1.StatusReasonInvalid }, "test")
	_, err = patch(types.JSONPatchType, `{`)
	wantError(t, err, apierrors.IsBadRequest, "JSON patch")
	_, err = patch(types.MergePatchType, `{"metadata":{"resourceVersion":"1"}}`)
	wantError(t, err, apierrors.IsConflict, "has been modified")
	_, err = patch(types.MergePatchType, `{"metadata":{"name":"b"}}`)
	wantError(t, err, apierrors.IsInvalid, "metadata.name")
	req := cm("a")
	req.FieldValidation = "Strict"
	_, _, err = w.Patch(t.Context(), req, registry.Patch{Type: types.MergePatchType, Data: []byte(`{"dada":{}}`)})
	wantError(t, err, apierrors.IsInvalid, `unknown field "dada"`)
	var warned []string
	req.FieldValidation, req.Warn = "Warn", func(s string) { warned = append(warned, s) }
	_, _, err = w.Patch(t.Context(), req, registry.Patch{Type: types.MergePatchType, Data: []byte(`{"dada":{}}`)})
	check(t, err)
	if len(warned) != 1 {
		t.Errorf("warnings: %q", warned)
	}
	req = cm("none")
	_, _, err = w.Patch(t.Context(), req, registry.Patch{Type: types.MergePatchType, Data: []byte(`{}`)})
	wantError(t, err, apierrors.IsNotFound, "not found")
}

func TestApply(t *testing.T) {
	w := newWorld(t)
	apply := func(manager, data string, force bool) (*cache.Object, bool, error) {
		req := cm("a")
		req.FieldManager = manager
		return w.Patch(t.Context(), req, registry.Patch{Type: types.ApplyPatchType, Data: []byte(data), Force: force})
	}
	const head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
	o, created, err := apply("one", head+"data: {x: '1', z: '1'}", false)
	check(t, err)
	if !created {
		t.Error("apply did not create")
	}
	again, created, err := apply("one", head+"data: {x: '1', z: '1'}", false)
	check(t, err)
	if created || again.RV != o.RV {
		t.Errorf("applying the same went from %d to %d", o.RV, again.RV)
	}
	_, _, err = apply("two", head+"data: {x: '2'}", false)
	wantError(t, err, apierrors.IsConflict, `conflict with "one": .data.x`)
	o, _, err = apply("two", head+"data: {x: '2'}", true)
	check(t, err)
	if d := o.Obj.(*corev1.ConfigMap).Data; d["x"] != "2" || d["z"] != "1" {
		t.Errorf("forced: %v", d)
	}
	o, _, err = apply("one", head+"data: {}", false) // gives up z
	check(t, err)
	if d := o.Obj.(*corev1.ConfigMap).Data; len(d) != 1 {
		t.Errorf("given up: %v", d)
	}
	_, _, err = apply("", head, false)
	wantError(t, err, apierrors.IsBadRequest, "fieldManager")
	_, _, err = apply("one", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n", false)
	wantError(t, err, apierrors.IsBadRequest, "Secret")
	_, _, err = apply("one", head+"dada: {}", false)
	wantError(t, err, apierrors.IsBadRequest, "dada")
	_, _, err = apply("one", "{", false)
	wantError(t, err, apierrors.IsBadRequest, "YAML")
}

func TestFinalizers(t *testing.T) {
	w := newWorld(t)
	c := configMap("a", "1")
	c.Finalizers = []string{"example.com/hold"}
	w.create(cm(""), c)
	o, gone, err := w.Delete(t.Context(), cm("a"), metav1.DeleteOptions{})
	check(t, err)
	if gone || o.Obj.GetDeletionTimestamp() == nil {
		t.Fatalf("deleted in spite of a finalizer: %+v", o.Obj)
	}
	again, gone, err := w.Delete(t.Context(), cm("a"), metav1.DeleteOptions{})
	check(t, err)
	if gone || again.RV != o.RV {
		t.Error("a second deletion changed something")
	}
	_, _, err = w.Patch(t.Context(), cm("a"), registry.Patch{Type: types.MergePatchType, Data: []byte(`{"metadata":{"finalizers":["example.com/new"]}}`)})
	wantError(t, err, apierrors.IsInvalid, "no new finalizers")
	_, _, err = w.Patch(t.Context(), cm("a"), registry.Patch{Type: types.JSONPatchType, Data: []byte(`[{"op":"remove","path":"/metadata/finalizers"}]`)})
	check(t, err)
	_, err = w.Get(t.Context(), cm("a"), metav1.GetOptions{})
	wantError(t, err, apierrors.IsNotFound, "not found")

	w.create(cm(""), configMap("b", "1"))
	fg := metav1.DeletePropagationForeground
	o, gone, err = w.Delete(t.Context(), cm("b"), metav1.DeleteOptions{PropagationPolicy: &fg})
	check(t, err)
	if gone || fmt.Sprint(o.Obj.GetFinalizers()) != "[foregroundDeletion]" {
		t.Errorf("foreground deletion left %v", o.Obj.GetFinalizers())
	}
	w.create(cm(""), configMap("c", "1"))
	uid := types.UID("other")
	_, _, err = w.Delete(t.Context(), cm("c"), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	wantError(t, err, apierrors.IsConflict, "Precondition failed")
	_, gone, err = w.Delete(t.Context(), cm("c"), metav1.DeleteOptions{})
	check(t, err)
	if !gone {
		t.Error("not gone")
	}
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
}

func TestPodLife(t *testing.T) {
	w := newWorld(t)
	pods := func(name string, sub ...string) registry.Request { return on("", "pods", name, sub...) }
	w.create(pods(""), pod("p"))
	bind := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}
	if _, err := w.Create(t.Context(), pods("p", "binding"), bind); err != nil {
		t.Fatal(err)
	}
	_, err := w.Create(t.Context(), pods("p", "binding"), bind)
	wantError(t, err, apierrors.IsConflict, "p")
	l, err := w.List(t.Context(), pods(""), metav1.ListOptions{FieldSelector: "spec.nodeName=n1"})
	check(t, err)
	if len(l.Items) != 1 {
		t.Fatalf("pods on n1: %v", l.Items)
	}
	p := l.Items[0].Obj.DeepCopyObject().(*corev1.Pod)
	p.Status.Phase, p.Spec.Containers[0].Image = corev1.PodRunning, "other"
	o, _, err := w.Update(t.Context(), pods("p", "status"), p)
	check(t, err)
	if got := o.Obj.(*corev1.Pod); got.Status.Phase != corev1.PodRunning || got.Spec.Containers[0].Image != "i" {
		t.Errorf("status update made %s %s", got.Status.Phase, got.Spec.Containers[0].Image)
	}
	o, gone, err := w.Delete(t.Context(), pods("p"), metav1.DeleteOptions{})
	check(t, err)
	if gone || *o.Obj.GetDeletionGracePeriodSeconds() != 30 || o.Obj.GetDeletionTimestamp() == nil {
		t.Errorf("graceful deletion: %+v", o.Obj.(*corev1.Pod).ObjectMeta)
	}
	_, gone, err = w.Delete(t.Context(), pods("p"), metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
	check(t, err)
	if !gone {
		t.Error("the pod outlives its end")
	}
}

func TestScale(t *testing.T) {
	w := newWorld(t)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d"}, Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: pod("").Spec},
	}}
	w.create(on("apps", "deployments", ""), d)
	req := on("apps", "deployments", "d", "scale")
	s := w.get(req).Obj.(*autoscalingv1.Scale).DeepCopy()
	s.Spec.Replicas = 3
	o, _, err := w.Update(t.Context(), req, s)
	check(t, err)
	if o.Obj.(*autoscalingv1.Scale).Spec.Replicas != 3 {
		t.Errorf("scaled to %v", o.Obj)
	}
	_, _, err = w.Update(t.Context(), req, s)
	wantError(t, err, apierrors.IsConflict, "has been modified")
	_, _, err = w.Patch(t.Context(), req, registry.Patch{Type: types.MergePatchType, Data: []byte(`{"spec":{"replicas":5}}`)})
	check(t, err)
	got := w.get(on("apps", "deployments", "d")).Obj.(*appsv1.Deployment)
	if *got.Spec.Replicas != 5 || got.Generation != 3 {
		t.Errorf("deployment has %d replicas, generation %d", *got.Spec.Replicas, got.Generation)
	}
}

func TestNamespaceHeld(t *testing.T) {
	w := newWorld(t)
	w.create(on("", "namespaces", ""), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}})
	o, gone, err := w.Delete(t.Context(), on("", "namespaces", "x"), metav1.DeleteOptions{})
	check(t, err)
	n := o.Obj.(*corev1.Namespace).DeepCopy()
	if gone || n.Status.Phase != corev1.NamespaceTerminating {
		t.Fatalf("namespace: gone %v, %s", gone, n.Status.Phase)
	}
	n.Spec.Finalizers = nil
	_, _, err = w.Update(t.Context(), on("", "namespaces", "x", "finalize"), n)
	check(t, err)
	_, err = w.Get(t.Context(), on("", "namespaces", "x"), metav1.GetOptions{})
	wantError(t, err, apierrors.IsNotFound, "x")
}

func TestDeleteCollection(t *testing.T) {
	w := newWorld(t)
	for i := range 30 {
		c := configMap(fmt.Sprintf("c%d", i), "1")
		c.Labels = map[string]string{"odd": fmt.Sprint(i % 2)}
		w.create(cm(""), c)
	}
	l, err := w.DeleteCollection(t.Context(), cm(""), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "odd=1"})
	check(t, err)
	left, err := w.List(t.Context(), cm(""), metav1.ListOptions{})
	check(t, err)
	if len(l.Items) != 15 || len(left.Items) != 15 {
		t.Errorf("deleted %d, left %d", len(l.Items), len(left.Items))
	}
}

func TestRestart(t *testing.T) {
	w := newWorld(t)
	a := w.create(on("", "pods", ""), pod("p"))
	again := open(t, w.store)
	b, err := again.Get(t.Context(), on("", "pods", "p"), metav1.GetOptions{})
	check(t, err)
	if string(a.JSON()) != string(b.JSON()) || string(a.Protobuf()) != string(b.Protobuf()) {
		t.Errorf("before: %s\nafter: %s", a.JSON(), b.JSON())
	}
}

func TestOptions(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		opts metav1.ListOptions
		want string
	}{
		{metav1.ListOptions{ResourceVersion: "x"}, "resourceVersion"},
		{metav1.ListOptions{LabelSelector: "a=b=c"}, "labelSelector"},
		{metav1.ListOptions{FieldSelector: "spec.color=red"}, "field label not supported"},
		{metav1.ListOptions{Continue: "###"}, "continue key is not valid"},
		{metav1.ListOptions{ResourceVersionMatch: "Exact"}, "resourceVersionMatch"},
		{metav1.ListOptions{ResourceVersion: "0", ResourceVersionMatch: "Exact"}, "resourceVersionMatch"},
	} {
		if _, err := w.List(t.Context(), cm(""), c.opts); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.opts, err, c.want)
		}
	}
	yes := true
	_, err := w.Watch(t.Context(), cm(""), metav1.ListOptions{SendInitialEvents: &yes})
	wantError(t, err, apierrors.IsInvalid, "sendInitialEvents requires")
}
