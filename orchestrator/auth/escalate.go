package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/component-helpers/auth/rbac/validation"

	"github.com/xebec-mesh/xebec/orchestrator/admission"
)

// Escalation is the admission plugin that lets nobody grant what they do not
// have: a role may be written only by who has all its rules or may "escalate", a
// binding only by who has all rules of its role or may "bind" it.
// https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping
type Escalation struct{ Authorizer *Authorizer }

// Name is what errors call the plugin.
func (Escalation) Name() string { return "PreventEscalation" }

// Validate checks writes of the four RBAC kinds.
func (e Escalation) Validate(ctx context.Context, a *admission.Attributes) error {
	if a.Kind.Group != rbacv1.GroupName || a.User == nil || hasGroup(a.User, GroupMasters) {
		return nil
	}
	if a.Operation != admissionv1.Create && a.Operation != admissionv1.Update {
		return nil
	}
	if a.OldObject != nil && equality.Semantic.DeepEqual(a.Object, a.OldObject) {
		return nil
	}
	granted, ref, err := e.granted(a)
	if len(granted) == 0 && ref == nil || e.exempt(ctx, a, ref) {
		return nil
	}
	if err != nil {
		return err
	}
	held := e.Authorizer.Rules(a.User, a.Namespace)
	if ok, missing := validation.Covers(held, granted); !ok {
		return apierrors.NewForbidden(a.Kind.GroupResource(), a.Name, errors.New(escalationText(a, missing)))
	}
	return nil
}

// granted is what a write would give away: a role's rules, or those of the role
// that a binding refers to, with NotFound if there is none.
func (e Escalation) granted(a *admission.Attributes) (rules []rbacv1.PolicyRule, ref *rbacv1.RoleRef, err error) {
	found := true
	switch o := a.Object.(type) {
	case *rbacv1.Role:
		return o.Rules, nil, nil
	case *rbacv1.ClusterRole:
		if o.AggregationRule != nil {
			return append(append([]rbacv1.PolicyRule(nil), o.Rules...), everything...), nil, nil // whatever any role may come to hold
		}
		return o.Rules, nil, nil
	case *rbacv1.RoleBinding:
		ref = &o.RoleRef
		rules, found = e.Authorizer.rulesOf(o.RoleRef, o.Namespace)
	case *rbacv1.ClusterRoleBinding:
		ref = &o.RoleRef
		rules, found = e.Authorizer.clusterRole(o.RoleRef.Name)
	}
	if !found {
		err = apierrors.NewNotFound(rbacv1.Resource(roleResource(ref)), ref.Name)
	}
	return rules, ref, err
}

func roleResource(ref *rbacv1.RoleRef) string {
	if ref.Kind == "ClusterRole" {
		return "clusterroles"
	}
	return "roles"
}

// exempt says whether the user may escalate the role, or bind the role of a binding.
func (e Escalation) exempt(ctx context.Context, a *admission.Attributes, ref *rbacv1.RoleRef) bool {
	at := Attributes{User: a.User, Verb: "escalate", Group: rbacv1.GroupName, Version: "v1", Resource: a.Kind.Resource, Namespace: a.Namespace, Name: a.Name}
	if ref != nil {
		at.Verb, at.Name, at.Resource = "bind", ref.Name, roleResource(ref)
	}
	d, _ := e.Authorizer.Authorize(ctx, at)
	return d == Allow
}

func escalationText(a *admission.Attributes, missing []rbacv1.PolicyRule) string {
	lines := make([]string, 0, len(missing))
	for _, r := range missing {
		lines = append(lines, compact(r))
	}
	return fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s", a.User.GetName(), a.User.GetGroups(), strings.Join(lines, "\n"))
}

// compact prints a rule on one line, leaving out what is empty.
func compact(r rbacv1.PolicyRule) string {
	var parts []string
	for _, p := range []struct {
		name   string
		values []string
	}{
		{"APIGroups", r.APIGroups}, {"Resources", r.Resources}, {"ResourceNames", r.ResourceNames},
		{"NonResourceURLs", r.NonResourceURLs}, {"Verbs", r.Verbs},
	} {
		if len(p.values) > 0 {
			parts = append(parts, fmt.Sprintf("%s:%q", p.name, p.values))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
