package resource

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var specPath = field.NewPath("spec")

func validatePod(p *corev1.Pod) field.ErrorList {
	errs := validatePodSpec(&p.Spec, specPath)
	errs = append(errs, imagesTrimmed(p.Spec.Containers, specPath.Child("containers"))...)
	errs = append(errs, imagesTrimmed(p.Spec.InitContainers, specPath.Child("initContainers"))...)
	if len(p.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(specPath.Child("ephemeralContainers"), "cannot be set on create"))
	}
	if len(p.Spec.SchedulingGates) > 0 && p.Spec.NodeName != "" {
		errs = append(errs, field.Forbidden(specPath.Child("nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	return errs
}

// imagesTrimmed holds for pods only: templates with such images have been stored.
func imagesTrimmed(containers []corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range containers {
		if image := containers[i].Image; strings.TrimSpace(image) != image {
			errs = append(errs, field.Invalid(path.Index(i).Child("image"), image, "must not have leading or trailing whitespace"))
		}
	}
	return errs
}

// The fields of a pod's spec that may change. The words are Kubernetes' own.
var updatable = strings.Join([]string{
	"`spec.containers[*].image`",
	"`spec.initContainers[*].image`",
	"`spec.activeDeadlineSeconds`",
	"`spec.tolerations` (only additions to existing tolerations)",
	"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
}, ",")

func validatePodUpdate(p, old *corev1.Pod) field.ErrorList {
	if equality.Semantic.DeepEqual(p.Spec, old.Spec) {
		return nil
	}
	errs := validatePodSpec(&p.Spec, specPath)
	errs = append(errs, imagesTrimmed(p.Spec.Containers, specPath.Child("containers"))...)
	errs = append(errs, imagesTrimmed(p.Spec.InitContainers, specPath.Child("initContainers"))...)
	if len(p.Spec.Containers) != len(old.Spec.Containers) {
		return append(errs, field.Forbidden(specPath.Child("containers"), "pod updates may not add or remove containers"))
	}
	if len(p.Spec.InitContainers) != len(old.Spec.InitContainers) {
		return append(errs, field.Forbidden(specPath.Child("initContainers"), "pod updates may not add or remove containers"))
	}
	errs = append(errs, deadlineOnlyShorter(p.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds)...)
	errs = append(errs, onlyAddedTolerations(p.Spec.Tolerations, old.Spec.Tolerations)...)
	errs = append(errs, onlyRemovedGates(p.Spec.SchedulingGates, old.Spec.SchedulingGates)...)
	if len(errs) > 0 {
		return errs
	}
	return fixedPodSpec(p, old)
}

// fixedPodSpec compares what is left when everything that may change is taken over.
func fixedPodSpec(p, old *corev1.Pod) field.ErrorList {
	was := old.Spec.DeepCopy()
	for i := range was.Containers {
		was.Containers[i].Image = p.Spec.Containers[i].Image
	}
	for i := range was.InitContainers {
		was.InitContainers[i].Image = p.Spec.InitContainers[i].Image
	}
	was.ActiveDeadlineSeconds = p.Spec.ActiveDeadlineSeconds
	was.Tolerations = p.Spec.Tolerations
	was.SchedulingGates = p.Spec.SchedulingGates
	if g := old.Spec.TerminationGracePeriodSeconds; g != nil && *g < 0 && p.Spec.TerminationGracePeriodSeconds != nil && *p.Spec.TerminationGracePeriodSeconds == 1 {
		was.TerminationGracePeriodSeconds = p.Spec.TerminationGracePeriodSeconds
	}
	if len(old.Spec.SchedulingGates) > 0 {
		// A pod that waits at a gate may be steered by who keeps the gate.
		if errs := validateGated(p, old); len(errs) > 0 {
			return errs
		}
		was.NodeSelector, was.Affinity = p.Spec.NodeSelector, p.Spec.Affinity
	}
	if equality.Semantic.DeepEqual(&p.Spec, was) {
		return nil
	}
	// The difference shows only what was not allowed.
	return field.ErrorList{field.Forbidden(specPath, fmt.Sprintf("pod updates may not change fields other than %s\n%v", updatable, diff.Diff(was, &p.Spec)))}
}

// validateGated: the choice of nodes may only become narrower.
func validateGated(p, old *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	for k, v := range old.Spec.NodeSelector {
		if now, ok := p.Spec.NodeSelector[k]; !ok || now != v {
			errs = append(errs, field.Invalid(specPath.Child("nodeSelector").Key(k), now, "only additions are allowed while the pod has scheduling gates"))
		}
	}
	a, b := requiredNodes(p.Spec.Affinity), requiredNodes(old.Spec.Affinity)
	if b != nil && !equality.Semantic.DeepEqual(a, b) && !narrower(a, b) {
		errs = append(errs, field.Invalid(specPath.Child("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"),
			a, "only additions are allowed (no mutations or deletions)"))
	}
	return errs
}

func requiredNodes(a *corev1.Affinity) *corev1.NodeSelector {
	if a == nil || a.NodeAffinity == nil {
		return nil
	}
	return a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
}

// narrower: the same terms, each with its old requirements and perhaps more.
func narrower(s, old *corev1.NodeSelector) bool {
	if s == nil || len(s.NodeSelectorTerms) != len(old.NodeSelectorTerms) {
		return false
	}
	begins := func(s, old []corev1.NodeSelectorRequirement) bool {
		return len(s) >= len(old) && equality.Semantic.DeepEqual(s[:len(old)], old)
	}
	for i, t := range s.NodeSelectorTerms {
		o := old.NodeSelectorTerms[i]
		if !begins(t.MatchExpressions, o.MatchExpressions) || !begins(t.MatchFields, o.MatchFields) {
			return false
		}
	}
	return true
}

func deadlineOnlyShorter(now, old *int64) field.ErrorList {
	path := specPath.Child("activeDeadlineSeconds")
	switch {
	case old == nil:
		return nil
	case now == nil:
		return field.ErrorList{field.Invalid(path, now, "must not update from a positive integer to nil value")}
	case *now > *old:
		return field.ErrorList{field.Invalid(path, *now, "must be less than or equal to previous value")}
	}
	return nil
}

func onlyAddedTolerations(now, old []corev1.Toleration) field.ErrorList {
	for _, o := range old {
		o.TolerationSeconds = nil
		kept := slices.ContainsFunc(now, func(t corev1.Toleration) bool {
			t.TolerationSeconds = nil
			return t == o
		})
		if !kept {
			return field.ErrorList{field.Forbidden(specPath.Child("tolerations"), "existing toleration can not be modified except its tolerationSeconds")}
		}
	}
	return nil
}

func onlyRemovedGates(now, old []corev1.PodSchedulingGate) field.ErrorList {
	for _, g := range now {
		if !slices.Contains(old, g) {
			return field.ErrorList{field.Forbidden(specPath.Child("schedulingGates"), fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", g.Name))}
		}
	}
	return nil
}

func validatePodStatus(p, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("status")
	var errs field.ErrorList
	if p.Status.NominatedNodeName != "" {
		errs = append(errs, dnsSubdomain(path.Child("nominatedNodeName"), p.Status.NominatedNodeName)...)
	}
	errs = append(errs, validateRestarts(p.Status.ContainerStatuses, old.Status.ContainerStatuses, &p.Spec, path.Child("containerStatuses"))...)
	if p.Status.QOSClass != old.Status.QOSClass && old.Status.QOSClass != "" {
		errs = append(errs, field.Invalid(path.Child("qosClass"), p.Status.QOSClass, "field is immutable"))
	}
	for i, ip := range p.Status.PodIPs {
		errs = append(errs, validation.IsValidIP(path.Child("podIPs").Index(i), ip.IP)...)
	}
	for i, c := range p.Status.Conditions {
		if strings.HasPrefix(string(c.Type), "kubernetes.io/") {
			continue
		}
		errs = append(errs, invalid(path.Child("conditions").Index(i).Child("type"), string(c.Type), validation.IsQualifiedName(string(c.Type)))...)
	}
	return errs
}

// validateRestarts: a container that ended for good stays ended.
func validateRestarts(now, old []corev1.ContainerStatus, s *corev1.PodSpec, path *field.Path) field.ErrorList {
	if s.RestartPolicy == corev1.RestartPolicyAlways {
		return nil
	}
	var errs field.ErrorList
	for i := range old {
		o := &old[i]
		if o.State.Terminated == nil || o.State.Terminated.ExitCode != 0 && s.RestartPolicy == corev1.RestartPolicyOnFailure {
			continue
		}
		for j := range now {
			if now[j].Name == o.Name && now[j].State.Terminated == nil {
				errs = append(errs, field.Forbidden(path.Index(j).Child("state"), "may not be transitioned to non-terminated state"))
			}
		}
	}
	return errs
}

// validateEphemeralUpdate: containers for debugging are added, never changed or removed.
func validateEphemeralUpdate(p, old *corev1.Pod) field.ErrorList {
	path := specPath.Child("ephemeralContainers")
	errs := validatePodSpec(&p.Spec, specPath)
	for _, o := range old.Spec.EphemeralContainers {
		i := slices.IndexFunc(p.Spec.EphemeralContainers, func(e corev1.EphemeralContainer) bool { return e.Name == o.Name })
		switch {
		case i < 0:
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", o.Name)))
		case !equality.Semantic.DeepEqual(p.Spec.EphemeralContainers[i], o):
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be changed\n", o.Name)))
		}
	}
	return errs
}
