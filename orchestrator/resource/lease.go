package resource

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func leaseKind() *Kind {
	return &Kind{
		GroupVersionKind: coordinationv1.SchemeGroupVersion.WithKind("Lease"),
		Resource:         "leases",
		Singular:         "lease",
		Namespaced:       true,
		New:              func() Object { return &coordinationv1.Lease{} },
		NewList:          func() runtime.Object { return &coordinationv1.LeaseList{} },
		CreateOnUpdate:   true,
		Conditional:      true,
		ValidateCreate:   validateLease,
		ValidateUpdate:   func(o, _ Object) field.ErrorList { return validateLease(o) },

		Columns: columns(nameColumn,
			col("Holder", "string", coordinationv1.LeaseSpec{}.SwaggerDoc()["holderIdentity"]),
			ageColumn),
		Row: func(o Object, now time.Time) []any {
			l := o.(*coordinationv1.Lease)
			return []any{l.Name, deref(l.Spec.HolderIdentity), age(l.CreationTimestamp, now)}
		},
	}
}

func validateLease(o Object) field.ErrorList {
	s := o.(*coordinationv1.Lease).Spec
	var errs field.ErrorList
	if d := s.LeaseDurationSeconds; d != nil && *d <= 0 {
		errs = append(errs, field.Invalid(specPath.Child("leaseDurationSeconds"), *d, "must be greater than 0"))
	}
	if n := s.LeaseTransitions; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(specPath.Child("leaseTransitions"), *n, "must be greater than or equal to 0"))
	}
	return errs
}
