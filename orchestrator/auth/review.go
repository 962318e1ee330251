package auth

import (
	"context"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"
)

// SubjectAccess answers whether the user that the review names may do what it asks.
func (a *Authorizer) SubjectAccess(ctx context.Context, r *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error) {
	errs := checkAttributes(field.NewPath("spec"), r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	if r.Spec.User == "" && len(r.Spec.Groups) == 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec.user"), r.Spec.User, "at least one of user or group must be specified"))
	}
	if err := invalid("SubjectAccessReview", errs); err != nil {
		return nil, err
	}
	extra := make(map[string][]string, len(r.Spec.Extra))
	for k, v := range r.Spec.Extra {
		extra[k] = v
	}
	u := &user.DefaultInfo{Name: r.Spec.User, UID: r.Spec.UID, Groups: r.Spec.Groups, Extra: extra}
	out := r.DeepCopy()
	out.Status = a.status(ctx, attributes(u, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes))
	return out, nil
}

// LocalSubjectAccess is SubjectAccess within one namespace.
func (a *Authorizer) LocalSubjectAccess(ctx context.Context, namespace string, r *authorizationv1.LocalSubjectAccessReview) (*authorizationv1.LocalSubjectAccessReview, error) {
	if r.Spec.ResourceAttributes != nil && r.Spec.ResourceAttributes.Namespace != namespace {
		return nil, invalid("LocalSubjectAccessReview", field.ErrorList{field.Invalid(field.NewPath("spec.resourceAttributes.namespace"), r.Spec.ResourceAttributes.Namespace, "must match metadata.namespace")})
	}
	if r.Spec.NonResourceAttributes != nil {
		return nil, invalid("LocalSubjectAccessReview", field.ErrorList{field.Invalid(field.NewPath("spec.nonResourceAttributes"), r.Spec.NonResourceAttributes, "disallowed on this kind of request")})
	}
	answer, err := a.SubjectAccess(ctx, &authorizationv1.SubjectAccessReview{Spec: r.Spec})
	if err != nil {
		return nil, err
	}
	out := r.DeepCopy()
	out.Status = answer.Status
	return out, nil
}

// SelfSubjectAccess answers whether the caller may do what it asks.
func (a *Authorizer) SelfSubjectAccess(ctx context.Context, u user.Info, r *authorizationv1.SelfSubjectAccessReview) (*authorizationv1.SelfSubjectAccessReview, error) {
	if err := invalid("SelfSubjectAccessReview", checkAttributes(field.NewPath("spec"), r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)); err != nil {
		return nil, err
	}
	out := r.DeepCopy()
	out.Status = a.status(ctx, attributes(u, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes))
	return out, nil
}

// SelfSubjectRules lists what the caller may do in a namespace.
func (a *Authorizer) SelfSubjectRules(u user.Info, r *authorizationv1.SelfSubjectRulesReview) (*authorizationv1.SelfSubjectRulesReview, error) {
	if r.Spec.Namespace == "" {
		return nil, apierrors.NewBadRequest("no namespace on request")
	}
	out := r.DeepCopy()
	out.Status = authorizationv1.SubjectRulesReviewStatus{ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{}}
	for _, rule := range a.Rules(u, r.Spec.Namespace) {
		if len(rule.NonResourceURLs) > 0 {
			out.Status.NonResourceRules = append(out.Status.NonResourceRules, authorizationv1.NonResourceRule{Verbs: rule.Verbs, NonResourceURLs: rule.NonResourceURLs})
		}
		if len(rule.Resources) > 0 {
			out.Status.ResourceRules = append(out.Status.ResourceRules, resourceRule(rule))
		}
	}
	return out, nil
}

func resourceRule(r rbacv1.PolicyRule) authorizationv1.ResourceRule {
	return authorizationv1.ResourceRule{Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames}
}

// SelfSubject answers who the caller is.
func SelfSubject(u user.Info, r *authenticationv1.SelfSubjectReview) *authenticationv1.SelfSubjectReview {
	out := r.DeepCopy()
	out.CreationTimestamp = metav1.Now()
	out.Status.UserInfo = UserInfo(u)
	return out
}

// Review answers whose token it is. A token that is not good is an answer, not an error.
func (a *Authenticator) Review(ctx context.Context, r *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error) {
	if r.Spec.Token == "" {
		return nil, apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	out := r.DeepCopy()
	u, audiences, err := a.Token(ctx, r.Spec.Token, r.Spec.Audiences)
	if err != nil {
		out.Status = authenticationv1.TokenReviewStatus{Error: err.Error()}
		return out, nil
	}
	out.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: UserInfo(u), Audiences: audiences}
	return out, nil
}

// UserInfo is a user as the API shows it.
func UserInfo(u user.Info) authenticationv1.UserInfo {
	out := authenticationv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: slices.Clone(u.GetGroups())}
	for k, v := range u.GetExtra() {
		if out.Extra == nil {
			out.Extra = map[string]authenticationv1.ExtraValue{}
		}
		out.Extra[k] = v
	}
	return out
}

func (a *Authorizer) status(ctx context.Context, at Attributes) authorizationv1.SubjectAccessReviewStatus {
	d, reason := a.Authorize(ctx, at)
	return authorizationv1.SubjectAccessReviewStatus{Allowed: d == Allow, Denied: d == Deny, Reason: reason}
}

func attributes(u user.Info, r *authorizationv1.ResourceAttributes, n *authorizationv1.NonResourceAttributes) Attributes {
	if r == nil {
		return Attributes{User: u, Verb: n.Verb, Path: n.Path}
	}
	at := Attributes{
		User: u, Verb: r.Verb, Group: r.Group, Version: r.Version, Resource: r.Resource, Subresource: r.Subresource,
		Namespace: r.Namespace, Name: r.Name,
	}
	if r.FieldSelector != nil {
		at.FieldSelector = r.FieldSelector.RawSelector
	}
	if at.Resource == "" {
		at.Resource = "*" // nothing was named: allowed only to whom everything is
	}
	return at
}

func checkAttributes(path *field.Path, r *authorizationv1.ResourceAttributes, n *authorizationv1.NonResourceAttributes) field.ErrorList {
	if (r == nil) == (n == nil) {
		return field.ErrorList{field.Invalid(path.Child("resourceAttributes"), r, "exactly one of nonResourceAttributes or resourceAttributes must be specified")}
	}
	return nil
}

func invalid(kind string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: authorizationv1.GroupName, Kind: kind}, "", errs)
}
