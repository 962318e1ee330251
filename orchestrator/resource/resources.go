package resource

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	resourcehelper "k8s.io/component-helpers/resource"
)

const (
	belowZero = "must be greater than or equal to 0"
)

var containerResources = sets.New(corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage)

// native says whether a resource is Kubernetes' own: unprefixed, or kubernetes.io's.
func native(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

func hugepages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// overcommittable resources may have a limit above the request.
func overcommittable(name corev1.ResourceName) bool { return native(name) && !hugepages(name) }

// extended resources are those of others, counted in whole numbers.
func extended(name corev1.ResourceName) bool {
	if native(name) || strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix) {
		return false
	}
	return len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+string(name))) == 0
}

// validateResources checks a container's requests and limits, or a pod's.
func validateResources(r *corev1.ResourceRequirements, claims sets.Set[string], path *field.Path, known func(corev1.ResourceName) bool) field.ErrorList {
	var errs field.ErrorList
	if len(r.Limits) == 0 && len(r.Requests) == 0 && len(r.Claims) == 0 {
		return nil
	}
	cpuOrMemory := false
	for _, name := range slices.Sorted(maps.Keys(r.Limits)) {
		q, p := r.Limits[name], path.Child("limits").Key(string(name))
		errs = append(errs, validateResourceName(name, p, known)...)
		errs = append(errs, validateQuantity(name, q, p)...)
		cpuOrMemory = cpuOrMemory || name == corev1.ResourceCPU || name == corev1.ResourceMemory
	}
	for _, name := range slices.Sorted(maps.Keys(r.Requests)) {
		q, p := r.Requests[name], path.Child("requests").Key(string(name))
		errs = append(errs, validateResourceName(name, p, known)...)
		errs = append(errs, validateQuantity(name, q, p)...)
		cpuOrMemory = cpuOrMemory || name == corev1.ResourceCPU || name == corev1.ResourceMemory
		errs = append(errs, validateRequest(name, q, r.Limits, path)...)
	}
	for name := range r.Limits {
		cpuOrMemory = cpuOrMemory || !hugepages(name)
	}
	if !cpuOrMemory && anyHugepages(r) {
		errs = append(errs, field.Forbidden(path, "HugePages require cpu or memory"))
	}
	return append(errs, validateResourceClaims(r.Claims, claims, path.Child("claims"))...)
}

func anyHugepages(r *corev1.ResourceRequirements) bool {
	for name := range r.Limits {
		if hugepages(name) {
			return true
		}
	}
	for name := range r.Requests {
		if hugepages(name) {
			return true
		}
	}
	return false
}

// validateRequest checks a request against the limit of the same name.
func validateRequest(name corev1.ResourceName, q resource.Quantity, limits corev1.ResourceList, path *field.Path) field.ErrorList {
	limit, limited := limits[name]
	switch {
	case limited && q.Cmp(limit) > 0:
		return field.ErrorList{field.Invalid(path.Child("requests"), q.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", name, limit.String()))}
	case limited && q.Cmp(limit) != 0 && !overcommittable(name):
		return field.ErrorList{field.Invalid(path.Child("requests"), q.String(), fmt.Sprintf("must be equal to %s limit of %s", name, limit.String()))}
	case !limited && !overcommittable(name):
		return field.ErrorList{field.Required(path.Child("limits"), "Limit must be set for non overcommitable resources")}
	}
	return nil
}

func validateResourceClaims(uses []corev1.ResourceClaim, claims sets.Set[string], path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[corev1.ResourceClaim]()
	for i, c := range uses {
		switch {
		case c.Name == "":
			errs = append(errs, field.Required(path.Index(i), ""))
		case seen.Has(c):
			errs = append(errs, field.Duplicate(path.Index(i), c.Name))
		case claims != nil && !claims.Has(c.Name):
			errs = append(errs, field.NotFound(path.Index(i), c.Name))
		}
		seen.Insert(c)
	}
	return errs
}

// forContainer are the resources that a container may ask for.
func forContainer(name corev1.ResourceName) bool {
	return containerResources.Has(name) || hugepages(name)
}

// forPod are the resources that a pod as a whole may ask for.
func forPod(name corev1.ResourceName) bool { return resourcehelper.IsSupportedPodLevelResource(name) }

func validateResourceName(name corev1.ResourceName, path *field.Path, known func(corev1.ResourceName) bool) field.ErrorList {
	var errs field.ErrorList
	for _, m := range validation.IsQualifiedName(string(name)) {
		errs = append(errs, field.Invalid(path, name, m))
	}
	if len(errs) > 0 || known == nil {
		return errs
	}
	if !strings.Contains(string(name), "/") {
		if !known(name) {
			errs = append(errs, field.Invalid(path, name, "must be a standard resource for containers"))
		}
	} else if !native(name) && !extended(name) {
		errs = append(errs, field.Invalid(path, name, "doesn't follow extended resource name standard"))
	}
	return errs
}

// validateQuantity: no resource is negative, and others' are whole.
func validateQuantity(name corev1.ResourceName, q resource.Quantity, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if q.Sign() < 0 {
		errs = append(errs, field.Invalid(path, q.String(), belowZero))
	}
	if extended(name) && q.MilliValue()%1000 != 0 {
		errs = append(errs, field.Invalid(path, q.String(), "must be an integer"))
	}
	if hugepages(name) {
		size, err := resource.ParseQuantity(strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix))
		if err == nil && size.Value() > 0 && q.Value()%size.Value() != 0 {
			errs = append(errs, field.Invalid(path, q.String(), fmt.Sprintf("must be a multiple of %s", size.String())))
		}
	}
	return errs
}
