package resource

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The fields of a pod that its containers can read, by where they can.
var (
	envFields = []string{"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName",
		"spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"}
	volumeFields = []string{"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"}
	// downwardFields are all fields that a reference may name anywhere.
	downwardFields = slices.Concat(envFields, []string{"metadata.annotations", "metadata.labels",
		"spec.restartPolicy", "spec.schedulerName", "status.phase"})

	containerFields = []string{"limits.cpu", "limits.ephemeral-storage", "limits.memory",
		"requests.cpu", "requests.ephemeral-storage", "requests.memory"}
)

func (s *podScope) validateEnv(env []corev1.EnvVar, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range env {
		e, p := &env[i], path.Index(i)
		if e.Name == "" {
			errs = append(errs, field.Required(p.Child("name"), ""))
		} else {
			errs = append(errs, invalid(p.Child("name"), e.Name, validation.IsRelaxedEnvVarName(e.Name))...)
		}
		if e.ValueFrom != nil {
			errs = append(errs, s.validateEnvSource(e, p.Child("valueFrom"))...)
		}
	}
	return errs
}

func (s *podScope) validateEnvSource(e *corev1.EnvVar, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	from, sources := e.ValueFrom, 0
	if f := from.FieldRef; f != nil {
		sources++
		errs = append(errs, validateFieldRef(f, envFields, p.Child("fieldRef"))...)
	}
	if f := from.ResourceFieldRef; f != nil {
		sources++
		errs = append(errs, validateResourceFieldRef(f, p.Child("resourceFieldRef"), false)...)
	}
	if f := from.ConfigMapKeyRef; f != nil {
		sources++
		errs = append(errs, validateKeyRef(f.Name, f.Key, p.Child("configMapKeyRef"))...)
	}
	if f := from.SecretKeyRef; f != nil {
		sources++
		errs = append(errs, validateKeyRef(f.Name, f.Key, p.Child("secretKeyRef"))...)
	}
	if from.FileKeyRef != nil {
		sources++
		errs = append(errs, field.Forbidden(p.Child("fileKeyRef"), "environment files are not supported"))
	}
	switch {
	case sources == 0:
		errs = append(errs, field.Invalid(p, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"))
	case e.Value != "":
		errs = append(errs, field.Invalid(p, "", "may not be specified when `value` is not empty"))
	case sources > 1:
		errs = append(errs, field.Invalid(p, "", "may not have more than one field specified at a time"))
	}
	return errs
}

func validateKeyRef(name, key string, p *field.Path) field.ErrorList {
	errs := required(p.Child("name"), name)
	if key == "" {
		return append(errs, field.Required(p.Child("key"), ""))
	}
	return append(errs, invalid(p.Child("key"), key, validation.IsConfigMapKey(key))...)
}

// validateFieldRef checks a reference to a field of the pod, which may have a
// subscript: metadata.labels['app'].
func validateFieldRef(f *corev1.ObjectFieldSelector, allowed []string, p *field.Path) field.ErrorList {
	if f.APIVersion == "" {
		return field.ErrorList{field.Required(p.Child("apiVersion"), "")}
	}
	if f.FieldPath == "" {
		return field.ErrorList{field.Required(p.Child("fieldPath"), "")}
	}
	path := p.Child("fieldPath")
	base, key, subscripted := strings.Cut(strings.TrimSuffix(f.FieldPath, "']"), "['")
	if !slices.Contains(downwardFields, base) || f.APIVersion != "v1" {
		return field.ErrorList{field.Invalid(path, f.FieldPath, fmt.Sprintf("error converting fieldPath: field label not supported: %s", base))}
	}
	if !subscripted {
		if slices.Contains(allowed, base) {
			return nil
		}
		return field.ErrorList{field.NotSupported(path, f.FieldPath, allowed)}
	}
	switch base {
	case "metadata.annotations":
		return invalid(path, key, validation.IsQualifiedName(strings.ToLower(key)))
	case "metadata.labels":
		return invalid(path, key, validation.IsQualifiedName(key))
	}
	return field.ErrorList{field.Invalid(path, base, "does not support subscript")}
}

// validateResourceFieldRef checks a reference to a container's resources. In a
// volume it must say whose.
func validateResourceFieldRef(f *corev1.ResourceFieldSelector, p *field.Path, volume bool) field.ErrorList {
	if volume && f.ContainerName == "" {
		return field.ErrorList{field.Required(p.Child("containerName"), "")}
	}
	if f.Resource == "" {
		return field.ErrorList{field.Required(p.Child("resource"), "")}
	}
	if !slices.Contains(containerFields, f.Resource) && !strings.HasPrefix(f.Resource, "limits.hugepages-") && !strings.HasPrefix(f.Resource, "requests.hugepages-") {
		return field.ErrorList{field.NotSupported(p.Child("resource"), f.Resource, containerFields)}
	}
	return validateDivisor(f, p)
}

func validateDivisor(f *corev1.ResourceFieldSelector, p *field.Path) field.ErrorList {
	if f.Divisor.IsZero() {
		return nil
	}
	allowed := []string{"1m", "1"}
	what := "only divisor's values 1m and 1 are supported with the cpu resource"
	if !strings.HasSuffix(f.Resource, ".cpu") {
		allowed = []string{"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}
		what = "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the " + f.Resource[strings.IndexByte(f.Resource, '.')+1:] + " resource"
	}
	if slices.Contains(allowed, f.Divisor.String()) {
		return nil
	}
	return field.ErrorList{field.Invalid(p.Child("divisor"), f.Resource, what)}
}

func validateEnvFrom(sources []corev1.EnvFromSource, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range sources {
		f, p := &sources[i], path.Index(i)
		if f.Prefix != "" {
			errs = append(errs, invalid(p.Child("prefix"), f.Prefix, validation.IsRelaxedEnvVarName(f.Prefix))...)
		}
		switch {
		case f.ConfigMapRef != nil && f.SecretRef != nil:
			errs = append(errs, field.Invalid(p, "", "may not have more than one field specified at a time"))
		case f.ConfigMapRef != nil:
			errs = append(errs, required(p.Child("configMapRef", "name"), f.ConfigMapRef.Name)...)
		case f.SecretRef != nil:
			errs = append(errs, required(p.Child("secretRef", "name"), f.SecretRef.Name)...)
		default:
			errs = append(errs, field.Invalid(p, "", "must specify one of: `configMapRef` or `secretRef`"))
		}
	}
	return errs
}
