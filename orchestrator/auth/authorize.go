package auth

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// AuthorizerConfig is what decisions are made from.
type AuthorizerConfig struct {
	Client client.Interface // Roles, bindings, and the Pods of nodes
}

// Authorizer decides by RBAC, and for nodes by the pods that are bound to them.
// Bindings are indexed by subject, so that a check reads those of its user only.
type Authorizer struct {
	client          client.Interface
	clusterBindings client.View[*rbacv1.ClusterRoleBinding]
	bindings        client.View[*rbacv1.RoleBinding]
	clusterRoles    client.View[*rbacv1.ClusterRole]
	roles           client.View[*rbacv1.Role]
	pods            client.View[*corev1.Pod]
}

const bySubject = "subject"

// NewAuthorizer begins to follow roles and bindings.
func NewAuthorizer(cfg AuthorizerConfig) (*Authorizer, error) {
	if cfg.Client == nil {
		return nil, errors.New("create authorizer: Client is needed")
	}
	c, all := cfg.Client, client.ListOptions{}
	a := &Authorizer{
		client:          c,
		clusterBindings: client.For(c, client.ClusterRoleBindings).Informer(all),
		bindings:        client.For(c, client.RoleBindings).Informer(all),
		clusterRoles:    client.For(c, client.ClusterRoles).Informer(all),
		roles:           client.For(c, client.Roles).Informer(all),
		pods:            client.For(c, client.Pods).Informer(all),
	}
	a.clusterBindings.AddIndex(bySubject, func(o client.Object) []string {
		return subjectKeys("", o.(*rbacv1.ClusterRoleBinding).Subjects, "")
	})
	a.bindings.AddIndex(bySubject, func(o client.Object) []string {
		b := o.(*rbacv1.RoleBinding)
		return subjectKeys(b.Namespace, b.Subjects, b.Namespace)
	})
	a.pods.AddIndex(byNodeReference, nodeReferences)
	return a, nil
}

// Ready is closed over every informer: WaitSynced on the result before serving.
func (a *Authorizer) Ready(ctx context.Context) error {
	return client.WaitSynced(ctx, a.clusterBindings, a.bindings, a.clusterRoles, a.roles, a.pods)
}

// subjectKeys are the index values of a binding: "<scope>|u:name", "<scope>|g:name".
func subjectKeys(scope string, subjects []rbacv1.Subject, namespace string) []string {
	keys := make([]string, 0, len(subjects))
	for _, s := range subjects {
		switch s.Kind {
		case rbacv1.UserKind:
			keys = append(keys, scope+"|u:"+s.Name)
		case rbacv1.GroupKind:
			keys = append(keys, scope+"|g:"+s.Name)
		case rbacv1.ServiceAccountKind:
			ns := s.Namespace
			if ns == "" {
				ns = namespace
			}
			keys = append(keys, scope+"|u:"+prefixAccount+ns+":"+s.Name)
		}
	}
	return keys
}

// Authorize decides one request. The reason is for the user: it says what allowed
// or refused it, and may be empty.
func (a *Authorizer) Authorize(_ context.Context, at Attributes) (Decision, string) {
	if hasGroup(at.User, GroupMasters) {
		return Allow, ""
	}
	reason := ""
	if node, ok := nodeName(at.User); ok {
		var d Decision
		if d, reason = a.authorizeNode(node, &at); d != NoOpinion {
			return d, reason
		}
	}
	allowed := false
	a.visit(at.User, at.Namespace, func(binding client.Object, role string, rules []rbacv1.PolicyRule) bool {
		if allowed = rulesAllow(rules, &at); allowed {
			reason = fmt.Sprintf("RBAC: allowed by %s %q of %s", kindOf(binding), bindingName(binding), role)
		}
		return !allowed
	})
	if allowed {
		return Allow, reason
	}
	return NoOpinion, reason
}

func bindingName(b client.Object) string {
	if b.GetNamespace() == "" {
		return b.GetName()
	}
	return b.GetName() + "/" + b.GetNamespace()
}

// visit calls f with every set of rules that a user has in a namespace (the
// cluster's only, if it is ""), until f returns false.
func (a *Authorizer) visit(u user.Info, namespace string, f func(binding client.Object, role string, rules []rbacv1.PolicyRule) bool) {
	cluster := func(key string) bool {
		for _, b := range a.clusterBindings.ByIndex(bySubject, "|"+key) {
			if rules, ok := a.clusterRole(b.RoleRef.Name); ok && !f(b, "ClusterRole "+b.RoleRef.Name, rules) {
				return false
			}
		}
		return true
	}
	inside := func(key string) bool {
		for _, b := range a.bindings.ByIndex(bySubject, namespace+"|"+key) {
			if rules, ok := a.rulesOf(b.RoleRef, namespace); ok && !f(b, b.RoleRef.Kind+" "+b.RoleRef.Name, rules) {
				return false
			}
		}
		return true
	}
	each := func(visit func(key string) bool) bool {
		if !visit("u:" + u.GetName()) {
			return false
		}
		for _, g := range u.GetGroups() {
			if !visit("g:" + g) {
				return false
			}
		}
		return true
	}
	if each(cluster) && namespace != "" {
		each(inside)
	}
}

func (a *Authorizer) clusterRole(name string) ([]rbacv1.PolicyRule, bool) {
	role, ok := a.clusterRoles.Get("", name)
	if !ok {
		return nil, false
	}
	return role.Rules, true
}

func (a *Authorizer) rulesOf(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, bool) {
	if ref.Kind == "ClusterRole" {
		return a.clusterRole(ref.Name)
	}
	role, ok := a.roles.Get(namespace, ref.Name)
	if !ok {
		return nil, false
	}
	return role.Rules, true
}

// Rules are all that a user may do in a namespace.
func (a *Authorizer) Rules(u user.Info, namespace string) []rbacv1.PolicyRule {
	var all []rbacv1.PolicyRule
	if hasGroup(u, GroupMasters) {
		all = append(all, everything...)
	}
	a.visit(u, namespace, func(_ client.Object, _ string, rules []rbacv1.PolicyRule) bool {
		all = append(all, rules...)
		return true
	})
	return all
}

var everything = []rbacv1.PolicyRule{
	{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
	{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
}

// Forbidden is the error for a request that nothing allows, with the text that
// clients know.
func Forbidden(at Attributes, reason string) error {
	return apierrors.NewForbidden(schema.GroupResource{Group: at.Group, Resource: at.Resource}, at.Name, errors.New(forbiddenText(at, reason)))
}

func forbiddenText(at Attributes, reason string) string {
	if at.Resource == "" {
		return fmt.Sprintf("User %q cannot %s path %q", at.User.GetName(), at.Verb, at.Path)
	}
	resource := at.Resource
	if at.Subresource != "" {
		resource += "/" + at.Subresource
	}
	text := fmt.Sprintf("User %q cannot %s resource %q in API group %q", at.User.GetName(), at.Verb, resource, at.Group)
	if at.Namespace != "" {
		text += fmt.Sprintf(" in the namespace %q", at.Namespace)
	} else {
		text += " at the cluster scope"
	}
	if reason != "" {
		text += ": " + reason
	}
	return text
}

// kindOf names a binding's kind in a reason.
func kindOf(binding client.Object) string {
	if binding.GetNamespace() == "" {
		return "ClusterRoleBinding"
	}
	return "RoleBinding"
}
