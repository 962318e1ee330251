package client

import (
	"sync"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Scheme knows the Go type of every kind that Xebec itself handles. It is built
// once and must not be added to.
var Scheme = sync.OnceValue(func() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		scheme.AddToScheme,
		apiextensionsv1.AddToScheme,
		networkingv1.AddToScheme,
		securityv1.AddToScheme,
		telemetryv1.AddToScheme,
		gatewayv1.Install,
	} {
		utilruntime.Must(add(s))
	}
	return s
})

// The kinds that Xebec's own parts read and write.
var (
	Namespaces      = kind[*corev1.Namespace](corev1.SchemeGroupVersion, "namespaces", "Namespace", false)
	Nodes           = kind[*corev1.Node](corev1.SchemeGroupVersion, "nodes", "Node", false)
	Pods            = kind[*corev1.Pod](corev1.SchemeGroupVersion, "pods", "Pod", true)
	Services        = kind[*corev1.Service](corev1.SchemeGroupVersion, "services", "Service", true)
	Endpoints       = kind[*corev1.Endpoints](corev1.SchemeGroupVersion, "endpoints", "Endpoints", true)
	ConfigMaps      = kind[*corev1.ConfigMap](corev1.SchemeGroupVersion, "configmaps", "ConfigMap", true)
	Secrets         = kind[*corev1.Secret](corev1.SchemeGroupVersion, "secrets", "Secret", true)
	ServiceAccounts = kind[*corev1.ServiceAccount](corev1.SchemeGroupVersion, "serviceaccounts", "ServiceAccount", true)

	Deployments    = kind[*appsv1.Deployment](appsv1.SchemeGroupVersion, "deployments", "Deployment", true)
	ReplicaSets    = kind[*appsv1.ReplicaSet](appsv1.SchemeGroupVersion, "replicasets", "ReplicaSet", true)
	EndpointSlices = kind[*discoveryv1.EndpointSlice](discoveryv1.SchemeGroupVersion, "endpointslices", "EndpointSlice", true)
	Leases         = kind[*coordinationv1.Lease](coordinationv1.SchemeGroupVersion, "leases", "Lease", true)
	Events         = kind[*eventsv1.Event](eventsv1.SchemeGroupVersion, "events", "Event", true)

	Roles               = kind[*rbacv1.Role](rbacv1.SchemeGroupVersion, "roles", "Role", true)
	RoleBindings        = kind[*rbacv1.RoleBinding](rbacv1.SchemeGroupVersion, "rolebindings", "RoleBinding", true)
	ClusterRoles        = kind[*rbacv1.ClusterRole](rbacv1.SchemeGroupVersion, "clusterroles", "ClusterRole", false)
	ClusterRoleBindings = kind[*rbacv1.ClusterRoleBinding](rbacv1.SchemeGroupVersion, "clusterrolebindings", "ClusterRoleBinding", false)

	CustomResourceDefinitions = kind[*apiextensionsv1.CustomResourceDefinition](apiextensionsv1.SchemeGroupVersion, "customresourcedefinitions", "CustomResourceDefinition", false)

	VirtualServices        = kind[*networkingv1.VirtualService](networkingv1.SchemeGroupVersion, "virtualservices", "VirtualService", true)
	DestinationRules       = kind[*networkingv1.DestinationRule](networkingv1.SchemeGroupVersion, "destinationrules", "DestinationRule", true)
	Gateways               = kind[*networkingv1.Gateway](networkingv1.SchemeGroupVersion, "gateways", "Gateway", true)
	ServiceEntries         = kind[*networkingv1.ServiceEntry](networkingv1.SchemeGroupVersion, "serviceentries", "ServiceEntry", true)
	Sidecars               = kind[*networkingv1.Sidecar](networkingv1.SchemeGroupVersion, "sidecars", "Sidecar", true)
	PeerAuthentications    = kind[*securityv1.PeerAuthentication](securityv1.SchemeGroupVersion, "peerauthentications", "PeerAuthentication", true)
	AuthorizationPolicies  = kind[*securityv1.AuthorizationPolicy](securityv1.SchemeGroupVersion, "authorizationpolicies", "AuthorizationPolicy", true)
	RequestAuthentications = kind[*securityv1.RequestAuthentication](securityv1.SchemeGroupVersion, "requestauthentications", "RequestAuthentication", true)
	Telemetries            = kind[*telemetryv1.Telemetry](telemetryv1.SchemeGroupVersion, "telemetries", "Telemetry", true)
)

func kind[T Object](gv schema.GroupVersion, resource, name string, namespaced bool) Kind[T] {
	return Kind[T]{Resource{gv.WithResource(resource), name, namespaced}}
}
