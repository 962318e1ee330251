package bootstrap

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The default roles are Kubernetes' own, as far as their resources exist here:
// https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings

const (
	autoUpdate   = "rbac.authorization.kubernetes.io/autoupdate"
	bootstraps   = "kubernetes.io/bootstrapping"
	rbacDefaults = "rbac-defaults"

	toAdmin = "rbac.authorization.k8s.io/aggregate-to-admin"
	toEdit  = "rbac.authorization.k8s.io/aggregate-to-edit"
	toView  = "rbac.authorization.k8s.io/aggregate-to-view"
)

var (
	read      = []string{"get", "list", "watch"}
	write     = []string{"create", "delete", "deletecollection", "patch", "update"}
	readWrite = append(append([]string{}, write...), read...)
)

// rule allows verbs on resources of one group.
func rule(verbs []string, group string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: verbs, APIGroups: []string{group}, Resources: resources}
}

// named narrows a rule to objects of these names.
func named(r rbacv1.PolicyRule, names ...string) rbacv1.PolicyRule {
	r.ResourceNames = names
	return r
}

// paths allows to read paths that are no resources.
func paths(urls ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: urls}
}

func do(verbs ...string) []string { return verbs }

func clusterRole(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: defaultMeta(name), Rules: rules}
}

func defaultMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name,
		Labels:      map[string]string{bootstraps: rbacDefaults},
		Annotations: map[string]string{autoUpdate: "true"}}
}

// into makes a role part of the roles that aggregate the label.
func into(label string, r *rbacv1.ClusterRole) *rbacv1.ClusterRole {
	r.Labels[label] = "true"
	return r
}

// union is a role that consists of those with the label.
func union(name, label string) *rbacv1.ClusterRole {
	r := clusterRole(name)
	r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{label: "true"}}}}
	return r
}

// clusterRoles are the default cluster roles, the aggregated ones complete.
func clusterRoles() []*rbacv1.ClusterRole {
	all := append(baseRoles(), userRoles()...)
	all = append(all, componentRoles()...)
	for range 3 { // admin consists of edit, and that of view
		for _, r := range all {
			if rules := Aggregate(r, all); r.AggregationRule != nil {
				r.Rules = rules
			}
		}
	}
	return all
}

func baseRoles() []*rbacv1.ClusterRole {
	return []*rbacv1.ClusterRole{
		clusterRole("cluster-admin",
			rule(do("*"), "*", "*"),
			rbacv1.PolicyRule{Verbs: do("*"), NonResourceURLs: []string{"*"}}),
		clusterRole("system:discovery",
			paths("/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/")),
		clusterRole("system:public-info-viewer",
			paths("/healthz", "/livez", "/readyz", "/version", "/version/")),
		clusterRole("system:monitoring",
			paths("/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/metrics/slis", "/readyz", "/readyz/*")),
		clusterRole("system:basic-user",
			rule(do("create"), "authorization.k8s.io", "selfsubjectaccessreviews", "selfsubjectrulesreviews"),
			rule(do("create"), "authentication.k8s.io", "selfsubjectreviews")),
		clusterRole("system:auth-delegator",
			rule(do("create"), "authentication.k8s.io", "tokenreviews"),
			rule(do("create"), "authorization.k8s.io", "subjectaccessreviews")),
		clusterRole("system:service-account-issuer-discovery",
			paths("/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks", "/openid/v1/jwks/")),
	}
}

// What namespaced users see and edit, by group. Kinds that do not exist yet are
// named where their names are known: rules may be written ahead.
var (
	coreSeen = []string{"bindings", "configmaps", "endpoints", "events", "limitranges", "namespaces", "namespaces/status",
		"persistentvolumeclaims", "persistentvolumeclaims/status", "pods", "pods/log", "pods/status",
		"replicationcontrollers", "replicationcontrollers/scale", "replicationcontrollers/status",
		"resourcequotas", "resourcequotas/status", "serviceaccounts", "services", "services/status"}
	coreEdited = []string{"configmaps", "events", "persistentvolumeclaims", "replicationcontrollers", "replicationcontrollers/scale",
		"secrets", "serviceaccounts", "services", "services/proxy"}
	appsEdited = []string{"daemonsets", "deployments", "deployments/rollback", "deployments/scale",
		"replicasets", "replicasets/scale", "statefulsets", "statefulsets/scale"}
	appsSeen = []string{"controllerrevisions", "daemonsets", "daemonsets/status", "deployments", "deployments/scale", "deployments/status",
		"replicasets", "replicasets/scale", "replicasets/status", "statefulsets", "statefulsets/scale", "statefulsets/status"}
	meshGroups = []string{"extensions.istio.io", "networking.istio.io", "security.istio.io", "telemetry.istio.io", "gateway.networking.k8s.io"}
)

func userRoles() []*rbacv1.ClusterRole {
	return []*rbacv1.ClusterRole{
		union("admin", toAdmin),
		into(toAdmin, union("edit", toEdit)),
		into(toEdit, union("view", toView)),

		into(toAdmin, clusterRole("system:aggregate-to-admin",
			rule(do("create"), "authorization.k8s.io", "localsubjectaccessreviews"),
			rule(readWrite, "rbac.authorization.k8s.io", "rolebindings", "roles"))),
		into(toEdit, clusterRole("system:aggregate-to-edit",
			rule(read, "", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"),
			rule(do("impersonate"), "", "serviceaccounts"),
			rule(write, "", "pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"),
			rule(do("create"), "", "pods/eviction"),
			rule(write, "", coreEdited...),
			rule(do("create"), "", "serviceaccounts/token"),
			rule(write, "apps", appsEdited...),
			rule(write, "autoscaling", "horizontalpodautoscalers"),
			rule(write, "batch", "cronjobs", "jobs"),
			rule(write, "policy", "poddisruptionbudgets"),
			rule(write, "networking.k8s.io", "ingresses", "networkpolicies"),
			rule(readWrite, "coordination.k8s.io", "leases"))),
		into(toView, clusterRole("system:aggregate-to-view",
			rule(read, "", coreSeen...),
			rule(read, "discovery.k8s.io", "endpointslices"),
			rule(read, "apps", appsSeen...),
			rule(read, "autoscaling", "horizontalpodautoscalers", "horizontalpodautoscalers/status"),
			rule(read, "batch", "cronjobs", "cronjobs/status", "jobs", "jobs/status"),
			rule(read, "policy", "poddisruptionbudgets", "poddisruptionbudgets/status"),
			rule(read, "networking.k8s.io", "ingresses", "ingresses/status", "networkpolicies"))),

		// Whoever may edit a namespace may edit its part of the mesh.
		into(toEdit, clusterRole("xebec:aggregate-mesh-to-edit", rbacv1.PolicyRule{Verbs: write, APIGroups: meshGroups, Resources: []string{"*"}})),
		into(toView, clusterRole("xebec:aggregate-mesh-to-view", rbacv1.PolicyRule{Verbs: read, APIGroups: meshGroups, Resources: []string{"*"}})),
	}
}

func componentRoles() []*rbacv1.ClusterRole {
	return []*rbacv1.ClusterRole{
		nodeRole(),
		clusterRole("system:node-bootstrapper",
			rule(do("create", "get", "list", "watch"), "certificates.k8s.io", "certificatesigningrequests")),
		clusterRole("system:node-proxier",
			rule(do("list", "watch"), "", "nodes", "services"),
			rule(do("list", "watch"), "discovery.k8s.io", "endpointslices"),
			events()),
		clusterRole("system:kubelet-api-admin",
			rule(do("get", "list", "watch"), "", "nodes"),
			rule(do("proxy"), "", "nodes"),
			rule(do("*"), "", "nodes/log", "nodes/metrics", "nodes/proxy", "nodes/stats")),
		clusterRole("system:kube-dns",
			rule(do("list", "watch"), "", "endpoints", "services")),
		clusterRole("system:kube-scheduler", schedulerRules()...),
		clusterRole("system:kube-controller-manager",
			events(),
			rule(do("create"), "coordination.k8s.io", "leases"),
			named(rule(do("get", "update"), "coordination.k8s.io", "leases"), "kube-controller-manager"),
			rule(do("create"), "", "secrets", "serviceaccounts"),
			rule(do("delete"), "", "secrets"),
			rule(do("get"), "", "configmaps", "namespaces", "secrets", "serviceaccounts"),
			rule(do("update"), "", "secrets", "serviceaccounts"),
			rule(do("create"), "authentication.k8s.io", "tokenreviews"),
			rule(do("create"), "authorization.k8s.io", "subjectaccessreviews"),
			rule(do("list", "watch"), "*", "*"),
			rule(do("create"), "", "serviceaccounts/token")),
	}
}

func events() rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: do("create", "patch", "update"), APIGroups: []string{"", "events.k8s.io"}, Resources: []string{"events"}}
}

func schedulerRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		events(),
		rule(do("create"), "coordination.k8s.io", "leases"),
		named(rule(do("get", "update"), "coordination.k8s.io", "leases"), "kube-scheduler"),
		rule(read, "", "nodes"),
		rule(do("delete", "get", "list", "watch"), "", "pods"),
		rule(do("create"), "", "bindings", "pods/binding"),
		rule(do("patch", "update"), "", "pods/status"),
		rule(read, "", "namespaces", "persistentvolumeclaims", "persistentvolumes", "replicationcontrollers", "services"),
		rule(read, "apps", "replicasets", "statefulsets"),
		rule(read, "policy", "poddisruptionbudgets"),
		rule(read, "storage.k8s.io", "csidrivers", "csinodes", "csistoragecapacities", "storageclasses"),
		rule(do("create"), "authentication.k8s.io", "tokenreviews"),
		rule(do("create"), "authorization.k8s.io", "subjectaccessreviews"),
	}
}

// nodeRole is what a node may do in principle. The node authorizer and the
// NodeRestriction plugin narrow it to the node's own objects.
func nodeRole() *rbacv1.ClusterRole {
	return clusterRole("system:node",
		rule(do("create"), "authentication.k8s.io", "tokenreviews"),
		rule(do("create"), "authorization.k8s.io", "localsubjectaccessreviews", "subjectaccessreviews"),
		rule(read, "", "namespaces", "services"),
		rule(read, "discovery.k8s.io", "endpointslices"),
		rule(do("create", "get", "list", "watch"), "", "nodes"),
		rule(do("patch", "update"), "", "nodes/status"),
		rule(do("patch", "update"), "", "nodes"),
		events(),
		rule(read, "", "pods"),
		rule(do("create", "delete"), "", "pods"),
		rule(do("patch", "update"), "", "pods/status"),
		rule(do("create"), "", "pods/eviction"),
		rule(read, "", "configmaps", "secrets"),
		rule(do("get"), "", "persistentvolumeclaims", "persistentvolumes"),
		rule(do("get"), "", "endpoints"),
		rule(read, "", "serviceaccounts"),
		rule(do("create"), "", "serviceaccounts/token"),
		rule(do("create", "get", "list", "watch"), "certificates.k8s.io", "certificatesigningrequests"),
		rule(do("create", "delete", "get", "patch", "update"), "coordination.k8s.io", "leases"),
		rule(read, "storage.k8s.io", "csidrivers"),
		rule(do("create", "delete", "get", "patch", "update"), "storage.k8s.io", "csinodes"),
		rule(read, "node.k8s.io", "runtimeclasses"))
}

// roles are the default roles within namespaces.
func roles() []*rbacv1.Role {
	meta := defaultMeta("extension-apiserver-authentication-reader")
	meta.Namespace = metav1.NamespaceSystem
	return []*rbacv1.Role{{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		named(rule(read, "", "configmaps"), "extension-apiserver-authentication"),
	}}}
}

func clusterRoleBindings() []*rbacv1.ClusterRoleBinding {
	group := func(name string) rbacv1.Subject {
		return rbacv1.Subject{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: name}
	}
	user := func(name string) rbacv1.Subject {
		return rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: name}
	}
	bind := func(role string, subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
		return &rbacv1.ClusterRoleBinding{ObjectMeta: defaultMeta(role), Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}}
	}
	authenticated, unauthenticated := group("system:authenticated"), group("system:unauthenticated")
	return []*rbacv1.ClusterRoleBinding{
		bind("cluster-admin", group("system:masters")),
		bind("system:basic-user", authenticated),
		bind("system:discovery", authenticated),
		bind("system:public-info-viewer", authenticated, unauthenticated),
		bind("system:monitoring", group("system:monitoring")),
		bind("system:service-account-issuer-discovery", group("system:serviceaccounts")),
		bind("system:node-proxier", user("system:kube-proxy")),
		bind("system:kube-scheduler", user("system:kube-scheduler")),
		bind("system:kube-controller-manager", user("system:kube-controller-manager")),
		bind("system:kube-dns", rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Name: "kube-dns", Namespace: metav1.NamespaceSystem}),
		bind("system:node"),
	}
}
