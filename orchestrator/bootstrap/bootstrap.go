// Package bootstrap says what every cluster has from its first moment, and puts it there.
//
//	in:   the cluster's addresses
//	out:  namespaces, priority classes, RBAC roles and bindings, the DNS and
//	      telemetry Services
//
// Objects is pure. Ensure creates what is missing and adds what is missing within
// what is there: a rule that a user took from a default role comes back at the next
// start, one that a user added stays. A user who wants neither annotates the role
// with rbac.authorization.kubernetes.io/autoupdate=false. Aggregator keeps the
// rules of aggregated roles.
package bootstrap

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

const (
	// SystemNamespace holds Xebec's own objects.
	SystemNamespace = "xebec-system"
	nodeLeases      = "kube-node-lease"

	portOTLPGRPC = 4317
	portOTLPHTTP = 4318
	portDNS      = 53
)

// Config is what the objects depend on.
type Config struct {
	// DNS are the addresses of Service kube-system/kube-dns, one for each IP
	// family, the primary family's first: 10.96.0.10. None: no such Service.
	DNS []netip.Addr
}

// Objects are the cluster's default objects, namespaces first.
func Objects(cfg Config) []client.Object {
	var out []client.Object
	for _, name := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, nodeLeases, SystemNamespace} {
		out = append(out, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	for _, name := range []string{"system-cluster-critical", "system-node-critical"} {
		out = append(out, priorityClass(name))
	}
	for _, r := range clusterRoles() {
		out = append(out, r)
	}
	for _, b := range clusterRoleBindings() {
		out = append(out, b)
	}
	for _, r := range roles() {
		out = append(out, r)
	}
	if len(cfg.DNS) > 0 {
		out = append(out, dnsService(cfg.DNS))
	}
	return append(out, otelService())
}

func priorityClass(name string) *schedulingv1.PriorityClass {
	what := "Used for system critical pods that must not be moved from their current node."
	if name == "system-cluster-critical" {
		what = "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."
	}
	return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: resource.SystemPriorities[name], Description: what}
}

// dnsService has no selector: the dataplane sends its packets to the DNS server
// of the node that they come from.
func dnsService(addresses []netip.Addr) *corev1.Service {
	ips := make([]string, len(addresses))
	for i, a := range addresses {
		ips[i] = a.String()
	}
	policy, local := corev1.IPFamilyPolicySingleStack, corev1.ServiceInternalTrafficPolicyLocal
	if len(ips) > 1 {
		policy = corev1.IPFamilyPolicyRequireDualStack
	}
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: "kube-dns", Namespace: metav1.NamespaceSystem,
			Labels: map[string]string{"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
		},
		Spec: corev1.ServiceSpec{
			ClusterIP: ips[0], ClusterIPs: ips, IPFamilyPolicy: &policy, InternalTrafficPolicy: &local,
			Ports: []corev1.ServicePort{
				{Name: "dns", Port: portDNS, Protocol: corev1.ProtocolUDP, TargetPort: intstr.FromInt32(portDNS)},
				{Name: "dns-tcp", Port: portDNS, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(portDNS)},
			},
		},
	}
}

// otelService is where applications send their telemetry. It is plain TCP to
// sidecars, or tracing would trace itself.
func otelService() *corev1.Service {
	tcp := "tcp"
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "otel", Namespace: SystemNamespace},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{
			{Name: "otlp-grpc", Port: portOTLPGRPC, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(portOTLPGRPC), AppProtocol: &tcp},
			{Name: "otlp-http", Port: portOTLPHTTP, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(portOTLPHTTP), AppProtocol: &tcp},
		}},
	}
}
