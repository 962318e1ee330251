package resource

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const maxAffinityTimeout = 86400 // seconds

func validateService(s *corev1.ServiceSpec) field.ErrorList {
	ports := specPath.Child("ports")
	var errs field.ErrorList
	headless := s.ClusterIP == corev1.ClusterIPNone
	if len(s.Ports) == 0 && !headless && s.Type != corev1.ServiceTypeExternalName {
		errs = append(errs, field.Required(ports, ""))
	}
	errs = append(errs, oneOf(specPath.Child("type"), s.Type, corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName,
		corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort)...)
	errs = append(errs, validateServiceType(s, headless)...)
	errs = append(errs, validateServicePorts(s, headless, ports)...)
	errs = append(errs, metav1validation.ValidateLabels(s.Selector, specPath.Child("selector"))...)
	errs = append(errs, validateAffinityOfSessions(s)...)
	errs = append(errs, validateTrafficPolicies(s)...)
	for i, ip := range s.ExternalIPs {
		p := specPath.Child("externalIPs").Index(i)
		if bad := validation.IsValidIPForLegacyField(p, ip, false, nil); len(bad) > 0 {
			errs = append(errs, bad...)
		} else {
			errs = append(errs, validateEndpointIP(ip, p)...)
		}
	}
	return append(errs, validateLoadBalancer(s)...)
}

func validateServiceType(s *corev1.ServiceSpec, headless bool) field.ErrorList {
	if external(s.Type) && headless {
		return field.ErrorList{field.Invalid(specPath.Child("clusterIPs").Index(0), "None", fmt.Sprintf("may not be set to 'None' for %s services", s.Type))}
	}
	if s.Type != corev1.ServiceTypeExternalName {
		return validateClusterIPs(s)
	}
	var errs field.ErrorList
	if len(s.ClusterIPs) > 0 {
		errs = append(errs, field.Forbidden(specPath.Child("clusterIPs"), "may not be set for ExternalName services"))
	}
	if len(s.IPFamilies) > 0 {
		errs = append(errs, field.Forbidden(specPath.Child("ipFamilies"), "may not be set for ExternalName services"))
	}
	if s.IPFamilyPolicy != nil {
		errs = append(errs, field.Forbidden(specPath.Child("ipFamilyPolicy"), "may not be set for ExternalName services"))
	}
	if s.ExternalName == "" {
		return append(errs, field.Required(specPath.Child("externalName"), ""))
	}
	return append(errs, dnsSubdomain(specPath.Child("externalName"), strings.TrimSuffix(s.ExternalName, "."))...)
}

// validateClusterIPs checks the addresses, whether asked for or given, with
// their families.
func validateClusterIPs(s *corev1.ServiceSpec) field.ErrorList {
	path := specPath.Child("clusterIPs")
	var errs field.ErrorList
	if len(s.ClusterIPs) == 0 {
		if s.ClusterIP != "" {
			errs = append(errs, field.Required(path, ""))
		}
	} else if s.ClusterIP != s.ClusterIPs[0] {
		errs = append(errs, field.Invalid(path, s.ClusterIPs, "first value must match `clusterIP`"))
	}
	for i, ip := range s.ClusterIPs {
		if ip == corev1.ClusterIPNone {
			if len(s.ClusterIPs) > 1 {
				errs = append(errs, field.Invalid(path.Index(i), ip, "'None' must be the first and only value"))
			}
			continue
		}
		if bad := validation.IsValidIPForLegacyField(path.Index(i), ip, false, nil); len(bad) > 0 {
			errs = append(errs, bad...)
		} else if i < len(s.IPFamilies) && FamilyOf(ip) != s.IPFamilies[i] {
			errs = append(errs, field.Invalid(path.Index(i), ip, fmt.Sprintf("expected an %v value as indicated by `ipFamilies[%v]`", s.IPFamilies[i], i)))
		}
	}
	if len(s.ClusterIPs) > 2 {
		errs = append(errs, field.Invalid(path, s.ClusterIPs, "may only hold up to 2 values"))
	} else if len(s.ClusterIPs) == 2 && len(errs) == 0 && FamilyOf(s.ClusterIPs[0]) == FamilyOf(s.ClusterIPs[1]) {
		errs = append(errs, field.Invalid(path, s.ClusterIPs, "may specify no more than one IP for each IP family"))
	}
	return append(errs, validateFamilies(s)...)
}

func validateFamilies(s *corev1.ServiceSpec) field.ErrorList {
	path := specPath.Child("ipFamilies")
	var errs field.ErrorList
	for i, f := range s.IPFamilies {
		errs = append(errs, oneOf(path.Index(i), f, corev1.IPv4Protocol, corev1.IPv6Protocol)...)
		if slices.Contains(s.IPFamilies[:i], f) {
			errs = append(errs, field.Duplicate(path.Index(i), f))
		}
	}
	if s.IPFamilyPolicy != nil {
		p := specPath.Child("ipFamilyPolicy")
		errs = append(errs, oneOf(p, *s.IPFamilyPolicy, corev1.IPFamilyPolicySingleStack, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack)...)
		if *s.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack && (len(s.IPFamilies) > 1 || len(s.ClusterIPs) > 1) {
			errs = append(errs, field.Invalid(p, *s.IPFamilyPolicy, "must be RequireDualStack or PreferDualStack when multiple values are specified in ipFamilies"))
		}
	}
	return errs
}

// FamilyOf is the family of an address that has been validated.
func FamilyOf(ip string) corev1.IPFamily {
	if a, err := netip.ParseAddr(ip); err == nil && a.Is6() && !a.Is4In6() {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

func validateServicePorts(s *corev1.ServiceSpec, headless bool, path *field.Path) field.ErrorList {
	type key struct {
		protocol corev1.Protocol
		port     int32
	}
	var errs field.ErrorList
	names := sets.New[string]()
	seen, nodePorts := make(map[key]bool, len(s.Ports)), make(map[key]bool, len(s.Ports))
	for i := range s.Ports {
		port, p := &s.Ports[i], path.Index(i)
		errs = append(errs, validateServicePort(port, len(s.Ports) > 1, headless, names, p)...)
		if k := (key{port.Protocol, port.Port}); seen[k] {
			errs = append(errs, field.Duplicate(p, corev1.ServicePort{Protocol: port.Protocol, Port: port.Port}))
		} else {
			seen[k] = true
		}
		if port.NodePort == 0 {
			continue
		}
		if !external(s.Type) {
			errs = append(errs, field.Forbidden(p.Child("nodePort"), "may not be used when `type` is '"+string(s.Type)+"'"))
		}
		k := key{port.Protocol, port.NodePort}
		if nodePorts[k] {
			errs = append(errs, field.Duplicate(p.Child("nodePort"), port.NodePort))
		}
		nodePorts[k] = true
	}
	return errs
}

func validateServicePort(port *corev1.ServicePort, named, headless bool, names sets.Set[string], p *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case port.Name == "" && named:
		errs = append(errs, field.Required(p.Child("name"), ""))
	case port.Name != "":
		errs = append(errs, dnsLabel(p.Child("name"), port.Name)...)
		if names.Has(port.Name) {
			errs = append(errs, field.Duplicate(p.Child("name"), port.Name))
		}
		names.Insert(port.Name)
	}
	errs = append(errs, invalid(p.Child("port"), port.Port, validation.IsValidPortNum(int(port.Port)))...)
	errs = append(errs, oneOf(p.Child("protocol"), port.Protocol, protocols...)...)
	errs = append(errs, portOrName(p.Child("targetPort"), port.TargetPort)...)
	errs = append(errs, validateAppProtocol(port.AppProtocol, p.Child("appProtocol"))...)
	if headless && port.TargetPort.Type == intstr.String && port.TargetPort.StrVal == "" {
		errs = append(errs, field.Required(p.Child("targetPort"), ""))
	}
	return errs
}

func validateAffinityOfSessions(s *corev1.ServiceSpec) field.ErrorList {
	errs := oneOf(specPath.Child("sessionAffinity"), s.SessionAffinity, corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)
	p := specPath.Child("sessionAffinityConfig")
	switch s.SessionAffinity {
	case corev1.ServiceAffinityNone:
		if s.SessionAffinityConfig != nil {
			errs = append(errs, field.Forbidden(p, fmt.Sprintf("must not be set when session affinity is %s", corev1.ServiceAffinityNone)))
		}
	case corev1.ServiceAffinityClientIP:
		p = p.Child("clientIP", "timeoutSeconds")
		if c := s.SessionAffinityConfig; c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			errs = append(errs, field.Required(p, fmt.Sprintf("when session affinity is %s", corev1.ServiceAffinityClientIP)))
		} else if t := *c.ClientIP.TimeoutSeconds; t <= 0 || t > maxAffinityTimeout {
			errs = append(errs, field.Invalid(p, t, fmt.Sprintf("must be greater than 0 and less than %d", maxAffinityTimeout)))
		}
	}
	return errs
}

func validateTrafficPolicies(s *corev1.ServiceSpec) field.ErrorList {
	var errs field.ErrorList
	if p := specPath.Child("externalTrafficPolicy"); reachable(s) {
		errs = append(errs, oneOf(p, s.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)...)
	} else if s.ExternalTrafficPolicy != "" {
		errs = append(errs, field.Invalid(p, s.ExternalTrafficPolicy, "may only be set for externally-accessible services"))
	}
	p := specPath.Child("internalTrafficPolicy")
	switch {
	case s.InternalTrafficPolicy != nil:
		errs = append(errs, oneOf(p, *s.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)...)
	case s.Type != corev1.ServiceTypeExternalName:
		errs = append(errs, field.Required(p, ""))
	}
	if d := s.TrafficDistribution; d != nil {
		errs = append(errs, oneOf(specPath.Child("trafficDistribution"), *d, corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode)...)
	}
	return errs
}

func validateLoadBalancer(s *corev1.ServiceSpec) field.ErrorList {
	var errs field.ErrorList
	balanced := s.Type == corev1.ServiceTypeLoadBalancer
	if !balanced && len(s.LoadBalancerSourceRanges) > 0 {
		errs = append(errs, field.Forbidden(specPath.Child("LoadBalancerSourceRanges"), "may only be used when `type` is 'LoadBalancer'"))
	}
	for i, cidr := range s.LoadBalancerSourceRanges {
		errs = append(errs, validation.IsValidCIDRForLegacyField(specPath.Child("LoadBalancerSourceRanges").Index(i), strings.TrimSpace(cidr), false, nil)...)
	}
	if !balanced && s.AllocateLoadBalancerNodePorts != nil {
		errs = append(errs, field.Forbidden(specPath.Child("allocateLoadBalancerNodePorts"), "may only be used when `type` is 'LoadBalancer'"))
	}
	if balanced && s.AllocateLoadBalancerNodePorts == nil {
		errs = append(errs, field.Required(specPath.Child("allocateLoadBalancerNodePorts"), ""))
	}
	if s.LoadBalancerClass != nil {
		p := specPath.Child("loadBalancerClass")
		if !balanced {
			errs = append(errs, field.Forbidden(p, "may only be used when `type` is 'LoadBalancer'"))
		}
		errs = append(errs, invalid(p, *s.LoadBalancerClass, validation.IsQualifiedName(*s.LoadBalancerClass))...)
	}
	if s.HealthCheckNodePort != 0 && !NeedsHealthCheck(s) {
		errs = append(errs, field.Invalid(specPath.Child("healthCheckNodePort"), s.HealthCheckNodePort, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"))
	}
	return errs
}

// validateServiceUpdate: an address, once given, stays with the service for as
// long as it has addresses at all.
func validateServiceUpdate(s, old *corev1.ServiceSpec) field.ErrorList {
	errs := validateService(s)
	if s.Type == corev1.ServiceTypeExternalName || old.Type == corev1.ServiceTypeExternalName {
		return errs
	}
	if len(old.ClusterIPs) > 0 && (len(s.ClusterIPs) == 0 || s.ClusterIPs[0] != old.ClusterIPs[0]) {
		errs = append(errs, field.Invalid(specPath.Child("clusterIPs").Index(0), s.ClusterIPs, "may not change once set"))
	}
	if len(s.ClusterIPs) > 1 && len(old.ClusterIPs) > 1 && s.ClusterIPs[1] != old.ClusterIPs[1] {
		errs = append(errs, field.Invalid(specPath.Child("clusterIPs").Index(1), s.ClusterIPs, "may not change once set"))
	}
	if len(s.IPFamilies) > 0 && len(old.IPFamilies) > 0 && s.IPFamilies[0] != old.IPFamilies[0] {
		errs = append(errs, field.Invalid(specPath.Child("ipFamilies").Index(0), s.IPFamilies, "may not change once set"))
	}
	if old.Type == corev1.ServiceTypeLoadBalancer && s.Type == corev1.ServiceTypeLoadBalancer && deref(s.LoadBalancerClass) != deref(old.LoadBalancerClass) {
		errs = append(errs, field.Invalid(specPath.Child("loadBalancerClass"), s.LoadBalancerClass, "may not change once set"))
	}
	return errs
}
