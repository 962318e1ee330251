// Package controllertest is a small world for controllers' script tests: an API in
// memory, a kubelet on request, and tables of what matters.
//
//	in:   commands of a script, inside a testing/synctest bubble
//	out:  tables of the state that the controllers have made
//
// Names that the API generates are random, so tables count instead of naming.
// Every command that changes something returns when nothing moves any more; time
// passes only by the command sleep.
package controllertest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
)

// Runner is what a controller is to the test: something that runs until ctx ends.
type Runner interface {
	Run(ctx context.Context) error
}

// World is one script's API and controllers.
type World struct {
	T      *testing.T
	Client client.Interface
	ctx    context.Context
}

// Command is one line of a script; file reads a file of the archive.
type Command = func(file func(string) ([]byte, error), args []string) (string, error)

// New starts a world with the controllers that start makes. It must be called in a
// synctest bubble; everything ends with the test.
func New(t *testing.T, start func(c client.Interface) ([]Runner, error)) *World {
	t.Helper()
	return Over(t, memory.New(nil), start)
}

// Over is New with another client; it is closed when the controllers have ended.
func Over(t *testing.T, c interface {
	client.Interface
	Close()
}, start func(c client.Interface) ([]Runner, error)) *World {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &World{T: t, Client: c, ctx: ctx}
	runners, err := start(w.Client)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, len(runners))
	for _, r := range runners {
		go func() { done <- r.Run(ctx) }()
	}
	t.Cleanup(func() {
		cancel()
		for range runners {
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("a controller ended: %v", err)
			}
		}
		c.Close()
	})
	synctest.Wait()
	return w
}

// Commands are
//
//	apply FILE               create or update every object of a YAML file, status included
//	delete KIND NAME [POLICY]  policy: Foreground, Orphan
//	kubelet [N]              bind, start and make ready pods, at most N; remove those that are being deleted
//	mark STATE [N]           the oldest N pods become failed, succeeded or unready
//	label KEY=VALUE [N]      the oldest N pods get a label
//	own CHILD KIND OWNER     make OWNER own the ConfigMap CHILD, blocking its deletion
//	sleep DURATION           let time pass
//	get KIND                 print a table
//	yaml KIND NAME           print one object without what changes from run to run
func (w *World) Commands() map[string]Command {
	quiet := func(f func(file func(string) ([]byte, error), args []string) error) Command {
		return func(file func(string) ([]byte, error), args []string) (string, error) {
			err := f(file, args)
			synctest.Wait()
			return "", err
		}
	}
	return map[string]Command{
		"apply":   quiet(w.apply),
		"delete":  quiet(w.delete),
		"kubelet": quiet(w.kubelet),
		"mark":    quiet(w.mark),
		"label":   quiet(w.label),
		"own":     quiet(w.own),
		"sleep": quiet(func(_ func(string) ([]byte, error), args []string) error {
			d, err := time.ParseDuration(args[0])
			time.Sleep(d)
			return err
		}),
		"get":  w.get,
		"yaml": w.yaml,
	}
}

// Objects decodes every object of a YAML stream.
func Objects(data []byte) ([]client.Object, error) {
	var out []client.Object
	docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		doc, err := docs.Read()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		var tm metav1.TypeMeta
		if err := yaml.Unmarshal(doc, &tm); err != nil {
			return nil, err
		}
		if tm.Kind == "" {
			continue
		}
		var o runtime.Object
		if o, err = client.Scheme().New(tm.GroupVersionKind()); err != nil {
			o = &unstructured.Unstructured{}
		}
		if err := yaml.UnmarshalStrict(doc, o); err != nil {
			return nil, fmt.Errorf("%s: %w", tm.Kind, err)
		}
		out = append(out, o.(client.Object))
	}
}

var clusterScoped = map[string]bool{
	"Namespace": true, "Node": true, "ClusterRole": true, "ClusterRoleBinding": true, "CustomResourceDefinition": true,
}

// ResourceOf guesses the resource of a kind.
func ResourceOf(gvk schema.GroupVersionKind) client.Resource {
	gvr, _ := meta.UnsafeGuessKindToResource(gvk)
	if gvk.Kind == "Endpoints" {
		gvr.Resource = "endpoints"
	}
	return client.Resource{GroupVersionResource: gvr, Kind: gvk.Kind, Namespaced: !clusterScoped[gvk.Kind]}
}

func (w *World) apply(file func(string) ([]byte, error), args []string) error {
	data, err := file(args[0])
	if err != nil {
		return err
	}
	objects, err := Objects(data)
	if err != nil {
		return err
	}
	for _, o := range objects {
		if err := w.applyOne(o); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) applyOne(o client.Object) error {
	r := ResourceOf(o.GetObjectKind().GroupVersionKind())
	if r.Namespaced && o.GetNamespace() == "" {
		o.SetNamespace(metav1.NamespaceDefault)
	}
	_, err := w.Client.Create(w.ctx, r, o, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	if _, err := w.Client.Update(w.ctx, r, o, "", metav1.UpdateOptions{}); err != nil {
		return err
	}
	if u, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o); err == nil {
		if status, _ := u["status"].(map[string]any); len(status) > 0 {
			_, err := w.Client.Update(w.ctx, r, o, "status", metav1.UpdateOptions{})
			return err
		}
	}
	return nil
}

// kinds that scripts name.
var kinds = map[string]client.Resource{
	"Pod": client.Pods.Resource, "ReplicaSet": client.ReplicaSets.Resource, "Deployment": client.Deployments.Resource,
	"Service": client.Services.Resource, "Endpoints": client.Endpoints.Resource, "EndpointSlice": client.EndpointSlices.Resource,
	"Namespace": client.Namespaces.Resource, "Node": client.Nodes.Resource, "ServiceAccount": client.ServiceAccounts.Resource,
	"ConfigMap": client.ConfigMaps.Resource, "Secret": client.Secrets.Resource, "Lease": client.Leases.Resource,
	"Event": client.Events.Resource, "ClusterRole": client.ClusterRoles.Resource,
}

// Discovery lists the resources that scripts can name.
type Discovery struct{}

// Resources returns them all.
func (Discovery) Resources(context.Context) ([]client.Resource, error) {
	return slices.Collect(maps.Values(kinds)), nil
}

func named(kind string) (client.Resource, error) {
	r, ok := kinds[kind]
	if !ok {
		return r, fmt.Errorf("kind %q: unknown here", kind)
	}
	return r, nil
}

// keyOf reads NAMESPACE/NAME or NAME.
func keyOf(r client.Resource, name string) types.NamespacedName {
	if ns, n, ok := strings.Cut(name, "/"); ok {
		return types.NamespacedName{Namespace: ns, Name: n}
	}
	if r.Namespaced {
		return types.NamespacedName{Namespace: metav1.NamespaceDefault, Name: name}
	}
	return types.NamespacedName{Name: name}
}

func (w *World) delete(_ func(string) ([]byte, error), args []string) error {
	r, err := named(args[0])
	if err != nil {
		return err
	}
	var opts metav1.DeleteOptions
	if len(args) > 2 {
		policy := metav1.DeletionPropagation(args[2])
		opts.PropagationPolicy = &policy
	}
	return w.Client.Delete(w.ctx, r, keyOf(r, args[1]), opts)
}

// pods returns all pods, oldest first.
func (w *World) pods() []*corev1.Pod {
	list, err := client.For(w.Client, client.Pods).List(w.ctx, client.ListOptions{})
	if err != nil {
		w.T.Fatal(err)
	}
	slices.SortFunc(list, func(a, b *corev1.Pod) int {
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return list
}

// kubelet does what scheduler and node would do, at once.
func (w *World) kubelet(_ func(string) ([]byte, error), args []string) error {
	left := limit(args, 0)
	pods := client.For(w.Client, client.Pods)
	for i, pod := range w.pods() {
		if pod.DeletionTimestamp != nil {
			zero := int64(0)
			if err := pods.Delete(w.ctx, pod.Namespace, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
				return err
			}
			continue
		}
		if pod.Status.Phase != corev1.PodPending || left == 0 {
			continue
		}
		left--
		if pod.Spec.NodeName == "" {
			if err := w.bind(pod, "n"+strconv.Itoa(i%2+1)); err != nil {
				return err
			}
			next, err := pods.Get(w.ctx, pod.Namespace, pod.Name)
			if err != nil {
				return err
			}
			pod = next
		}
		pod = pod.DeepCopy()
		Run(pod, fmt.Sprintf("10.244.0.%d", i+1), time.Now())
		if _, err := pods.UpdateStatus(w.ctx, pod); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) bind(pod *corev1.Pod, node string) error {
	_, err := w.Client.CreateSub(w.ctx, client.Pods.Resource, client.Key(pod), "binding", &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node},
	})
	return err
}

// Run makes a pod's status that of one that runs and is ready.
func Run(pod *corev1.Pod, ip string, now time.Time) {
	pod.Status.Phase = corev1.PodRunning
	pod.Status.PodIP = ip
	pod.Status.PodIPs = []corev1.PodIP{{IP: ip}}
	setCondition(pod, corev1.PodReady, corev1.ConditionTrue, now)
}

func setCondition(pod *corev1.Pod, t corev1.PodConditionType, s corev1.ConditionStatus, now time.Time) {
	pod.Status.Conditions = slices.DeleteFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == t })
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: t, Status: s, LastTransitionTime: metav1.NewTime(now)})
}

func limit(args []string, at int) int {
	if len(args) <= at {
		return -1
	}
	n, err := strconv.Atoi(args[at])
	if err != nil {
		return -1
	}
	return n
}

func (w *World) mark(_ func(string) ([]byte, error), args []string) error {
	left := limit(args, 1)
	for _, pod := range w.pods() {
		if left == 0 {
			return nil
		}
		left--
		pod = pod.DeepCopy()
		switch args[0] {
		case "failed":
			pod.Status.Phase = corev1.PodFailed
		case "succeeded":
			pod.Status.Phase = corev1.PodSucceeded
		case "unready":
			setCondition(pod, corev1.PodReady, corev1.ConditionFalse, time.Now())
		case "ready":
			setCondition(pod, corev1.PodReady, corev1.ConditionTrue, time.Now())
		default:
			return fmt.Errorf("mark %q: failed, succeeded, ready and unready are known", args[0])
		}
		if _, err := client.For(w.Client, client.Pods).UpdateStatus(w.ctx, pod); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) label(_ func(string) ([]byte, error), args []string) error {
	left := limit(args, 1)
	k, v, _ := strings.Cut(args[0], "=")
	for _, pod := range w.pods() {
		if left == 0 {
			return nil
		}
		left--
		pod = pod.DeepCopy()
		if pod.Labels == nil {
			pod.Labels = map[string]string{}
		}
		pod.Labels[k] = v
		if _, err := client.For(w.Client, client.Pods).Update(w.ctx, pod); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) own(_ func(string) ([]byte, error), args []string) error {
	r, err := named(args[1])
	if err != nil {
		return err
	}
	owner, err := w.Client.Get(w.ctx, r, keyOf(r, args[2]))
	if err != nil {
		return err
	}
	maps := client.ConfigMaps.Resource
	child, err := w.Client.Get(w.ctx, maps, keyOf(maps, args[0]))
	if err != nil {
		return err
	}
	child = child.DeepCopyObject().(client.Object)
	yes := true
	child.SetOwnerReferences(append(child.GetOwnerReferences(), metav1.OwnerReference{
		APIVersion: r.GroupVersion().String(), Kind: r.Kind, Name: owner.GetName(), UID: owner.GetUID(), BlockOwnerDeletion: &yes,
	}))
	_, err = w.Client.Update(w.ctx, maps, child, "", metav1.UpdateOptions{})
	return err
}

func (w *World) yaml(_ func(string) ([]byte, error), args []string) (string, error) {
	r, err := named(args[0])
	if err != nil {
		return "", err
	}
	o, err := w.Client.Get(w.ctx, r, keyOf(r, args[1]))
	if err != nil {
		return "", err
	}
	o = o.DeepCopyObject().(client.Object)
	o.SetUID("")
	o.SetResourceVersion("")
	o.SetCreationTimestamp(metav1.Time{})
	o.SetManagedFields(nil)
	data, err := yaml.Marshal(o)
	return string(data), err
}
