package resource

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func deploymentKind() *Kind {
	return &Kind{
		GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("Deployment"),
		Resource:         "deployments",
		Singular:         "deployment",
		ShortNames:       []string{"deploy"},
		Categories:       []string{"all"},
		Namespaced:       true,
		New:              func() Object { return &appsv1.Deployment{} },
		NewList:          func() runtime.Object { return &appsv1.DeploymentList{} },

		Default: func(o Object) { defaultDeployment(&o.(*appsv1.Deployment).Spec) },
		PrepareCreate: func(o Object) {
			o.SetGeneration(1)
			o.(*appsv1.Deployment).Status = appsv1.DeploymentStatus{}
		},
		PrepareUpdate: func(o, old Object) {
			d, was := o.(*appsv1.Deployment), old.(*appsv1.Deployment)
			d.Status = was.Status
			// The annotations carry meaning for rollouts.
			countSpec(d, !equality.Semantic.DeepEqual(d.Spec, was.Spec) || !equality.Semantic.DeepEqual(d.Annotations, was.Annotations))
		},
		ValidateCreate: func(o Object) field.ErrorList { return validateDeployment(&o.(*appsv1.Deployment).Spec) },
		ValidateUpdate: func(o, old Object) field.ErrorList {
			d, was := o.(*appsv1.Deployment), old.(*appsv1.Deployment)
			return append(validateDeployment(&d.Spec), immutable(specPath.Child("selector"), d.Spec.Selector, was.Spec.Selector)...)
		},
		Warnings: func(o, old Object) []string {
			if was, ok := old.(*appsv1.Deployment); ok {
				return templateWarnings(&o.(*appsv1.Deployment).Spec.Template, &was.Spec.Template)
			}
			names := nameWarnings(o.GetName(), "Pod names and hostnames")
			return append(names, templateWarnings(&o.(*appsv1.Deployment).Spec.Template, nil)...)
		},
		Resets: statusReset,
		Status: &Subresource{
			PrepareUpdate: func(o, old Object) {
				d, was := o.(*appsv1.Deployment), old.(*appsv1.Deployment)
				d.Spec, d.Labels = was.Spec, was.Labels
			},
			ValidateUpdate: func(o, old Object) field.ErrorList {
				return validateDeploymentStatus(&o.(*appsv1.Deployment).Status, &old.(*appsv1.Deployment).Status)
			},
			Resets: specAndLabelsReset,
		},
		Scale: &ScaleAccess{
			Get: func(o Object) (*autoscalingv1.Scale, error) {
				d := o.(*appsv1.Deployment)
				return newScale(o, d.Spec.Replicas, d.Status.Replicas, d.Spec.Selector)
			},
			Set: func(o Object, s *autoscalingv1.Scale) error {
				o.(*appsv1.Deployment).Spec.Replicas = &s.Spec.Replicas
				return nil
			},
			ReplicasPath: []string{"spec", "replicas"},
		},
		Columns: append(columns(nameColumn,
			col("Ready", "string", "Number of the pod with ready state"),
			col("Up-to-date", "string", appsv1.DeploymentStatus{}.SwaggerDoc()["updatedReplicas"]),
			col("Available", "string", appsv1.DeploymentStatus{}.SwaggerDoc()["availableReplicas"]),
			ageColumn), templateColumns...),
		Row: func(o Object, now time.Time) []any {
			d := o.(*appsv1.Deployment)
			names, images := containerCells(d.Spec.Template.Spec.Containers)
			return []any{d.Name, fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, deref(d.Spec.Replicas)),
				int64(d.Status.UpdatedReplicas), int64(d.Status.AvailableReplicas), age(d.CreationTimestamp, now),
				names, images, metav1.FormatLabelSelector(d.Spec.Selector)}
		},
	}
}

func deref[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}

func defaultDeployment(s *appsv1.DeploymentSpec) {
	setDefault(&s.Replicas, 1)
	if s.Strategy.Type == "" {
		s.Strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	}
	if s.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		setDefault(&s.Strategy.RollingUpdate, appsv1.RollingUpdateDeployment{})
		setDefault(&s.Strategy.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
		setDefault(&s.Strategy.RollingUpdate.MaxSurge, intstr.FromString("25%"))
	}
	setDefault(&s.RevisionHistoryLimit, 10)
	setDefault(&s.ProgressDeadlineSeconds, 600)
	defaultPodSpec(&s.Template.Spec)
}

func validateDeployment(s *appsv1.DeploymentSpec) field.ErrorList {
	errs := notNegative(specPath.Child("replicas"), deref(s.Replicas))
	errs = append(errs, validateSelected("deployment", s.Selector, &s.Template)...)
	errs = append(errs, validateStrategy(&s.Strategy, specPath.Child("strategy"))...)
	errs = append(errs, notNegative(specPath.Child("minReadySeconds"), s.MinReadySeconds)...)
	errs = append(errs, notNegative(specPath.Child("revisionHistoryLimit"), deref(s.RevisionHistoryLimit))...)
	if d := s.ProgressDeadlineSeconds; d != nil {
		errs = append(errs, notNegative(specPath.Child("progressDeadlineSeconds"), *d)...)
		if *d <= s.MinReadySeconds {
			errs = append(errs, field.Invalid(specPath.Child("progressDeadlineSeconds"), *d, "must be greater than minReadySeconds"))
		}
	}
	return errs
}

func validateStrategy(s *appsv1.DeploymentStrategy, p *field.Path) field.ErrorList {
	switch s.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if s.RollingUpdate != nil {
			return field.ErrorList{field.Forbidden(p.Child("rollingUpdate"), "may not be specified when strategy `type` is 'Recreate'")}
		}
		return nil
	case appsv1.RollingUpdateDeploymentStrategyType:
		if s.RollingUpdate == nil {
			return field.ErrorList{field.Required(p.Child("rollingUpdate"), "this should be defaulted and never be nil")}
		}
		return validateRollingUpdate(s.RollingUpdate, p.Child("rollingUpdate"))
	}
	return field.ErrorList{field.NotSupported(p.Child("type"), s.Type, []appsv1.DeploymentStrategyType{appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType})}
}

func validateRollingUpdate(r *appsv1.RollingUpdateDeployment, p *field.Path) field.ErrorList {
	errs := countOrPercent(p.Child("maxUnavailable"), r.MaxUnavailable)
	errs = append(errs, countOrPercent(p.Child("maxSurge"), r.MaxSurge)...)
	if isZero(r.MaxUnavailable) && isZero(r.MaxSurge) {
		errs = append(errs, field.Invalid(p.Child("maxUnavailable"), r.MaxUnavailable, "may not be 0 when `maxSurge` is 0"))
	}
	if v, err := intstr.GetScaledValueFromIntOrPercent(r.MaxUnavailable, 100, false); err == nil && r.MaxUnavailable.Type == intstr.String && v > 100 {
		errs = append(errs, field.Invalid(p.Child("maxUnavailable"), r.MaxUnavailable, "must not be greater than 100%"))
	}
	return errs
}

func isZero(v *intstr.IntOrString) bool {
	n, err := intstr.GetScaledValueFromIntOrPercent(v, 100, false)
	return err == nil && n == 0
}

func countOrPercent(p *field.Path, v *intstr.IntOrString) field.ErrorList {
	if v == nil {
		return field.ErrorList{field.Required(p, "")}
	}
	if v.Type == intstr.Int {
		return notNegative(p, v.IntVal)
	}
	return invalid(p, v, validation.IsValidPercent(v.StrVal))
}

func validateDeploymentStatus(s, old *appsv1.DeploymentStatus) field.ErrorList {
	p := field.NewPath("status")
	errs := notNegative(p.Child("observedGeneration"), s.ObservedGeneration)
	for _, n := range []struct {
		name  string
		value int32
	}{{"replicas", s.Replicas}, {"updatedReplicas", s.UpdatedReplicas}, {"readyReplicas", s.ReadyReplicas}, {"availableReplicas", s.AvailableReplicas}, {"unavailableReplicas", s.UnavailableReplicas}} {
		errs = append(errs, notNegative(p.Child(n.name), n.value)...)
	}
	const more = "cannot be greater than status.replicas"
	if s.UpdatedReplicas > s.Replicas {
		errs = append(errs, field.Invalid(p.Child("updatedReplicas"), s.UpdatedReplicas, more))
	}
	if s.ReadyReplicas > s.Replicas {
		errs = append(errs, field.Invalid(p.Child("readyReplicas"), s.ReadyReplicas, more))
	}
	if s.AvailableReplicas > s.ReadyReplicas {
		errs = append(errs, field.Invalid(p.Child("availableReplicas"), s.AvailableReplicas, "cannot be greater than readyReplicas"))
	}
	if deref(s.CollisionCount) < deref(old.CollisionCount) {
		errs = append(errs, field.Invalid(p.Child("collisionCount"), deref(s.CollisionCount), "cannot be decremented"))
	}
	return errs
}

// newScale is the scale of o. Its selector is in the form of a query.
func newScale(o Object, replicas *int32, have int32, selector *metav1.LabelSelector) (*autoscalingv1.Scale, error) {
	sel, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return nil, fmt.Errorf("read selector of %s/%s: %w", o.GetNamespace(), o.GetName(), err)
	}
	return &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{
			Name: o.GetName(), Namespace: o.GetNamespace(), UID: o.GetUID(),
			ResourceVersion: o.GetResourceVersion(), CreationTimestamp: o.GetCreationTimestamp(),
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: deref(replicas)},
		Status: autoscalingv1.ScaleStatus{Replicas: have, Selector: sel.String()},
	}, nil
}

func replicaFields(o Object, replicas int32) fields.Set {
	return fields.Set{"metadata.name": o.GetName(), "metadata.namespace": o.GetNamespace(), "status.replicas": fmt.Sprint(replicas)}
}
