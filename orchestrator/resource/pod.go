package resource

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubectl/pkg/util/qos"
)

// A pod is bound to its node once, by its binding subresource. Its spec hardly
// changes afterwards; its status is the node agent's.
func podKind() *Kind {
	k := &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Pod"),
		Resource:         "pods",
		Singular:         "pod",
		ShortNames:       []string{"po"},
		Categories:       []string{"all"},
		Namespaced:       true,
		New:              func() Object { return &corev1.Pod{} },
		NewList:          func() runtime.Object { return &corev1.PodList{} },

		Default:        func(o Object) { defaultPod(o.(*corev1.Pod)) },
		PrepareCreate:  func(o Object) { preparePod(o.(*corev1.Pod)) },
		PrepareUpdate:  func(o, old Object) { preparePodUpdate(o.(*corev1.Pod), old.(*corev1.Pod)) },
		ValidateCreate: func(o Object) field.ErrorList { return validatePod(o.(*corev1.Pod)) },
		ValidateUpdate: func(o, old Object) field.ErrorList { return validatePodUpdate(o.(*corev1.Pod), old.(*corev1.Pod)) },
		Warnings:       func(o, old Object) []string { return podWarnings(o.(*corev1.Pod), old) },
		Resets:         statusReset,

		FieldNames: []string{"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
			"spec.hostNetwork", "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName"},
		Fields:      podFields,
		GracePeriod: podGrace,

		Status: &Subresource{
			PrepareUpdate:  func(o, old Object) { preparePodStatus(o.(*corev1.Pod), old.(*corev1.Pod)) },
			ValidateUpdate: func(o, old Object) field.ErrorList { return validatePodStatus(o.(*corev1.Pod), old.(*corev1.Pod)) },
			Resets:         specReset,
		},
		Parts: map[string]*Subresource{
			"ephemeralcontainers": {
				PrepareUpdate: func(o, old Object) { prepareEphemeral(o.(*corev1.Pod), old.(*corev1.Pod)) },
				ValidateUpdate: func(o, old Object) field.ErrorList {
					return validateEphemeralUpdate(o.(*corev1.Pod), old.(*corev1.Pod))
				},
				Resets: statusReset,
			},
		},
		Actions: map[string]*Action{"binding": bindingAction()},

		Columns: podColumns,
		Row:     podRow,
	}
	return k
}

func preparePod(p *corev1.Pod) {
	p.Generation = 1
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: qos.ComputePodQOS(p)}
	if len(p.Spec.SchedulingGates) > 0 {
		p.Status.Conditions = []corev1.PodCondition{{
			Type:    corev1.PodScheduled,
			Status:  corev1.ConditionFalse,
			Reason:  corev1.PodReasonSchedulingGated,
			Message: "Scheduling is blocked due to non-empty scheduling gates",

			ObservedGeneration: 1,
		}}
	}
	for i := range p.Spec.TopologySpreadConstraints {
		c := &p.Spec.TopologySpreadConstraints[i]
		mergeLabelKeys(c.MatchLabelKeys, p.Labels, &c.LabelSelector, metav1.LabelSelectorOpIn)
	}
	if p.Spec.Affinity != nil {
		eachPodTerm(p.Spec.Affinity, func(t *corev1.PodAffinityTerm) {
			mergeLabelKeys(t.MatchLabelKeys, p.Labels, &t.LabelSelector, metav1.LabelSelectorOpIn)
			mergeLabelKeys(t.MismatchLabelKeys, p.Labels, &t.LabelSelector, metav1.LabelSelectorOpNotIn)
		})
	}
}

// mergeLabelKeys resolves keys whose values are the pod's own into the selector.
func mergeLabelKeys(keys []string, labels map[string]string, selector **metav1.LabelSelector, op metav1.LabelSelectorOperator) {
	if *selector == nil {
		return
	}
	for _, k := range keys {
		if v, ok := labels[k]; ok {
			r := metav1.LabelSelectorRequirement{Key: k, Operator: op, Values: []string{v}}
			(*selector).MatchExpressions = append((*selector).MatchExpressions, r)
		}
	}
}

func eachPodTerm(a *corev1.Affinity, f func(*corev1.PodAffinityTerm)) {
	each := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for i := range required {
			f(&required[i])
		}
		for i := range preferred {
			f(&preferred[i].PodAffinityTerm)
		}
	}
	if pa := a.PodAffinity; pa != nil {
		each(pa.RequiredDuringSchedulingIgnoredDuringExecution, pa.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if pa := a.PodAntiAffinity; pa != nil {
		each(pa.RequiredDuringSchedulingIgnoredDuringExecution, pa.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

func preparePodUpdate(p, old *corev1.Pod) {
	p.Status = old.Status
	countSpec(p, !equality.Semantic.DeepEqual(p.Spec, old.Spec))
}

// countSpec counts an object's generation.
func countSpec(o Object, changed bool) {
	if changed {
		o.SetGeneration(o.GetGeneration() + 1)
	}
}

func preparePodStatus(p, old *corev1.Pod) {
	p.Spec = old.Spec
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = old.DeletionTimestamp, old.DeletionGracePeriodSeconds
	p.OwnerReferences = old.OwnerReferences
	if p.Status.QOSClass == "" {
		p.Status.QOSClass = old.Status.QOSClass
	}
}

func prepareEphemeral(p, old *corev1.Pod) {
	added := p.Spec.EphemeralContainers
	labels, annotations := p.Labels, p.Annotations
	generation := p.Generation
	rv := p.ResourceVersion
	managed := p.ManagedFields
	old.DeepCopyInto(p)
	p.Spec.EphemeralContainers = added
	p.Labels, p.Annotations, p.Generation, p.ResourceVersion, p.ManagedFields = labels, annotations, generation, rv, managed
	countSpec(p, !equality.Semantic.DeepEqual(p.Spec, old.Spec))
}

func podFields(o Object) fields.Set {
	p := o.(*corev1.Pod)
	s := make(fields.Set, 11)
	s["metadata.name"], s["metadata.namespace"] = p.Name, p.Namespace
	s["spec.nodeName"] = p.Spec.NodeName
	s["spec.restartPolicy"] = string(p.Spec.RestartPolicy)
	s["spec.schedulerName"] = p.Spec.SchedulerName
	s["spec.serviceAccountName"] = p.Spec.ServiceAccountName
	s["spec.hostNetwork"] = strconv.FormatBool(p.Spec.HostNetwork)
	s["status.phase"] = string(p.Status.Phase)
	s["status.podIP"] = p.Status.PodIP
	s["status.podIPs"] = joinPodIPs(p.Status.PodIPs)
	s["status.nominatedNodeName"] = p.Status.NominatedNodeName
	return s
}

func joinPodIPs(ips []corev1.PodIP) string {
	if len(ips) == 1 {
		return ips[0].IP
	}
	all := make([]string, len(ips))
	for i := range ips {
		all[i] = ips[i].IP
	}
	return strings.Join(all, ",")
}

// podGrace is the time that a pod has to end. One that never ran, or has ended,
// goes at once.
func podGrace(o Object, asked *int64) int64 {
	p := o.(*corev1.Pod)
	var grace int64
	switch {
	case asked != nil:
		grace = *asked
	case p.Spec.TerminationGracePeriodSeconds != nil:
		grace = *p.Spec.TerminationGracePeriodSeconds
	}
	ended := p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded
	if p.Spec.NodeName == "" || ended {
		return 0
	}
	if grace < 0 {
		return 1
	}
	return grace
}

// bindingAction gives a pod its node: once, and only if it is not gated or on its way out.
func bindingAction() *Action {
	return &Action{
		New: func() runtime.Object { return &corev1.Binding{} },
		GVK: corev1.SchemeGroupVersion.WithKind("Binding"),
		Apply: func(o Object, body runtime.Object, now metav1.Time) error {
			b, ok := body.(*corev1.Binding)
			if !ok {
				return apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %T", body))
			}
			return bindPod(o.(*corev1.Pod), b, now)
		},
	}
}

func bindPod(p *corev1.Pod, b *corev1.Binding, now metav1.Time) error {
	if errs := validateBinding(b); len(errs) > 0 {
		return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Binding").GroupKind(), b.Name, errs)
	}
	refuse := func(why string) error {
		return apierrors.NewConflict(corev1.Resource("pods/binding"), p.Name, fmt.Errorf("%s", why))
	}
	switch {
	case b.UID != "" && b.UID != p.UID:
		return refuse(fmt.Sprintf("Precondition failed: UID in precondition: %v, UID in object meta: %v", b.UID, p.UID))
	case p.DeletionTimestamp != nil:
		return refuse(fmt.Sprintf("pod %s is being deleted, cannot be assigned to a host", p.Name))
	case p.Spec.NodeName != "":
		return refuse(fmt.Sprintf("pod %s is already assigned to node %q", p.Name, p.Spec.NodeName))
	case len(p.Spec.SchedulingGates) > 0:
		return refuse(fmt.Sprintf("pod %s has non-empty .spec.schedulingGates", p.Name))
	}
	p.Spec.NodeName = b.Target.Name
	if len(b.Annotations) > 0 && p.Annotations == nil {
		p.Annotations = make(map[string]string, len(b.Annotations))
	}
	maps.Copy(p.Annotations, b.Annotations)
	setPodCondition(&p.Status, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, ObservedGeneration: p.Generation}, now)
	p.Status.NominatedNodeName = ""
	return nil
}

func validateBinding(b *corev1.Binding) field.ErrorList {
	var errs field.ErrorList
	target := field.NewPath("target")
	if b.Target.Kind != "" && b.Target.Kind != "Node" {
		errs = append(errs, field.NotSupported(target.Child("kind"), b.Target.Kind, []string{"Node", "<empty>"}))
	}
	return append(errs, required(target.Child("name"), b.Target.Name)...)
}

func setPodCondition(s *corev1.PodStatus, c corev1.PodCondition, now metav1.Time) {
	for i := range s.Conditions {
		if old := &s.Conditions[i]; old.Type == c.Type {
			c.LastTransitionTime = old.LastTransitionTime
			if old.Status != c.Status {
				c.LastTransitionTime = now
			}
			*old = c
			return
		}
	}
	c.LastTransitionTime = now
	s.Conditions = append(s.Conditions, c)
}
