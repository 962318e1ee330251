package auth_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/xebec-mesh/xebec/orchestrator/admission"
	"github.com/xebec-mesh/xebec/orchestrator/auth"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
	"github.com/xebec-mesh/xebec/tests/script"
	"sigs.k8s.io/yaml"
)

// TestScripts reads like an audit: objects in, who may do what out.
//
//	apply FILE                                    RBAC objects and pods, as YAML documents
//	can USER[,GROUP...] VERB RESOURCE[/SUB][.GROUP] [NAMESPACE/][NAME] [FIELDSELECTOR]
//	can USER[,GROUP...] VERB /PATH
//	grant USER[,GROUP...] FILE                    may the user write this role or binding
func TestScripts(t *testing.T) {
	script.RunInBubble(t, "testdata/*.txtar", func(t *testing.T) map[string]script.Command {
		c := newCluster(t)
		return map[string]script.Command{"apply": c.apply, "can": c.can, "grant": c.grant}
	})
}

func (c *cluster) apply(s *script.State, args []string) (string, error) {
	objs, err := objectsOf(s, args[0])
	if err != nil {
		return "", err
	}
	for _, o := range objs {
		k := resourceOf(o)
		if _, err := c.client.Create(context.Background(), k, o, metav1.CreateOptions{}); err != nil {
			return "", err
		}
	}
	synctest.Wait() // until the informers have it
	return "", nil
}

func objectsOf(s *script.State, file string) ([]client.Object, error) {
	data, err := s.File(file)
	if err != nil {
		return nil, err
	}
	var out []client.Object
	for _, doc := range strings.Split(string(data), "---\n") {
		var kind struct{ Kind string }
		if err := yaml.Unmarshal([]byte(doc), &kind); err != nil {
			return nil, err
		}
		o, ok := map[string]client.Object{
			"Role": &rbacv1.Role{}, "RoleBinding": &rbacv1.RoleBinding{}, "ClusterRole": &rbacv1.ClusterRole{},
			"ClusterRoleBinding": &rbacv1.ClusterRoleBinding{}, "Pod": &corev1.Pod{},
		}[kind.Kind]
		if !ok {
			return nil, fmt.Errorf("unknown kind %q", kind.Kind)
		}
		if err := yaml.Unmarshal([]byte(doc), o); err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

func resourceOf(o client.Object) client.Resource {
	switch o.(type) {
	case *rbacv1.Role:
		return client.Roles.Resource
	case *rbacv1.RoleBinding:
		return client.RoleBindings.Resource
	case *rbacv1.ClusterRole:
		return client.ClusterRoles.Resource
	case *rbacv1.ClusterRoleBinding:
		return client.ClusterRoleBindings.Resource
	}
	return client.Pods.Resource
}

func userOf(s string) user.Info {
	parts := strings.Split(s, ",")
	return &user.DefaultInfo{Name: parts[0], Groups: parts[1:]}
}

func (c *cluster) can(_ *script.State, args []string) (string, error) {
	at := auth.Attributes{User: userOf(args[0]), Verb: args[1], Version: "v1"}
	if strings.HasPrefix(args[2], "/") {
		at.Path = args[2]
	} else {
		at.Resource, at.Group, _ = strings.Cut(args[2], ".")
		at.Resource, at.Subresource, _ = strings.Cut(at.Resource, "/")
	}
	if len(args) > 3 {
		if ns, name, ok := strings.Cut(args[3], "/"); ok {
			at.Namespace, at.Name = ns, name
		} else {
			at.Name = args[3]
		}
	}
	if len(args) > 4 {
		at.FieldSelector = args[4]
	}
	d, reason := c.authz.Authorize(context.Background(), at)
	if d == auth.Allow {
		return "yes " + reason + "\n", nil
	}
	return "no: " + auth.Forbidden(at, reason).Error() + "\n", nil
}

func (c *cluster) grant(s *script.State, args []string) (string, error) {
	objs, err := objectsOf(s, args[1])
	if err != nil {
		return "", err
	}
	o := objs[0]
	a := &admission.Attributes{
		Operation: admissionv1.Create, Object: o, User: userOf(args[0]), Namespace: o.GetNamespace(), Name: o.GetName(),
		Kind: &resource.Kind{GroupVersionKind: resourceOf(o).GroupVersionKind(), Resource: resourceOf(o).Resource},
	}
	if err := (auth.Escalation{Authorizer: c.authz}).Validate(context.Background(), a); err != nil {
		return "no: " + err.Error() + "\n", nil
	}
	return "yes\n", nil
}

func TestImpersonation(t *testing.T) {
	synctest.Test(t, testImpersonation)
}

func testImpersonation(t *testing.T) {
	c := newCluster(t)
	create(c, client.ClusterRoles, &rbacv1.ClusterRole{ObjectMeta: named("", "act"), Rules: []rbacv1.PolicyRule{
		{Verbs: []string{"impersonate"}, APIGroups: []string{""}, Resources: []string{"users"}, ResourceNames: []string{"jane"}},
	}})
	create(c, client.ClusterRoleBindings, &rbacv1.ClusterRoleBinding{ObjectMeta: named("", "act"), RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "act"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "bob"}}})
	synctest.Wait()
	bob := userOf("bob")
	h := http.Header{"Impersonate-User": {"jane"}}
	if u, err := c.authz.Impersonate(t.Context(), bob, h); err != nil || u.GetName() != "jane" || len(h) != 0 {
		t.Errorf("%v, %v, header %v", u, err, h)
	}
	for name, h := range map[string]http.Header{
		"another user":    {"Impersonate-User": {"eve"}},
		"a group with it": {"Impersonate-User": {"jane"}, "Impersonate-Group": {auth.GroupMasters}},
		"an extra":        {"Impersonate-User": {"jane"}, "Impersonate-Extra-Scopes": {"all"}},
		"a group alone":   {"Impersonate-Group": {"x"}},
	} {
		if u, err := c.authz.Impersonate(t.Context(), bob, h); err == nil {
			t.Errorf("%s: became %v", name, u)
		}
	}
}

// What a check costs depends on the user's bindings, not on how many there are.
func BenchmarkAuthorize(b *testing.B) {
	for _, bindings := range []int{10, 10000} {
		b.Run(fmt.Sprintf("bindings=%d", bindings), func(b *testing.B) {
			c := newCluster(b)
			create(c, client.ClusterRoles, &rbacv1.ClusterRole{ObjectMeta: named("", "view"), Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}}})
			for i := range bindings {
				create(c, client.RoleBindings, &rbacv1.RoleBinding{ObjectMeta: named("ns", fmt.Sprint("b", i)), RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "view"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: fmt.Sprint("user", i)}}})
			}
			at := auth.Attributes{User: userOf("user7,system:authenticated"), Verb: "get", Version: "v1", Resource: "pods", Namespace: "ns", Name: "p"}
			for d := auth.NoOpinion; d != auth.Allow; { // until the informers have all
				runtime.Gosched()
				d, _ = c.authz.Authorize(context.Background(), at)
			}
			b.ReportAllocs()
			for b.Loop() {
				if d, _ := c.authz.Authorize(context.Background(), at); d != auth.Allow {
					b.Fatal("not allowed")
				}
			}
		})
	}
}
