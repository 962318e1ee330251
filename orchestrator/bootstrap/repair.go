package bootstrap

import (
	"bytes"
	"slices"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// repaired is what have should be so that it is at least what want says, and
// whether that differs. It changes neither. replace says that only deleting and
// making it anew can help.
func repaired(have, want client.Object) (fixed client.Object, replace, changed bool) {
	switch w := want.(type) {
	case *rbacv1.ClusterRole:
		h := have.(*rbacv1.ClusterRole).DeepCopy()
		if kept(h.Annotations) {
			return h, false, false
		}
		changed = mergeMeta(h, w)
		if h.AggregationRule == nil && w.AggregationRule == nil {
			n := len(h.Rules)
			h.Rules = addRules(h.Rules, w.Rules)
			return h, false, changed || len(h.Rules) != n
		}
		return h, false, addSelectors(h, w) || changed
	case *rbacv1.Role:
		h := have.(*rbacv1.Role).DeepCopy()
		if kept(h.Annotations) {
			return h, false, false
		}
		changed = mergeMeta(h, w)
		n := len(h.Rules)
		h.Rules = addRules(h.Rules, w.Rules)
		return h, false, changed || len(h.Rules) != n
	case *rbacv1.ClusterRoleBinding:
		return repairBinding(have.(*rbacv1.ClusterRoleBinding), w)
	case *apiextensionsv1.CustomResourceDefinition:
		return repairDefinition(have.(*apiextensionsv1.CustomResourceDefinition), w)
	case *corev1.Service:
		h := have.(*corev1.Service).DeepCopy()
		return h, h.Spec.ClusterIP != w.Spec.ClusterIP && w.Spec.ClusterIP != "", repairService(h, w)
	}
	// Namespaces and priority classes only have to exist.
	return have, false, false
}

// kept says that the user wants an object left alone.
func kept(annotations map[string]string) bool { return annotations[autoUpdate] == "false" }

func mergeMeta(have, want client.Object) (changed bool) {
	merge := func(have, want map[string]string) map[string]string {
		for k, v := range want {
			if _, ok := have[k]; ok {
				continue
			}
			if have == nil {
				have = map[string]string{}
			}
			have[k], changed = v, true
		}
		return have
	}
	have.SetLabels(merge(have.GetLabels(), want.GetLabels()))
	have.SetAnnotations(merge(have.GetAnnotations(), want.GetAnnotations()))
	return changed
}

// addSelectors completes an aggregated role. Its rules are the Aggregator's.
func addSelectors(have, want *rbacv1.ClusterRole) (changed bool) {
	if want.AggregationRule == nil {
		return false
	}
	if have.AggregationRule == nil {
		have.AggregationRule = want.AggregationRule.DeepCopy()
		return true
	}
	for _, s := range want.AggregationRule.ClusterRoleSelectors {
		found := false
		for _, h := range have.AggregationRule.ClusterRoleSelectors {
			found = found || equality.Semantic.DeepEqual(h, s)
		}
		if !found {
			have.AggregationRule.ClusterRoleSelectors = append(have.AggregationRule.ClusterRoleSelectors, s)
			changed = true
		}
	}
	return changed
}

func repairBinding(have, want *rbacv1.ClusterRoleBinding) (client.Object, bool, bool) {
	h := have.DeepCopy()
	if kept(h.Annotations) {
		return h, false, false
	}
	if h.RoleRef != want.RoleRef {
		return h, true, true // a binding's role cannot be changed
	}
	changed := mergeMeta(h, want)
	for _, s := range want.Subjects {
		if !slices.Contains(h.Subjects, s) {
			h.Subjects = append(h.Subjects, s)
			changed = true
		}
	}
	return h, false, changed
}

// repairDefinition gives a definition the schema of this version of the program,
// unless the user said to leave it alone.
func repairDefinition(have, want *apiextensionsv1.CustomResourceDefinition) (client.Object, bool, bool) {
	if kept(have.Annotations) {
		return have, false, false
	}
	want = want.DeepCopy()
	apiextensionsv1.SetObjectDefaults_CustomResourceDefinition(want)
	a, errA := have.Spec.Marshal()
	b, errB := want.Spec.Marshal()
	if errA == nil && errB == nil && bytes.Equal(a, b) {
		return have, false, false
	}
	h := have.DeepCopy()
	mergeMeta(h, want)
	h.Spec = want.Spec
	return h, false, true
}

// repairService restores what the dataplane and the clients count on.
func repairService(have, want *corev1.Service) (changed bool) {
	changed = mergeMeta(have, want)
	if want.Spec.InternalTrafficPolicy != nil && !equality.Semantic.DeepEqual(have.Spec.InternalTrafficPolicy, want.Spec.InternalTrafficPolicy) {
		have.Spec.InternalTrafficPolicy, changed = want.Spec.InternalTrafficPolicy, true
	}
	for _, p := range want.Spec.Ports {
		i := slices.IndexFunc(have.Spec.Ports, func(h corev1.ServicePort) bool { return h.Port == p.Port && h.Protocol == p.Protocol })
		if i < 0 {
			have.Spec.Ports = append(have.Spec.Ports, p)
			changed = true
		}
	}
	return changed || have.Spec.ClusterIP != want.Spec.ClusterIP && want.Spec.ClusterIP != ""
}
