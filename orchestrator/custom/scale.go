package custom

import (
	"fmt"
	"math"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// addScale gives a kind its scale subresource.
func addScale(k *resource.Kind, sub *apiextensionsv1.CustomResourceSubresources) {
	if sub == nil || sub.Scale == nil {
		return
	}
	s := scale{
		spec: fieldsOf(sub.Scale.SpecReplicasPath), status: fieldsOf(sub.Scale.StatusReplicasPath), kind: k,
	}
	if sub.Scale.LabelSelectorPath != nil {
		s.selector = fieldsOf(*sub.Scale.LabelSelectorPath)
	}
	k.Scale = &resource.ScaleAccess{Get: s.get, Set: s.set, ReplicasPath: s.spec}
}

type scale struct {
	spec, status, selector []string
	kind                   *resource.Kind
}

// fieldsOf splits ".spec.replicas"; validation allows nothing else.
func fieldsOf(path string) []string { return strings.Split(strings.TrimPrefix(path, "."), ".") }

func (s scale) get(o resource.Object) (*autoscalingv1.Scale, error) {
	u := asUnstructured(o)
	want, found, err := replicas(u, s.spec)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, apierrors.NewInternalError(fmt.Errorf("the spec replicas field %q does not exist", "."+strings.Join(s.spec, ".")))
	}
	have, _, err := replicas(u, s.status)
	if err != nil {
		return nil, err
	}
	out := &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{
			Name: u.GetName(), Namespace: u.GetNamespace(), UID: u.GetUID(),
			ResourceVersion: u.GetResourceVersion(), CreationTimestamp: u.GetCreationTimestamp(),
		},
		Spec: autoscalingv1.ScaleSpec{Replicas: want}, Status: autoscalingv1.ScaleStatus{Replicas: have},
	}
	if s.selector != nil {
		out.Status.Selector, _, _ = unstructured.NestedString(u.Object, s.selector...)
	}
	return out, nil
}

func (s scale) set(o resource.Object, scale *autoscalingv1.Scale) error {
	if scale.Spec.Replicas < 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("spec.replicas: Invalid value: %d: should be a non-negative integer", scale.Spec.Replicas))
	}
	return unstructured.SetNestedField(asUnstructured(o).Object, int64(scale.Spec.Replicas), s.spec...)
}

func replicas(u *unstructured.Unstructured, path []string) (int32, bool, error) {
	n, found, err := unstructured.NestedInt64(u.Object, path...)
	switch {
	case err != nil:
		return 0, false, apierrors.NewInternalError(fmt.Errorf("read replicas at .%s: %w", strings.Join(path, "."), err))
	case n < 0 || n > math.MaxInt32:
		return 0, false, apierrors.NewInternalError(fmt.Errorf("replicas at .%s are %d, not between 0 and %d", strings.Join(path, "."), n, math.MaxInt32))
	}
	return int32(n), found, nil
}
