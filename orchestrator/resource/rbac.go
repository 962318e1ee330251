package resource

import (
	"fmt"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func rbacKind(kind, resource, singular string, namespaced bool) *Kind {
	return &Kind{
		GroupVersionKind: rbacv1.SchemeGroupVersion.WithKind(kind),
		Resource:         resource,
		Singular:         singular,
		Namespaced:       namespaced,
		CreateOnUpdate:   true,
		ValidateName:     path.ValidatePathSegmentName,
	}
}

var createdColumn = col("Created At", "date", docCreated)

func created(o Object) string { return o.GetCreationTimestamp().UTC().Format(time.RFC3339) }

func roleKind() *Kind {
	k := rbacKind("Role", "roles", "role", true)
	k.New = func() Object { return &rbacv1.Role{} }
	k.NewList = func() runtime.Object { return &rbacv1.RoleList{} }
	k.ValidateCreate = func(o Object) field.ErrorList { return validateRules(o.(*rbacv1.Role).Rules, true) }
	k.ValidateUpdate = func(o, _ Object) field.ErrorList { return k.ValidateCreate(o) }
	k.Columns = columns(nameColumn, createdColumn)
	k.Row = func(o Object, _ time.Time) []any { return []any{o.GetName(), created(o)} }
	return k
}

func clusterRoleKind() *Kind {
	k := rbacKind("ClusterRole", "clusterroles", "clusterrole", false)
	k.New = func() Object { return &rbacv1.ClusterRole{} }
	k.NewList = func() runtime.Object { return &rbacv1.ClusterRoleList{} }
	k.ValidateCreate = validateClusterRole
	k.ValidateUpdate = func(o, _ Object) field.ErrorList { return validateClusterRole(o) }
	k.Columns = columns(nameColumn, createdColumn)
	k.Row = func(o Object, _ time.Time) []any { return []any{o.GetName(), created(o)} }
	return k
}

func roleBindingKind() *Kind {
	k := rbacKind("RoleBinding", "rolebindings", "rolebinding", true)
	k.New = func() Object { return &rbacv1.RoleBinding{} }
	k.NewList = func() runtime.Object { return &rbacv1.RoleBindingList{} }
	k.Default = func(o Object) {
		b := o.(*rbacv1.RoleBinding)
		defaultBinding(&b.RoleRef, b.Subjects)
	}
	k.ValidateCreate = func(o Object) field.ErrorList {
		b := o.(*rbacv1.RoleBinding)
		return append(validateRoleRef(b.RoleRef, "Role", "ClusterRole"), validateSubjects(b.Subjects, true)...)
	}
	k.ValidateUpdate = func(o, old Object) field.ErrorList {
		return append(k.ValidateCreate(o), sameRole(o.(*rbacv1.RoleBinding).RoleRef, old.(*rbacv1.RoleBinding).RoleRef)...)
	}
	k.Columns = bindingColumns
	k.Row = func(o Object, now time.Time) []any {
		b := o.(*rbacv1.RoleBinding)
		return bindingRow(o, b.RoleRef, b.Subjects, now)
	}
	return k
}

func clusterRoleBindingKind() *Kind {
	k := rbacKind("ClusterRoleBinding", "clusterrolebindings", "clusterrolebinding", false)
	k.New = func() Object { return &rbacv1.ClusterRoleBinding{} }
	k.NewList = func() runtime.Object { return &rbacv1.ClusterRoleBindingList{} }
	k.Default = func(o Object) {
		b := o.(*rbacv1.ClusterRoleBinding)
		defaultBinding(&b.RoleRef, b.Subjects)
	}
	k.ValidateCreate = func(o Object) field.ErrorList {
		b := o.(*rbacv1.ClusterRoleBinding)
		return append(validateRoleRef(b.RoleRef, "ClusterRole"), validateSubjects(b.Subjects, false)...)
	}
	k.ValidateUpdate = func(o, old Object) field.ErrorList {
		return append(k.ValidateCreate(o), sameRole(o.(*rbacv1.ClusterRoleBinding).RoleRef, old.(*rbacv1.ClusterRoleBinding).RoleRef)...)
	}
	k.Columns = bindingColumns
	k.Row = func(o Object, now time.Time) []any {
		b := o.(*rbacv1.ClusterRoleBinding)
		return bindingRow(o, b.RoleRef, b.Subjects, now)
	}
	return k
}

func defaultBinding(ref *rbacv1.RoleRef, subjects []rbacv1.Subject) {
	defaultString(&ref.APIGroup, rbacv1.GroupName)
	for i := range subjects {
		if s := &subjects[i]; s.Kind == rbacv1.UserKind || s.Kind == rbacv1.GroupKind {
			defaultString(&s.APIGroup, rbacv1.GroupName)
		}
	}
}

func validateClusterRole(o Object) field.ErrorList {
	r := o.(*rbacv1.ClusterRole)
	errs := validateRules(r.Rules, false)
	if r.AggregationRule == nil {
		return errs
	}
	p := field.NewPath("aggregationRule", "clusterRoleSelectors")
	if len(r.AggregationRule.ClusterRoleSelectors) == 0 {
		return append(errs, field.Required(p, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
	}
	for i := range r.AggregationRule.ClusterRoleSelectors {
		errs = append(errs, metav1validation.ValidateLabelSelector(&r.AggregationRule.ClusterRoleSelectors[i], metav1validation.LabelSelectorValidationOptions{}, p.Index(i))...)
	}
	return errs
}

func validateRules(rules []rbacv1.PolicyRule, namespaced bool) field.ErrorList {
	var errs field.ErrorList
	for i := range rules {
		r, p := &rules[i], field.NewPath("rules").Index(i)
		if len(r.Verbs) == 0 {
			errs = append(errs, field.Required(p.Child("verbs"), "verbs must contain at least one value"))
		}
		if len(r.NonResourceURLs) > 0 {
			if namespaced {
				errs = append(errs, field.Invalid(p.Child("nonResourceURLs"), r.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs"))
			}
			if len(r.APIGroups) > 0 || len(r.Resources) > 0 || len(r.ResourceNames) > 0 {
				errs = append(errs, field.Invalid(p.Child("nonResourceURLs"), r.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs"))
			}
			continue
		}
		if len(r.APIGroups) == 0 {
			errs = append(errs, field.Required(p.Child("apiGroups"), "resource rules must supply at least one api group"))
		}
		if len(r.Resources) == 0 {
			errs = append(errs, field.Required(p.Child("resources"), "resource rules must supply at least one resource"))
		}
	}
	return errs
}

func validateRoleRef(ref rbacv1.RoleRef, kinds ...string) field.ErrorList {
	p := field.NewPath("roleRef")
	var errs field.ErrorList
	if ref.APIGroup != rbacv1.GroupName {
		errs = append(errs, field.NotSupported(p.Child("apiGroup"), ref.APIGroup, []string{rbacv1.GroupName}))
	}
	supported := false
	for _, k := range kinds {
		supported = supported || ref.Kind == k
	}
	if !supported {
		errs = append(errs, field.NotSupported(p.Child("kind"), ref.Kind, kinds))
	}
	if ref.Name == "" {
		return append(errs, field.Required(p.Child("name"), ""))
	}
	return append(errs, invalid(p.Child("name"), ref.Name, path.ValidatePathSegmentName(ref.Name, false))...)
}

func validateSubjects(subjects []rbacv1.Subject, namespaced bool) field.ErrorList {
	var errs field.ErrorList
	for i, s := range subjects {
		p := field.NewPath("subjects").Index(i)
		errs = append(errs, required(p.Child("name"), s.Name)...)
		switch s.Kind {
		case rbacv1.ServiceAccountKind:
			if s.Name != "" {
				errs = append(errs, dnsSubdomain(p.Child("name"), s.Name)...)
			}
			if s.APIGroup != "" {
				errs = append(errs, field.NotSupported(p.Child("apiGroup"), s.APIGroup, []string{""}))
			}
			if !namespaced {
				errs = append(errs, required(p.Child("namespace"), s.Namespace)...)
			}
		case rbacv1.UserKind, rbacv1.GroupKind:
			if s.APIGroup != rbacv1.GroupName {
				errs = append(errs, field.NotSupported(p.Child("apiGroup"), s.APIGroup, []string{rbacv1.GroupName}))
			}
		default:
			errs = append(errs, field.NotSupported(p.Child("kind"), s.Kind, []string{rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind}))
		}
	}
	return errs
}

func sameRole(ref, old rbacv1.RoleRef) field.ErrorList {
	if ref == old {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("roleRef"), ref, "cannot change roleRef")}
}

var bindingColumns = columns(nameColumn,
	col("Role", "string", rbacv1.RoleBinding{}.SwaggerDoc()["roleRef"]),
	ageColumn,
	wide("Users", "string", "Users in the roleBinding"),
	wide("Groups", "string", "Groups in the roleBinding"),
	wide("ServiceAccounts", "string", "ServiceAccounts in the roleBinding"),
)

func bindingRow(o Object, ref rbacv1.RoleRef, subjects []rbacv1.Subject, now time.Time) []any {
	var users, groups, accounts []string
	for _, s := range subjects {
		switch s.Kind {
		case rbacv1.UserKind:
			users = append(users, s.Name)
		case rbacv1.GroupKind:
			groups = append(groups, s.Name)
		case rbacv1.ServiceAccountKind:
			accounts = append(accounts, s.Namespace+"/"+s.Name)
		}
	}
	return []any{o.GetName(), fmt.Sprintf("%s/%s", ref.Kind, ref.Name), age(o.GetCreationTimestamp(), now),
		strings.Join(users, ", "), strings.Join(groups, ", "), strings.Join(accounts, ", ")}
}
