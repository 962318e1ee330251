package admission

import (
	"context"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

var priorityClasses = schedulingv1.SchemeGroupVersion.WithResource("priorityclasses")

// Lister is what a Reader may offer beyond Get.
type Lister interface {
	// List returns the cached objects of a resource, which nobody may change.
	List(ctx context.Context, gvr schema.GroupVersionResource, namespace string) ([]resource.Object, error)
}

// PodPriority turns the name of a pod's priority class into its number.
type PodPriority struct{}

// Name is the plugin's name in errors.
func (PodPriority) Name() string { return "Priority" }

// Mutate sets the priority of new pods, which keep it for life. It also sees to
// it that there is but one default class; two created at once may slip through,
// and then the lower one counts.
func (PodPriority) Mutate(ctx context.Context, a *Attributes) error {
	if class, ok := a.Object.(*schedulingv1.PriorityClass); ok && class.GlobalDefault {
		return onlyDefault(ctx, a, class)
	}
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || a.Subresource != "" {
		return nil
	}
	if old, ok := a.OldObject.(*corev1.Pod); ok && a.Operation == admissionv1.Update {
		if pod.Spec.Priority == nil {
			pod.Spec.Priority = old.Spec.Priority
		}
		if pod.Spec.PreemptionPolicy == nil {
			pod.Spec.PreemptionPolicy = old.Spec.PreemptionPolicy
		}
		return nil
	}
	if a.Operation != admissionv1.Create {
		return nil
	}
	value, policy, err := priorityOf(ctx, a, pod)
	if err != nil {
		return err
	}
	if pod.Spec.Priority != nil && *pod.Spec.Priority != value {
		return Forbidden(a, fmt.Errorf("the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *pod.Spec.Priority, value))
	}
	if pod.Spec.PreemptionPolicy != nil && *pod.Spec.PreemptionPolicy != policy {
		return Forbidden(a, fmt.Errorf("the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *pod.Spec.PreemptionPolicy, policy))
	}
	pod.Spec.Priority, pod.Spec.PreemptionPolicy = &value, &policy
	return nil
}

func onlyDefault(ctx context.Context, a *Attributes, class *schedulingv1.PriorityClass) error {
	other, err := defaultClass(ctx, a)
	if err != nil || other == nil || other.Name == class.Name {
		return err
	}
	return Forbidden(a, fmt.Errorf("PriorityClass %v is already marked as default. Only one default can exist", other.Name))
}

func priorityOf(ctx context.Context, a *Attributes, pod *corev1.Pod) (int32, corev1.PreemptionPolicy, error) {
	class, err := classOf(ctx, a, pod.Spec.PriorityClassName)
	if err != nil || class == nil {
		return 0, corev1.PreemptLowerPriority, err
	}
	pod.Spec.PriorityClassName = class.Name
	policy := corev1.PreemptLowerPriority
	if class.PreemptionPolicy != nil {
		policy = *class.PreemptionPolicy
	}
	return class.Value, policy, nil
}

// classOf finds the class by name, or the default one; nil if there is none.
func classOf(ctx context.Context, a *Attributes, name string) (*schedulingv1.PriorityClass, error) {
	if name == "" {
		return defaultClass(ctx, a)
	}
	key := types.NamespacedName{Name: name}
	o, err := a.Reader.Get(ctx, priorityClasses, key, false)
	if apierrors.IsNotFound(err) {
		o, err = a.Reader.Get(ctx, priorityClasses, key, true)
	}
	if apierrors.IsNotFound(err) {
		return nil, Forbidden(a, fmt.Errorf("no PriorityClass with name %v was found", name))
	}
	if err != nil {
		return nil, err
	}
	class, _ := o.(*schedulingv1.PriorityClass)
	return class, nil
}

// defaultClass is the lowest of those that say they are the default.
func defaultClass(ctx context.Context, a *Attributes) (*schedulingv1.PriorityClass, error) {
	l, ok := a.Reader.(Lister)
	if !ok {
		return nil, nil
	}
	all, err := l.List(ctx, priorityClasses, "")
	if err != nil {
		return nil, err
	}
	var found *schedulingv1.PriorityClass
	for _, o := range all {
		if c, ok := o.(*schedulingv1.PriorityClass); ok && c.GlobalDefault && (found == nil || c.Value < found.Value) {
			found = c
		}
	}
	return found, nil
}
