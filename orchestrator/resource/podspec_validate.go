package resource

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validatePodSpec checks the spec of a pod or of a template; it is defaulted.
func validatePodSpec(s *corev1.PodSpec, p *field.Path) field.ErrorList {
	scope := podScope{
		names:       make(sets.Set[string], len(s.Containers)+len(s.InitContainers)),
		claims:      podClaims(s),
		grace:       s.TerminationGracePeriodSeconds,
		hostNetwork: s.HostNetwork,
	}
	var errs field.ErrorList
	scope.volumes, errs = validateVolumes(s.Volumes, p.Child("volumes"))
	errs = append(errs, scope.validateContainers(s.Containers, p.Child("containers"))...)
	errs = append(errs, scope.validateInitContainers(s.InitContainers, p.Child("initContainers"))...)
	errs = append(errs, scope.validateEphemeral(s, p.Child("ephemeralContainers"))...)
	errs = append(errs, validatePodPolicies(s, p)...)
	errs = append(errs, validatePodScheduling(s, p)...)
	errs = append(errs, validatePodNetwork(s, p)...)
	errs = append(errs, validatePodSecurityContext(s, p.Child("securityContext"))...)
	if s.Resources != nil {
		errs = append(errs, validateResources(s.Resources, scope.claims, p.Child("resources"), forPod)...)
		errs = append(errs, validatePodLimits(s, p.Child("resources"))...)
	}
	return errs
}

func podClaims(s *corev1.PodSpec) sets.Set[string] {
	claims := sets.New[string]()
	for _, c := range s.ResourceClaims {
		claims.Insert(c.Name)
	}
	return claims
}

func validatePodPolicies(s *corev1.PodSpec, p *field.Path) field.ErrorList {
	errs := oneOf(p.Child("restartPolicy"), s.RestartPolicy, corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	errs = append(errs, oneOf(p.Child("dnsPolicy"), s.DNSPolicy, corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)...)
	if s.ServiceAccountName != "" {
		errs = append(errs, dnsSubdomain(p.Child("serviceAccountName"), s.ServiceAccountName)...)
	}
	errs = append(errs, deadline(p.Child("activeDeadlineSeconds"), s.ActiveDeadlineSeconds)...)
	if s.PriorityClassName != "" {
		errs = append(errs, dnsSubdomain(p.Child("priorityClassName"), s.PriorityClassName)...)
	}
	if s.RuntimeClassName != nil {
		errs = append(errs, dnsSubdomain(p.Child("runtimeClassName"), *s.RuntimeClassName)...)
	}
	if s.PreemptionPolicy != nil {
		errs = append(errs, oneOf(p.Child("preemptionPolicy"), *s.PreemptionPolicy, corev1.PreemptLowerPriority, corev1.PreemptNever)...)
	}
	if s.OS != nil {
		errs = append(errs, oneOf(p.Child("os", "name"), s.OS.Name, corev1.Linux, corev1.Windows)...)
	}
	for i, g := range s.ReadinessGates {
		path := p.Child("readinessGates").Index(i).Child("conditionType")
		errs = append(errs, invalid(path, string(g.ConditionType), validation.IsQualifiedName(string(g.ConditionType)))...)
	}
	return errs
}

func validatePodScheduling(s *corev1.PodSpec, p *field.Path) field.ErrorList {
	errs := metav1validation.ValidateLabels(s.NodeSelector, p.Child("nodeSelector"))
	if s.NodeName != "" {
		errs = append(errs, dnsSubdomain(p.Child("nodeName"), s.NodeName)...)
	}
	errs = append(errs, validateAffinity(s.Affinity, p.Child("affinity"))...)
	errs = append(errs, validateTolerations(s.Tolerations, p.Child("tolerations"))...)
	errs = append(errs, validateSpread(s.TopologySpreadConstraints, p.Child("topologySpreadConstraints"))...)
	errs = append(errs, validateSchedulingGates(s.SchedulingGates, p.Child("schedulingGates"))...)
	for name, q := range s.Overhead {
		errs = append(errs, validateQuantity(name, q, p.Child("overhead").Key(string(name)))...)
	}
	return errs
}

func validatePodNetwork(s *corev1.PodSpec, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Hostname != "" {
		errs = append(errs, dnsLabel(p.Child("hostname"), s.Hostname)...)
	}
	if s.Subdomain != "" {
		errs = append(errs, dnsLabel(p.Child("subdomain"), s.Subdomain)...)
	}
	if s.HostnameOverride != nil {
		errs = append(errs, validateHostnameOverride(s, p.Child("hostnameOverride"))...)
	}
	for i, a := range s.HostAliases {
		p := p.Child("hostAliases").Index(i)
		errs = append(errs, validation.IsValidIPForLegacyField(p.Child("ip"), a.IP, false, nil)...)
		for j, h := range a.Hostnames {
			errs = append(errs, dnsSubdomain(p.Child("hostnames").Index(j), h)...)
		}
	}
	return append(errs, validateDNSConfig(s, p.Child("dnsConfig"))...)
}

func validateHostnameOverride(s *corev1.PodSpec, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(*s.HostnameOverride) > 64 {
		errs = append(errs, field.TooLong(p, *s.HostnameOverride, 64))
	}
	errs = append(errs, dnsSubdomain(p, *s.HostnameOverride)...)
	if s.HostNetwork {
		errs = append(errs, field.Forbidden(p, "may not be specified when hostNetwork is true"))
	}
	return errs
}

const (
	maxNameservers  = 3
	maxSearchPaths  = 32
	maxSearchLength = 2048
)

func validateDNSConfig(s *corev1.PodSpec, p *field.Path) field.ErrorList {
	c := s.DNSConfig
	if s.DNSPolicy == corev1.DNSNone {
		if c == nil {
			return field.ErrorList{field.Required(p, "must provide `dnsConfig` when `dnsPolicy` is None")}
		}
		if len(c.Nameservers) == 0 {
			return field.ErrorList{field.Required(p.Child("nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None")}
		}
	}
	if c == nil {
		return nil
	}
	var errs field.ErrorList
	if len(c.Nameservers) > maxNameservers {
		errs = append(errs, field.Invalid(p.Child("nameservers"), c.Nameservers, "must not have more than 3 nameservers"))
	}
	for i, ns := range c.Nameservers {
		errs = append(errs, validation.IsValidIPForLegacyField(p.Child("nameservers").Index(i), ns, false, nil)...)
	}
	if len(c.Searches) > maxSearchPaths {
		errs = append(errs, field.Invalid(p.Child("searches"), c.Searches, "must not have more than 32 search paths"))
	}
	if len(strings.Join(c.Searches, " ")) > maxSearchLength {
		errs = append(errs, field.Invalid(p.Child("searches"), c.Searches, "must not have more than 2048 characters (including spaces) in the search list"))
	}
	for i, search := range c.Searches {
		if search == "." {
			continue
		}
		name := strings.ReplaceAll(strings.TrimSuffix(search, "."), "_", "-")
		errs = append(errs, invalid(p.Child("searches").Index(i), search, validation.IsDNS1123Subdomain(name))...)
	}
	for i, o := range c.Options {
		if o.Name == "" {
			errs = append(errs, field.Required(p.Child("options").Index(i), "must not be empty"))
		}
	}
	return errs
}

// validatePodLimits: a container may not be promised more than its pod.
func validatePodLimits(s *corev1.PodSpec, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for name, limit := range s.Resources.Limits {
		for i := range s.Containers {
			if l, ok := s.Containers[i].Resources.Limits[name]; ok && l.Cmp(limit) > 0 {
				errs = append(errs, field.Invalid(p.Child("limits").Key(string(name)), limit.String(), "must be greater than or equal to container limit of "+l.String()))
			}
		}
	}
	return errs
}

// validateEphemeral checks the containers that are added for debugging: they
// have no ports, probes, hooks or resources.
func (s *podScope) validateEphemeral(spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	targets := sets.New[string]()
	for i := range spec.Containers {
		targets.Insert(spec.Containers[i].Name)
	}
	for i := range spec.InitContainers {
		targets.Insert(spec.InitContainers[i].Name)
	}
	for i := range spec.EphemeralContainers {
		e, p := &spec.EphemeralContainers[i], path.Index(i)
		c := (*corev1.Container)(&e.EphemeralContainerCommon)
		errs = append(errs, s.validateContainer(c, p)...)
		if e.TargetContainerName != "" && !targets.Has(e.TargetContainerName) {
			errs = append(errs, field.NotFound(p.Child("targetContainerName"), e.TargetContainerName))
		}
		errs = append(errs, forbidHooks(c, p, "cannot be set for an Ephemeral Container")...)
		if len(c.Ports) > 0 {
			errs = append(errs, field.Forbidden(p.Child("ports"), "cannot be set for an Ephemeral Container"))
		}
		if len(c.Resources.Limits)+len(c.Resources.Requests) > 0 {
			errs = append(errs, field.Forbidden(p.Child("resources"), "cannot be set for an Ephemeral Container"))
		}
		if c.RestartPolicy != nil {
			errs = append(errs, field.Forbidden(p.Child("restartPolicy"), "may not be set for non-init containers"))
		}
		for j, m := range c.VolumeMounts {
			if m.SubPath != "" || m.SubPathExpr != "" {
				errs = append(errs, field.Forbidden(p.Child("volumeMounts").Index(j).Child("subPath"), "cannot be set for an Ephemeral Container"))
			}
		}
	}
	return errs
}
