package resource

import (
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The kinds of this file are plain data that others give meaning to.

func podTemplateKind() *Kind {
	validate := func(o Object) field.ErrorList {
		return validateTemplate(&o.(*corev1.PodTemplate).Template, field.NewPath("template"))
	}
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("PodTemplate"),
		Resource:         "podtemplates",
		Singular:         "podtemplate",
		Namespaced:       true,
		New:              func() Object { return &corev1.PodTemplate{} },
		NewList:          func() runtime.Object { return &corev1.PodTemplateList{} },
		CreateOnUpdate:   true,
		Default:          func(o Object) { defaultPodSpec(&o.(*corev1.PodTemplate).Template.Spec) },
		PrepareCreate:    func(o Object) { o.SetGeneration(1) },
		PrepareUpdate: func(o, old Object) {
			countSpec(o, !equality.Semantic.DeepEqual(o.(*corev1.PodTemplate).Template, old.(*corev1.PodTemplate).Template))
		},
		ValidateCreate: validate,
		ValidateUpdate: func(o, _ Object) field.ErrorList { return validate(o) },
		Columns: columns(nameColumn,
			col("Containers", "string", "Names of each container in the template."),
			col("Images", "string", "Images referenced by each container in the template."),
			col("Pod Labels", "string", "The labels for the pod template.")),
		Row: func(o Object, _ time.Time) []any {
			t := &o.(*corev1.PodTemplate).Template
			names, images := containerCells(t.Spec.Containers)
			return []any{o.GetName(), names, images, labels.FormatLabels(t.Labels)}
		},
	}
}

func controllerRevisionKind() *Kind {
	return &Kind{
		GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("ControllerRevision"),
		Resource:         "controllerrevisions",
		Singular:         "controllerrevision",
		Namespaced:       true,
		New:              func() Object { return &appsv1.ControllerRevision{} },
		NewList:          func() runtime.Object { return &appsv1.ControllerRevisionList{} },
		ValidateCreate:   validateRevision,
		ValidateUpdate: func(o, old Object) field.ErrorList {
			was := old.(*appsv1.ControllerRevision)
			return append(validateRevision(o), immutable(field.NewPath("data"), o.(*appsv1.ControllerRevision).Data, was.Data)...)
		},
		Columns: columns(nameColumn,
			col("Controller", "string", "Controller of the object"),
			col("Revision", "string", appsv1.ControllerRevision{}.SwaggerDoc()["revision"]),
			ageColumn),
		Row: func(o Object, now time.Time) []any {
			owner := "<none>"
			if c := metav1.GetControllerOf(o); c != nil {
				owner = fmt.Sprintf("%s.%s/%s", strings.ToLower(c.Kind), c.APIVersion[:max(0, strings.IndexByte(c.APIVersion, '/'))], c.Name)
			}
			return []any{o.GetName(), owner, o.(*appsv1.ControllerRevision).Revision, age(o.GetCreationTimestamp(), now)}
		},
	}
}

func validateRevision(o Object) field.ErrorList {
	r := o.(*appsv1.ControllerRevision)
	var errs field.ErrorList
	if r.Data.Raw == nil && r.Data.Object == nil {
		errs = append(errs, field.Required(field.NewPath("data"), "data is mandatory"))
	}
	if r.Revision < 0 {
		errs = append(errs, field.Invalid(field.NewPath("revision"), r.Revision, belowZero))
	}
	return errs
}

const (
	highestPriority = int32(1000000000) // of users; those above are the system's
	systemPrefix    = "system-"
)

// SystemPriorities are the classes that always exist, and their values.
var SystemPriorities = map[string]int32{
	"system-node-critical":    2000001000,
	"system-cluster-critical": 2000000000,
}

func priorityClassKind() *Kind {
	return &Kind{
		GroupVersionKind: schedulingv1.SchemeGroupVersion.WithKind("PriorityClass"),
		Resource:         "priorityclasses",
		Singular:         "priorityclass",
		ShortNames:       []string{"pc"},
		New:              func() Object { return &schedulingv1.PriorityClass{} },
		NewList:          func() runtime.Object { return &schedulingv1.PriorityClassList{} },
		Default: func(o Object) {
			setDefault(&o.(*schedulingv1.PriorityClass).PreemptionPolicy, corev1.PreemptLowerPriority)
		},
		PrepareCreate: func(o Object) { o.SetGeneration(1) },
		ValidateCreate: func(o Object) field.ErrorList {
			return validatePriority(o.(*schedulingv1.PriorityClass))
		},
		ValidateUpdate: func(o, old Object) field.ErrorList {
			p, was := o.(*schedulingv1.PriorityClass), old.(*schedulingv1.PriorityClass)
			var errs field.ErrorList
			if p.Value != was.Value {
				errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
			}
			return append(errs, immutable(field.NewPath("preemptionPolicy"), p.PreemptionPolicy, was.PreemptionPolicy)...)
		},
		Columns: columns(nameColumn,
			col("Value", "integer", schedulingv1.PriorityClass{}.SwaggerDoc()["value"]),
			col("Global-Default", "boolean", schedulingv1.PriorityClass{}.SwaggerDoc()["globalDefault"]),
			ageColumn,
			col("PreemptionPolicy", "string", schedulingv1.PriorityClass{}.SwaggerDoc()["preemptionPolicy"])),
		Row: func(o Object, now time.Time) []any {
			p := o.(*schedulingv1.PriorityClass)
			return []any{p.Name, int64(p.Value), p.GlobalDefault, age(p.CreationTimestamp, now), string(deref(p.PreemptionPolicy))}
		},
	}
}

func validatePriority(p *schedulingv1.PriorityClass) field.ErrorList {
	var errs field.ErrorList
	if strings.HasPrefix(p.Name, systemPrefix) {
		if want, ok := SystemPriorities[p.Name]; !ok || p.Value != want || p.GlobalDefault {
			errs = append(errs, field.Forbidden(field.NewPath("metadata", "name"), "priority class names with '"+systemPrefix+"' prefix are reserved for system use only. error: "+p.Name+" is not a known name and value"))
		}
	} else if p.Value > highestPriority {
		errs = append(errs, field.Forbidden(field.NewPath("value"), fmt.Sprintf("maximum allowed value of a user defined priority is %v", highestPriority)))
	}
	if p.PreemptionPolicy != nil {
		errs = append(errs, oneOf(field.NewPath("preemptionPolicy"), *p.PreemptionPolicy, corev1.PreemptLowerPriority, corev1.PreemptNever)...)
	}
	return errs
}
