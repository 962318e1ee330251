package resource

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func replicaSetKind() *Kind {
	return &Kind{
		GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
		Resource:         "replicasets",
		Singular:         "replicaset",
		ShortNames:       []string{"rs"},
		Categories:       []string{"all"},
		Namespaced:       true,
		New:              func() Object { return &appsv1.ReplicaSet{} },
		NewList:          func() runtime.Object { return &appsv1.ReplicaSetList{} },

		Default: func(o Object) {
			r := o.(*appsv1.ReplicaSet)
			setDefault(&r.Spec.Replicas, 1)
			defaultPodSpec(&r.Spec.Template.Spec)
		},
		PrepareCreate: func(o Object) {
			o.SetGeneration(1)
			o.(*appsv1.ReplicaSet).Status = appsv1.ReplicaSetStatus{}
		},
		PrepareUpdate: func(o, old Object) {
			r, was := o.(*appsv1.ReplicaSet), old.(*appsv1.ReplicaSet)
			r.Status = was.Status
			countSpec(r, !equality.Semantic.DeepEqual(r.Spec, was.Spec))
		},
		ValidateCreate: func(o Object) field.ErrorList { return validateReplicaSet(&o.(*appsv1.ReplicaSet).Spec) },
		ValidateUpdate: func(o, old Object) field.ErrorList {
			r, was := o.(*appsv1.ReplicaSet), old.(*appsv1.ReplicaSet)
			return append(validateReplicaSet(&r.Spec), immutable(specPath.Child("selector"), r.Spec.Selector, was.Spec.Selector)...)
		},
		Warnings: func(o, old Object) []string {
			if was, ok := old.(*appsv1.ReplicaSet); ok {
				return templateWarnings(&o.(*appsv1.ReplicaSet).Spec.Template, &was.Spec.Template)
			}
			names := nameWarnings(o.GetName(), "Pod names and hostnames")
			return append(names, templateWarnings(&o.(*appsv1.ReplicaSet).Spec.Template, nil)...)
		},
		Resets:     statusReset,
		FieldNames: []string{"status.replicas"},
		Fields:     func(o Object) fields.Set { return replicaFields(o, o.(*appsv1.ReplicaSet).Status.Replicas) },
		Status: &Subresource{
			PrepareUpdate: func(o, old Object) { o.(*appsv1.ReplicaSet).Spec = old.(*appsv1.ReplicaSet).Spec },
			ValidateUpdate: func(o, _ Object) field.ErrorList {
				return validateReplicaSetStatus(&o.(*appsv1.ReplicaSet).Status)
			},
			Resets: onlySpecReset,
		},
		Scale: &ScaleAccess{
			Get: func(o Object) (*autoscalingv1.Scale, error) {
				r := o.(*appsv1.ReplicaSet)
				return newScale(o, r.Spec.Replicas, r.Status.Replicas, r.Spec.Selector)
			},
			Set: func(o Object, s *autoscalingv1.Scale) error {
				o.(*appsv1.ReplicaSet).Spec.Replicas = &s.Spec.Replicas
				return nil
			},
			ReplicasPath: []string{"spec", "replicas"},
		},
		Columns: append(columns(nameColumn,
			col("Desired", "integer", appsv1.ReplicaSetSpec{}.SwaggerDoc()["replicas"]),
			col("Current", "integer", appsv1.ReplicaSetStatus{}.SwaggerDoc()["replicas"]),
			col("Ready", "integer", appsv1.ReplicaSetStatus{}.SwaggerDoc()["readyReplicas"]),
			ageColumn), templateColumns...),
		Row: func(o Object, now time.Time) []any {
			r := o.(*appsv1.ReplicaSet)
			names, images := containerCells(r.Spec.Template.Spec.Containers)
			return []any{r.Name, int64(deref(r.Spec.Replicas)), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas),
				age(r.CreationTimestamp, now), names, images, metav1.FormatLabelSelector(r.Spec.Selector)}
		},
	}
}

func validateReplicaSet(s *appsv1.ReplicaSetSpec) field.ErrorList {
	errs := notNegative(specPath.Child("replicas"), deref(s.Replicas))
	errs = append(errs, notNegative(specPath.Child("minReadySeconds"), s.MinReadySeconds)...)
	return append(errs, validateSelected("replicaset", s.Selector, &s.Template)...)
}

func validateReplicaSetStatus(s *appsv1.ReplicaSetStatus) field.ErrorList {
	p := field.NewPath("status")
	errs := notNegative(p.Child("replicas"), s.Replicas)
	errs = append(errs, notNegative(p.Child("observedGeneration"), s.ObservedGeneration)...)
	const more = "cannot be greater than status.replicas"
	for _, n := range []struct {
		name  string
		value int32
	}{{"fullyLabeledReplicas", s.FullyLabeledReplicas}, {"readyReplicas", s.ReadyReplicas}, {"availableReplicas", s.AvailableReplicas}} {
		errs = append(errs, notNegative(p.Child(n.name), n.value)...)
		if n.value > s.Replicas {
			errs = append(errs, field.Invalid(p.Child(n.name), n.value, more))
		}
	}
	if s.AvailableReplicas > s.ReadyReplicas {
		errs = append(errs, field.Invalid(p.Child("availableReplicas"), s.AvailableReplicas, "cannot be greater than readyReplicas"))
	}
	return errs
}
