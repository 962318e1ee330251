package resource

import (
	"math"
	"slices"
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// This file holds the checks of single values that several kinds share.

// invalid makes one error of each message of the validation library.
func invalid[T any](path *field.Path, value T, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(path, value, m))
	}
	return errs
}

// oneOf checks an enumeration; the empty string is missing.
func oneOf[T ~string](path *field.Path, value T, allowed ...T) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return oneOfOrNone(path, value, allowed...)
}

// oneOfOrNone checks an enumeration that may be left out.
func oneOfOrNone[T ~string](path *field.Path, value T, allowed ...T) field.ErrorList {
	if value == "" || slices.Contains(allowed, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(path, value, allowed)}
}

func required(path *field.Path, value string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return nil
}

// notNegative checks a number that counts.
func notNegative[T int32 | int64](path *field.Path, value T) field.ErrorList {
	if value >= 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(path, value, apivalidation.IsNegativeErrorMsg)}
}

func dnsLabel(path *field.Path, value string) field.ErrorList {
	return invalid(path, value, validation.IsDNS1123Label(value))
}

func dnsSubdomain(path *field.Path, value string) field.ErrorList {
	return invalid(path, value, validation.IsDNS1123Subdomain(value))
}

// portOrName checks a reference to a port.
func portOrName(path *field.Path, port intstr.IntOrString) field.ErrorList {
	if port.Type == intstr.Int {
		return invalid(path, port.IntValue(), validation.IsValidPortNum(port.IntValue()))
	}
	return invalid(path, port.StrVal, validation.IsValidPortName(port.StrVal))
}

// immutable says that a field may not change. Both values are compared deeply.
func immutable(path *field.Path, value, old any) field.ErrorList {
	return apivalidation.ValidateImmutableField(value, old, path)
}

// descending checks a path that must stay below where it starts.
func descending(path *field.Path, value string) field.ErrorList {
	var errs field.ErrorList
	if strings.HasPrefix(value, "/") {
		errs = append(errs, field.Invalid(path, value, "must be a relative path"))
	}
	return append(errs, noBacksteps(path, value)...)
}

func noBacksteps(path *field.Path, value string) field.ErrorList {
	if slices.Contains(strings.Split(strings.ReplaceAll(value, `\`, "/"), "/"), "..") {
		return field.ErrorList{field.Invalid(path, value, "must not contain '..'")}
	}
	return nil
}

// notReserved checks a file's path in a volume whose names with ".." are the agent's own.
func notReserved(path *field.Path, value string) field.ErrorList {
	errs := descending(path, value)
	if strings.HasPrefix(value, "..") && !strings.HasPrefix(value, "../") && value != ".." {
		errs = append(errs, field.Invalid(path, value, "must not start with '..'"))
	}
	return errs
}

// checkFileMode checks the permissions of files in a volume.
func checkFileMode(path *field.Path, mode *int32) field.ErrorList {
	if mode != nil && (*mode < 0 || *mode > 0o777) {
		return field.ErrorList{field.Invalid(path, *mode, "must be a number between 0 and 0777 (octal), both inclusive")}
	}
	return nil
}

// deadline checks a time limit in seconds.
func deadline(path *field.Path, seconds *int64) field.ErrorList {
	if seconds != nil && (*seconds < 1 || *seconds > math.MaxInt32) {
		return field.ErrorList{field.Invalid(path, *seconds, validation.InclusiveRangeError(1, math.MaxInt32))}
	}
	return nil
}
