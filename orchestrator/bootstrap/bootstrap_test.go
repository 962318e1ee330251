package bootstrap_test

import (
	"io"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/bootstrap"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

var config = bootstrap.Config{DNS: []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:10:96::a")}}

// Every default object passes the rules that everybody's objects pass.
func TestObjectsAreValid(t *testing.T) {
	for _, o := range bootstrap.Objects(config) {
		var kind *resource.Kind
		for _, k := range resource.Kinds() {
			if reflect.TypeOf(k.New()) == reflect.TypeOf(o) {
				kind = k
			}
		}
		if kind == nil {
			t.Errorf("%T is of no kind", o)
			continue
		}
		kind.SetDefaults(o)
		kind.BeforeCreate(o)
		kind.SetDefaults(o)
		for _, e := range kind.CheckCreate(o) {
			t.Errorf("%s %s: %v", kind.Kind, client.Key(o), e)
		}
	}
}

func TestEnsure(t *testing.T) {
	ctx, c := t.Context(), memory.New(time.Now)
	defer c.Close()
	objs := bootstrap.Objects(config)
	if err := bootstrap.Ensure(ctx, c, objs); err != nil {
		t.Fatal(err)
	}
	roles, bindings := client.For(c, client.ClusterRoles), client.For(c, client.ClusterRoleBindings)

	// A user adds a rule here, takes one there, and wants to keep another role as it is.
	view := get(t, roles, "system:basic-user")
	view.Rules = append(view.Rules, rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{"x"}, Resources: []string{"y"}})
	discovery := get(t, roles, "system:discovery")
	discovery.Rules = nil
	mine := get(t, roles, "system:monitoring")
	mine.Annotations["rbac.authorization.kubernetes.io/autoupdate"] = "false"
	mine.Rules = nil
	for _, r := range []*rbacv1.ClusterRole{view, discovery, mine} {
		if _, err := roles.Update(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	admin := get(t, bindings, "cluster-admin")
	admin.Subjects = []rbacv1.Subject{{Kind: "User", Name: "jo", APIGroup: rbacv1.GroupName}}
	if _, err := bindings.Update(ctx, admin); err != nil {
		t.Fatal(err)
	}
	services := client.For(c, client.Services)
	dns, err := services.Get(ctx, "kube-system", "kube-dns")
	if err != nil {
		t.Fatal(err)
	}
	dns = dns.DeepCopy()
	dns.Spec.Ports = dns.Spec.Ports[:1]
	dns.Labels["mine"] = "yes"
	if _, err := services.Update(ctx, dns); err != nil {
		t.Fatal(err)
	}

	if err := bootstrap.Ensure(ctx, c, objs); err != nil {
		t.Fatal(err)
	}
	if n := len(get(t, roles, "system:basic-user").Rules); n != 3 {
		t.Errorf("the user's rule was not kept: %d rules", n)
	}
	if n := len(get(t, roles, "system:discovery").Rules); n != 1 {
		t.Errorf("the default rule did not come back: %d rules", n)
	}
	if n := len(get(t, roles, "system:monitoring").Rules); n != 0 {
		t.Errorf("the role that was to be left alone has %d rules", n)
	}
	if s := get(t, bindings, "cluster-admin").Subjects; len(s) != 2 {
		t.Errorf("subjects of cluster-admin: %v", s)
	}
	dns, _ = services.Get(ctx, "kube-system", "kube-dns")
	if len(dns.Spec.Ports) != 2 || dns.Labels["mine"] != "yes" {
		t.Errorf("kube-dns: ports %v, labels %v", dns.Spec.Ports, dns.Labels)
	}

	// A third time changes nothing.
	before := versions(t, c)
	if err := bootstrap.Ensure(ctx, c, objs); err != nil {
		t.Fatal(err)
	}
	if after := versions(t, c); !slices.Equal(before, after) {
		t.Error("ensuring what is there already wrote something")
	}
}

func versions(t *testing.T, c client.Interface) []string {
	t.Helper()
	var out []string
	for _, r := range []client.Resource{client.Namespaces.Resource, client.ClusterRoles.Resource, client.ClusterRoleBindings.Resource, client.Roles.Resource, client.Services.Resource} {
		items, _, err := c.List(t.Context(), r, client.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range items {
			out = append(out, o.GetName()+"@"+o.GetResourceVersion())
		}
	}
	slices.Sort(out)
	return out
}

func get[T client.Object](t *testing.T, c client.Typed[T], name string) T {
	t.Helper()
	o, err := c.Get(t.Context(), "", name)
	if err != nil {
		t.Fatal(err)
	}
	return o.DeepCopyObject().(T)
}

// A definition follows the program's version.
func TestEnsureDefinition(t *testing.T) {
	ctx, c := t.Context(), memory.New(time.Now)
	defer c.Close()
	d := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "things.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: "example.com", Scope: "Namespaced",
			Names:    apiextensionsv1.CustomResourceDefinitionNames{Plural: "things", Kind: "Thing"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true}}},
	}
	crds := client.For(c, client.CustomResourceDefinitions)
	for range 2 {
		if err := bootstrap.Ensure(ctx, c, []client.Object{d}); err != nil {
			t.Fatal(err)
		}
	}
	first := get(t, crds, d.Name)
	d.Spec.Names.ShortNames = []string{"th"}
	if err := bootstrap.Ensure(ctx, c, []client.Object{d}); err != nil {
		t.Fatal(err)
	}
	if now := get(t, crds, d.Name); now.UID != first.UID || len(now.Spec.Names.ShortNames) != 1 {
		t.Errorf("the definition was not brought up to date: %+v", now.Spec.Names)
	}
}

func TestAggregation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, c := t.Context(), memory.New(time.Now)
		defer c.Close()
		if err := bootstrap.Ensure(ctx, c, bootstrap.Objects(config)); err != nil {
			t.Fatal(err)
		}
		a, err := bootstrap.NewAggregator(bootstrap.AggregatorConfig{Client: c, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = a.Run(ctx) }()
		roles := client.For(c, client.ClusterRoles)
		rule := rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{"example.com"}, Resources: []string{"things"}}
		part := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "things", Labels: map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"}}, Rules: []rbacv1.PolicyRule{rule}}
		if _, err := roles.Create(ctx, part); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		has := func(name string) bool {
			return slices.ContainsFunc(get(t, roles, name).Rules, func(r rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(r, rule) })
		}
		for _, name := range []string{"view", "edit", "admin"} {
			if !has(name) {
				t.Errorf("%s lacks the rule", name)
			}
		}
		if err := roles.Delete(ctx, "", "things", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, name := range []string{"view", "edit", "admin"} {
			if has(name) {
				t.Errorf("%s still has the rule", name)
			}
		}
	})
}

// The default roles are aggregated when they are made.
func TestRolesAreCompleteFromTheStart(t *testing.T) {
	rules := map[string]int{}
	for _, o := range bootstrap.Objects(config) {
		if r, ok := o.(*rbacv1.ClusterRole); ok {
			rules[r.Name] = len(r.Rules)
		}
	}
	if rules["view"] == 0 || rules["edit"] <= rules["view"] || rules["admin"] <= rules["edit"] {
		t.Errorf("view %d, edit %d, admin %d rules", rules["view"], rules["edit"], rules["admin"])
	}
}
