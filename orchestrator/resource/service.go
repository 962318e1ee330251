package resource

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const sessionTimeout = 10800 // seconds

// A service's addresses are given out by admission, which knows the cluster's
// ranges; here is only what can be said without them.
func serviceKind() *Kind {
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Service"),
		Resource:         "services",
		Singular:         "service",
		ShortNames:       []string{"svc"},
		Categories:       []string{"all"},
		Namespaced:       true,
		New:              func() Object { return &corev1.Service{} },
		NewList:          func() runtime.Object { return &corev1.ServiceList{} },
		CreateOnUpdate:   true,
		ValidateName:     apivalidation.NameIsDNS1035Label,

		Default: func(o Object) { defaultService(o.(*corev1.Service)) },
		PrepareCreate: func(o Object) {
			s := o.(*corev1.Service)
			s.Status = corev1.ServiceStatus{}
			normalizeClusterIPs(&s.Spec, nil)
		},
		PrepareUpdate: func(o, old Object) { prepareService(o.(*corev1.Service), old.(*corev1.Service)) },
		ValidateCreate: func(o Object) field.ErrorList {
			return validateService(&o.(*corev1.Service).Spec)
		},
		ValidateUpdate: func(o, old Object) field.ErrorList {
			return validateServiceUpdate(&o.(*corev1.Service).Spec, &old.(*corev1.Service).Spec)
		},
		Warnings:   func(o, _ Object) []string { return serviceWarnings(&o.(*corev1.Service).Spec) },
		Resets:     statusReset,
		FieldNames: []string{"spec.clusterIP", "spec.type"},
		Fields: func(o Object) fields.Set {
			s := o.(*corev1.Service)
			return fields.Set{"metadata.name": s.Name, "metadata.namespace": s.Namespace,
				"spec.clusterIP": s.Spec.ClusterIP, "spec.type": string(s.Spec.Type)}
		},
		Status: &Subresource{
			PrepareUpdate: func(o, old Object) { o.(*corev1.Service).Spec = old.(*corev1.Service).Spec },
			Resets:        onlySpecReset,
		},
		Columns: columns(nameColumn,
			col("Type", "string", corev1.ServiceSpec{}.SwaggerDoc()["type"]),
			col("Cluster-IP", "string", corev1.ServiceSpec{}.SwaggerDoc()["clusterIP"]),
			col("External-IP", "string", corev1.ServiceSpec{}.SwaggerDoc()["externalIPs"]),
			col("Port(s)", "string", corev1.ServiceSpec{}.SwaggerDoc()["ports"]),
			ageColumn,
			wide("Selector", "string", corev1.ServiceSpec{}.SwaggerDoc()["selector"])),
		Row: serviceRow,
	}
}

func defaultService(svc *corev1.Service) {
	s := &svc.Spec
	if s.SessionAffinity == "" {
		s.SessionAffinity = corev1.ServiceAffinityNone
	}
	switch s.SessionAffinity {
	case corev1.ServiceAffinityNone:
		s.SessionAffinityConfig = nil
	case corev1.ServiceAffinityClientIP:
		if c := s.SessionAffinityConfig; c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			timeout := int32(sessionTimeout)
			s.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &timeout}}
		}
	}
	if s.Type == "" {
		s.Type = corev1.ServiceTypeClusterIP
	}
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	if reachable(s) && s.ExternalTrafficPolicy == "" {
		s.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	if s.Type != corev1.ServiceTypeExternalName {
		setDefault(&s.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
	}
	if s.Type == corev1.ServiceTypeLoadBalancer {
		setDefault(&s.AllocateLoadBalancerNodePorts, true)
		for i := range svc.Status.LoadBalancer.Ingress {
			if in := &svc.Status.LoadBalancer.Ingress[i]; in.IP != "" {
				setDefault(&in.IPMode, corev1.LoadBalancerIPModeVIP)
			}
		}
	}
}

// external services have node ports.
func external(t corev1.ServiceType) bool {
	return t == corev1.ServiceTypeNodePort || t == corev1.ServiceTypeLoadBalancer
}

// reachable services can be called from outside the cluster.
func reachable(s *corev1.ServiceSpec) bool {
	return external(s.Type) || s.Type == corev1.ServiceTypeClusterIP && len(s.ExternalIPs) > 0
}

// prepareService carries over what the server once gave, so that a client need
// not repeat it, and drops what the new type does not have.
func prepareService(s, old *corev1.Service) {
	s.Status = old.Status
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer && old.Spec.Type != corev1.ServiceTypeLoadBalancer || s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		s.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	}
	keepGiven(&s.Spec, &old.Spec)
	normalizeClusterIPs(&s.Spec, &old.Spec)
	dropOtherTypes(&s.Spec, &old.Spec)
}

func keepGiven(s, old *corev1.ServiceSpec) {
	bothIPs := s.Type != corev1.ServiceTypeExternalName && old.Type != corev1.ServiceTypeExternalName
	if bothIPs {
		if s.ClusterIP == "" {
			s.ClusterIP = old.ClusterIP
		}
		if len(s.ClusterIPs) == 0 && s.ClusterIP == old.ClusterIP {
			s.ClusterIPs = slices.Clone(old.ClusterIPs)
		}
		if len(s.IPFamilies) == 0 && s.IPFamilyPolicy == nil {
			s.IPFamilies = slices.Clone(old.IPFamilies)
		}
		if s.IPFamilyPolicy == nil {
			s.IPFamilyPolicy = old.IPFamilyPolicy
		}
		if len(s.IPFamilies) == 0 {
			s.IPFamilies = slices.Clone(old.IPFamilies)
		}
	}
	if external(s.Type) && external(old.Type) {
		keepNodePorts(s.Ports, old.Ports)
		if s.HealthCheckNodePort == 0 {
			s.HealthCheckNodePort = old.HealthCheckNodePort
		}
	}
}

// keepNodePorts gives ports that do not name a node port the one that they had,
// going by their names.
func keepNodePorts(ports, old []corev1.ServicePort) {
	used, had := map[int32]bool{}, make(map[string]int32, len(old))
	for _, p := range ports {
		used[p.NodePort] = true
	}
	for _, o := range old {
		had[o.Name] = o.NodePort
	}
	for i := range ports {
		if p := &ports[i]; p.NodePort == 0 && !used[had[p.Name]] {
			p.NodePort = had[p.Name]
		}
	}
}

// normalizeClusterIPs keeps clusterIP the first of clusterIPs for clients that
// know only the former.
func normalizeClusterIPs(s, old *corev1.ServiceSpec) {
	if old == nil {
		if s.ClusterIP != "" && len(s.ClusterIPs) == 0 {
			s.ClusterIPs = []string{s.ClusterIP}
		}
		return
	}
	sameIPs := slices.Equal(s.ClusterIPs, old.ClusterIPs)
	switch {
	case s.ClusterIP == "" && old.ClusterIP != "" && sameIPs:
		s.ClusterIPs = nil
	case s.ClusterIP != old.ClusterIP && s.ClusterIP != "" && (sameIPs || len(s.ClusterIPs) == 0):
		s.ClusterIPs = []string{s.ClusterIP}
	}
}

// dropOtherTypes clears what a service no longer has after its type changed,
// unless the client changed it too and should hear of it.
func dropOtherTypes(s, old *corev1.ServiceSpec) {
	if s.Type == corev1.ServiceTypeExternalName && old.Type != s.Type && s.ClusterIP == old.ClusterIP {
		s.ClusterIP, s.ClusterIPs, s.IPFamilies, s.IPFamilyPolicy = "", nil, nil, nil
		if s.InternalTrafficPolicy != nil {
			s.InternalTrafficPolicy = nil
		}
	}
	if external(old.Type) && !external(s.Type) {
		for i := range s.Ports {
			for _, o := range old.Ports {
				if s.Ports[i].NodePort == o.NodePort {
					s.Ports[i].NodePort = 0
				}
			}
		}
	}
	if reachable(old) && !reachable(s) && s.ExternalTrafficPolicy == old.ExternalTrafficPolicy {
		s.ExternalTrafficPolicy = ""
	}
	if s.HealthCheckNodePort == old.HealthCheckNodePort && !NeedsHealthCheck(s) {
		s.HealthCheckNodePort = 0
	}
	if old.Type == corev1.ServiceTypeLoadBalancer && s.Type != corev1.ServiceTypeLoadBalancer {
		if equality.Semantic.DeepEqual(s.AllocateLoadBalancerNodePorts, old.AllocateLoadBalancerNodePorts) {
			s.AllocateLoadBalancerNodePorts = nil
		}
		if equality.Semantic.DeepEqual(s.LoadBalancerClass, old.LoadBalancerClass) {
			s.LoadBalancerClass = nil
		}
	}
}

// NeedsHealthCheck says whether a service has a port on which nodes tell whether
// they have endpoints of it.
func NeedsHealthCheck(s *corev1.ServiceSpec) bool {
	return s.Type == corev1.ServiceTypeLoadBalancer && s.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

func serviceWarnings(s *corev1.ServiceSpec) []string {
	var out []string
	if s.ExternalName != "" && s.Type != corev1.ServiceTypeExternalName {
		out = append(out, fmt.Sprintf("spec.externalName is ignored when spec.type is not %q", corev1.ServiceTypeExternalName))
	}
	if len(s.ExternalIPs) > 0 && s.Type == corev1.ServiceTypeExternalName {
		out = append(out, fmt.Sprintf("spec.externalIPs is ignored when spec.type is %q", corev1.ServiceTypeExternalName))
	}
	if s.Type != corev1.ServiceTypeExternalName && s.ClusterIP == corev1.ClusterIPNone && s.SessionAffinity != corev1.ServiceAffinityNone {
		out = append(out, "spec.SessionAffinity is ignored for headless services")
	}
	return out
}

func serviceRow(o Object, now time.Time) []any {
	s := o.(*corev1.Service)
	internal := "<none>"
	if len(s.Spec.ClusterIPs) > 0 {
		internal = s.Spec.ClusterIPs[0]
	}
	return []any{s.Name, string(s.Spec.Type), internal, externalCell(s), portsCell(s.Spec.Ports),
		age(s.CreationTimestamp, now), labels.FormatLabels(s.Spec.Selector)}
}

func externalCell(s *corev1.Service) string {
	switch s.Spec.Type {
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	case corev1.ServiceTypeLoadBalancer:
		var all []string
		for _, in := range s.Status.LoadBalancer.Ingress {
			if in.IP != "" {
				all = append(all, in.IP)
			} else if in.Hostname != "" {
				all = append(all, in.Hostname)
			}
		}
		if all = append(all, s.Spec.ExternalIPs...); len(all) == 0 {
			return "<pending>"
		}
		return strings.Join(all, ",")
	}
	return orNone(strings.Join(s.Spec.ExternalIPs, ","))
}

func portsCell(ports []corev1.ServicePort) string {
	all := make([]string, len(ports))
	for i, p := range ports {
		all[i] = fmt.Sprintf("%d/%s", p.Port, p.Protocol)
		if p.NodePort > 0 {
			all[i] = fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol)
		}
	}
	return orNone(strings.Join(all, ","))
}
