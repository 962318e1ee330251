package memory

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// selection turns list options into a predicate.
func selection(opts client.ListOptions) (func(client.Object) bool, error) {
	ls, err := labels.Parse(opts.LabelSelector)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("labelSelector: %v", err))
	}
	fs, err := fields.ParseSelector(opts.FieldSelector)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("fieldSelector: %v", err))
	}
	return func(o client.Object) bool {
		return (opts.Namespace == "" || o.GetNamespace() == opts.Namespace) &&
			ls.Matches(labels.Set(o.GetLabels())) && (fs.Empty() || fs.Matches(fieldsOf{o}))
	}, nil
}

// fieldsOf reads any field by its path.
type fieldsOf struct{ client.Object }

func (f fieldsOf) Has(path string) bool { return true }

func (f fieldsOf) Get(path string) string {
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(f.Object)
	if err != nil {
		return ""
	}
	v, _, _ := unstructured.NestedFieldNoCopy(m, strings.Split(path, ".")...)
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

func prepareCreate(o client.Object) {
	switch o := o.(type) {
	case *corev1.Pod:
		if o.Status.Phase == "" {
			o.Status.Phase = corev1.PodPending
		}
	case *corev1.Namespace:
		o.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
		o.Status.Phase = corev1.NamespaceActive
	}
}

// merge is what an update stores: the part that the subresource owns from o, the
// rest from old.
func merge(old, o client.Object, subresource string) (client.Object, error) {
	var next client.Object
	switch subresource {
	case "":
		next = o
		copyField(next, old, "Status")
		next.SetDeletionTimestamp(old.GetDeletionTimestamp())
		next.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	case "status":
		next = old.DeepCopyObject().(client.Object)
		copyField(next, o, "Status")
	case "finalize":
		next = old.DeepCopyObject().(client.Object)
		copyField(next, o, "Spec")
	default:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("subresource %q: cannot be updated here", subresource))
	}
	next.SetUID(old.GetUID())
	next.SetCreationTimestamp(old.GetCreationTimestamp())
	next.SetResourceVersion(old.GetResourceVersion())
	next.SetGeneration(old.GetGeneration())
	if subresource == "" && !sameField(next, old, "Spec") {
		next.SetGeneration(old.GetGeneration() + 1)
	}
	return next, nil
}

func field(o client.Object, name string) reflect.Value {
	if u, ok := o.(*unstructured.Unstructured); ok {
		return reflect.ValueOf(u.Object).MapIndex(reflect.ValueOf(strings.ToLower(name)))
	}
	return reflect.ValueOf(o).Elem().FieldByName(name)
}

func copyField(to, from client.Object, name string) {
	if u, ok := to.(*unstructured.Unstructured); ok {
		key := strings.ToLower(name)
		if v, ok := from.(*unstructured.Unstructured).Object[key]; ok {
			u.Object[key] = runtime.DeepCopyJSONValue(v)
		} else {
			delete(u.Object, key)
		}
		return
	}
	source := field(from.DeepCopyObject().(client.Object), name)
	if f := field(to, name); f.IsValid() && source.IsValid() {
		f.Set(source)
	}
}

func sameField(a, b client.Object, name string) bool {
	fa, fb := field(a, name), field(b, name)
	if !fa.IsValid() || !fb.IsValid() {
		return fa.IsValid() == fb.IsValid()
	}
	if opaque(a) {
		return sameJSON(fa.Interface(), fb.Interface())
	}
	return equality.Semantic.DeepEqual(fa.Interface(), fb.Interface())
}

func equal(a, b client.Object) bool {
	if opaque(a) {
		return sameJSON(a, b)
	}
	return equality.Semantic.DeepEqual(a, b)
}

// opaque says whether an object is made of protobuf messages, whose hidden fields
// cannot be compared.
func opaque(o client.Object) bool {
	return strings.HasPrefix(reflect.TypeOf(o).Elem().PkgPath(), "istio.io/")
}

func sameJSON(a, b any) bool {
	var x, y any
	for _, side := range []struct{ from, to any }{{a, &x}, {b, &y}} {
		data, err := json.Marshal(side.from)
		if err != nil || json.Unmarshal(data, side.to) != nil {
			return false
		}
	}
	return reflect.DeepEqual(x, y)
}

func checkPreconditions(r client.Resource, o client.Object, p *metav1.Preconditions) error {
	if p == nil {
		return nil
	}
	if p.UID != nil && *p.UID != o.GetUID() {
		return apierrors.NewConflict(r.GroupResource(), o.GetName(),
			fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s)", *p.UID, o.GetUID()))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != o.GetResourceVersion() {
		return apierrors.NewConflict(r.GroupResource(), o.GetName(),
			fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s)", *p.ResourceVersion, o.GetResourceVersion()))
	}
	return nil
}

// markDeleted sets the deletion's time, grace and finalizers.
func markDeleted(o client.Object, opts metav1.DeleteOptions, now time.Time) {
	grace := int64(0)
	if pod, ok := o.(*corev1.Pod); ok {
		grace = podGrace(pod, opts.GracePeriodSeconds)
	}
	finalizers := o.GetFinalizers()
	if opts.PropagationPolicy != nil {
		switch *opts.PropagationPolicy {
		case metav1.DeletePropagationForeground:
			finalizers = with(finalizers, metav1.FinalizerDeleteDependents)
		case metav1.DeletePropagationOrphan:
			finalizers = with(finalizers, metav1.FinalizerOrphanDependents)
		}
	}
	o.SetFinalizers(finalizers)
	if ns, ok := o.(*corev1.Namespace); ok {
		ns.Status.Phase = corev1.NamespaceTerminating
	}
	if was := o.GetDeletionGracePeriodSeconds(); o.GetDeletionTimestamp() != nil && was != nil && *was <= grace {
		return
	}
	if o.GetDeletionTimestamp() == nil || grace == 0 {
		at := metav1.NewTime(now.Truncate(time.Second).Add(time.Duration(grace) * time.Second))
		o.SetDeletionTimestamp(&at)
	}
	o.SetDeletionGracePeriodSeconds(&grace)
}

func podGrace(pod *corev1.Pod, asked *int64) int64 {
	switch {
	case asked != nil:
		return *asked
	case pod.Spec.NodeName == "", pod.Status.Phase == corev1.PodSucceeded, pod.Status.Phase == corev1.PodFailed:
		return 0
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		return *pod.Spec.TerminationGracePeriodSeconds
	}
	return corev1.DefaultTerminationGracePeriodSeconds
}

func with(list []string, s string) []string {
	for _, have := range list {
		if have == s {
			return list
		}
	}
	return append(list, s)
}

// finished says whether a deleted object has nothing left to wait for.
func finished(o client.Object) bool {
	if o.GetDeletionTimestamp() == nil || len(o.GetFinalizers()) > 0 {
		return false
	}
	if ns, ok := o.(*corev1.Namespace); ok && len(ns.Spec.Finalizers) > 0 {
		return false
	}
	g := o.GetDeletionGracePeriodSeconds()
	return g == nil || *g == 0
}

func decode(r client.Resource, data []byte) (client.Object, error) {
	o, err := client.Scheme().New(r.GroupVersionKind())
	if err != nil {
		o = &unstructured.Unstructured{}
	}
	if err := yaml.Unmarshal(data, o); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return o.(client.Object), nil
}

func patched(r client.Resource, old client.Object, pt types.PatchType, data []byte) (client.Object, error) {
	before, err := json.Marshal(old)
	if err != nil {
		return nil, err
	}
	var after []byte
	switch pt {
	case types.JSONPatchType:
		p, err := jsonpatch.DecodePatch(data)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		if after, err = p.Apply(before); err != nil {
			return nil, apierrors.NewGenericServerResponse(422, "patch", r.GroupResource(), old.GetName(), err.Error(), 0, false)
		}
	case types.StrategicMergePatchType:
		if after, err = strategicpatch.StrategicMergePatch(before, data, old); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	case types.MergePatchType, types.ApplyPatchType:
		if data, err = yaml.YAMLToJSON(data); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		if after, err = jsonpatch.MergePatch(before, data); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	default:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("patch type %q: unknown", pt))
	}
	return decode(r, after)
}

func (c *Client) bind(r client.Resource, old client.Object, body any) (*metav1.Status, error) {
	pod, ok := old.(*corev1.Pod)
	b, isBinding := body.(*corev1.Binding)
	if !ok || !isBinding {
		return nil, apierrors.NewBadRequest("binding: wants a Pod and a Binding")
	}
	if pod.DeletionTimestamp != nil || pod.Spec.NodeName != "" {
		return nil, apierrors.NewConflict(r.GroupResource(), pod.Name,
			fmt.Errorf("pod %s is already assigned to node %q", pod.Name, pod.Spec.NodeName))
	}
	next := pod.DeepCopy()
	next.Spec.NodeName = b.Target.Name
	next.Status.Conditions = append(next.Status.Conditions, corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionTrue,
		LastTransitionTime: metav1.NewTime(c.now().Truncate(time.Second)),
	})
	c.commit(c.table(r), old, next)
	return &metav1.Status{Status: metav1.StatusSuccess}, nil
}

// token answers a TokenRequest with a token that names the account and means nothing.
func token(account client.Object, body any, now time.Time) (*authenticationv1.TokenRequest, error) {
	request, ok := body.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, apierrors.NewBadRequest("token: wants a TokenRequest")
	}
	out := request.DeepCopy()
	seconds := int64(3600)
	if out.Spec.ExpirationSeconds != nil {
		seconds = *out.Spec.ExpirationSeconds
	}
	out.Status.ExpirationTimestamp = metav1.NewTime(now.Add(time.Duration(seconds) * time.Second))
	out.Status.Token = fmt.Sprintf("memory.%s.%s.%d", account.GetNamespace(), account.GetName(), out.Status.ExpirationTimestamp.Unix())
	return out, nil
}
