package clusterip

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// families are the cluster's, the primary one first.
type families []corev1.IPFamily

var specPath = field.NewPath("spec")

// complete fills in a service's IP families and their policy, and says how many
// addresses it is to have: one for each family, or none if it is headless. The
// service has not been validated; what is plainly wrong is left for validation.
//
// https://kubernetes.io/docs/concepts/services-networking/dual-stack/
func (f families) complete(s, old *corev1.ServiceSpec) field.ErrorList {
	if s.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	if old != nil {
		downgrade(s, old)
	}
	if errs := f.infer(s); len(errs) > 0 {
		return errs
	}
	f.policy(s)
	if errs := f.check(s); len(errs) > 0 {
		return errs
	}
	f.fill(s)
	return nil
}

// downgrade drops the second address of a service that is to be single-stack
// from now on, if the client left it as it was.
func downgrade(s, old *corev1.ServiceSpec) {
	single := s.IPFamilyPolicy != nil && *s.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack
	wasSingle := old.IPFamilyPolicy != nil && *old.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack
	if !single || wasSingle {
		return
	}
	if len(s.ClusterIPs) == 2 && slices.Equal(s.ClusterIPs, old.ClusterIPs) {
		s.ClusterIPs = s.ClusterIPs[:1]
	}
	if len(s.IPFamilies) == 2 && slices.Equal(s.IPFamilies, old.IPFamilies) {
		s.IPFamilies = s.IPFamilies[:1]
	}
}

// infer takes families from the addresses that were asked for.
func (f families) infer(s *corev1.ServiceSpec) field.ErrorList {
	for i, ip := range s.ClusterIPs {
		if ip == corev1.ClusterIPNone || i > 1 {
			break
		}
		family := resource.FamilyOf(ip)
		if i < len(s.IPFamilies) {
			if s.IPFamilies[i] != family {
				return field.ErrorList{field.Invalid(specPath.Child("clusterIPs").Index(i), ip,
					fmt.Sprintf("expected an %v value as indicated by `ipFamilies[%v]`", s.IPFamilies[i], i))}
			}
			continue
		}
		s.IPFamilies = append(s.IPFamilies, family)
	}
	return nil
}

func (f families) policy(s *corev1.ServiceSpec) {
	if s.IPFamilyPolicy != nil {
		return
	}
	policy := corev1.IPFamilyPolicySingleStack
	// A headless service without selector may have endpoints of any family.
	if len(s.Selector) == 0 && s.ClusterIP == corev1.ClusterIPNone && len(s.IPFamilies) == 0 {
		policy = corev1.IPFamilyPolicyRequireDualStack
	}
	s.IPFamilyPolicy = &policy
}

func (f families) check(s *corev1.ServiceSpec) field.ErrorList {
	selectorless := len(s.Selector) == 0 && s.ClusterIP == corev1.ClusterIPNone
	if selectorless {
		return nil
	}
	var errs field.ErrorList
	for i, family := range s.IPFamilies {
		if !slices.Contains(f, family) {
			errs = append(errs, field.Invalid(specPath.Child("ipFamilies").Index(i), family, "not configured on this cluster"))
		}
	}
	if *s.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack && len(f) < 2 {
		errs = append(errs, field.Invalid(specPath.Child("ipFamilyPolicy"), *s.IPFamilyPolicy, "this cluster is not configured for dual-stack services"))
	}
	if len(s.IPFamilies) > 1 && *s.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack {
		errs = append(errs, field.Invalid(specPath.Child("ipFamilyPolicy"), *s.IPFamilyPolicy, "must be RequireDualStack or PreferDualStack when multiple values are specified in ipFamilies"))
	}
	return errs
}

// fill completes the families by the policy.
func (f families) fill(s *corev1.ServiceSpec) {
	if len(s.IPFamilies) == 0 {
		s.IPFamilies = []corev1.IPFamily{f[0]}
	}
	if *s.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack || len(s.IPFamilies) > 1 {
		return
	}
	other := corev1.IPv6Protocol
	if s.IPFamilies[0] == other {
		other = corev1.IPv4Protocol
	}
	if *s.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack || slices.Contains(f, other) {
		s.IPFamilies = append(s.IPFamilies, other)
	}
}
