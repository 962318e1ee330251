package resource

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// A node is its agent's, but for labels, taints and unschedulable, which are
// anybody's, and the addresses of its pods, which are set once.
func nodeKind() *Kind {
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Node"),
		Resource:         "nodes",
		Singular:         "node",
		ShortNames:       []string{"no"},
		New:              func() Object { return &corev1.Node{} },
		NewList:          func() runtime.Object { return &corev1.NodeList{} },

		Default: func(o Object) { defaultNode(o.(*corev1.Node)) },
		PrepareUpdate: func(o, old Object) {
			o.(*corev1.Node).Status = old.(*corev1.Node).Status
		},
		ValidateCreate: func(o Object) field.ErrorList { return validateNode(o.(*corev1.Node)) },
		ValidateUpdate: validateNodeUpdate,
		Warnings:       nodeWarnings,
		Resets:         statusReset,

		FieldNames: []string{"spec.unschedulable"},
		Fields: func(o Object) fields.Set {
			return fields.Set{"metadata.name": o.GetName(), "spec.unschedulable": strconv.FormatBool(o.(*corev1.Node).Spec.Unschedulable)}
		},
		Status: &Subresource{
			PrepareUpdate:  func(o, old Object) { o.(*corev1.Node).Spec = old.(*corev1.Node).Spec },
			ValidateUpdate: func(o, _ Object) field.ErrorList { return validateNodeStatus(o.(*corev1.Node)) },
			Resets:         onlySpecReset,
		},
		Columns: columns(nameColumn,
			col("Status", "string", "The status of the node"),
			col("Roles", "string", "The roles of the node"),
			ageColumn,
			col("Version", "string", corev1.NodeSystemInfo{}.SwaggerDoc()["kubeletVersion"]),
			wide("Internal-IP", "string", corev1.NodeStatus{}.SwaggerDoc()["addresses"]),
			wide("External-IP", "string", corev1.NodeStatus{}.SwaggerDoc()["addresses"]),
			wide("OS-Image", "string", corev1.NodeSystemInfo{}.SwaggerDoc()["osImage"]),
			wide("Kernel-Version", "string", corev1.NodeSystemInfo{}.SwaggerDoc()["kernelVersion"]),
			wide("Container-Runtime", "string", corev1.NodeSystemInfo{}.SwaggerDoc()["containerRuntimeVersion"])),
		Row: nodeRow,
	}
}

func defaultNode(n *corev1.Node) {
	if n.Status.Allocatable == nil && len(n.Status.Capacity) > 0 {
		n.Status.Allocatable = n.Status.Capacity.DeepCopy()
	}
	roundResources(n.Status.Capacity)
	roundResources(n.Status.Allocatable)
	switch {
	case n.Spec.PodCIDR != "" && (len(n.Spec.PodCIDRs) == 0 || n.Spec.PodCIDRs[0] != n.Spec.PodCIDR):
		n.Spec.PodCIDRs = []string{n.Spec.PodCIDR}
	case n.Spec.PodCIDR == "" && len(n.Spec.PodCIDRs) > 0:
		n.Spec.PodCIDR = n.Spec.PodCIDRs[0]
	}
}

func validateNode(n *corev1.Node) field.ErrorList {
	errs := validateTaints(n.Spec.Taints, specPath.Child("taints"))
	path := specPath.Child("podCIDRs")
	for i, cidr := range n.Spec.PodCIDRs {
		errs = append(errs, validation.IsValidCIDRForLegacyField(path.Index(i), cidr, false, nil)...)
	}
	if len(n.Spec.PodCIDRs) > 2 || len(n.Spec.PodCIDRs) == 2 && strings.Contains(n.Spec.PodCIDRs[0], ":") == strings.Contains(n.Spec.PodCIDRs[1], ":") {
		errs = append(errs, field.Invalid(path, n.Spec.PodCIDRs, "may specify no more than one CIDR for each IP family"))
	}
	return append(errs, validateNodeStatus(n)...)
}

func validateNodeStatus(n *corev1.Node) field.ErrorList {
	var errs field.ErrorList
	for name, list := range map[string]corev1.ResourceList{"capacity": n.Status.Capacity, "allocatable": n.Status.Allocatable} {
		for r, q := range list {
			path := field.NewPath("status", name).Key(string(r))
			errs = append(errs, validateResourceName(r, path, nil)...)
			errs = append(errs, validateQuantity(r, q, path)...)
		}
	}
	for i, a := range n.Status.Addresses {
		if slices.Contains(n.Status.Addresses[:i], a) {
			errs = append(errs, field.Duplicate(field.NewPath("status", "addresses").Index(i), a))
		}
	}
	return errs
}

func validateTaints(taints []corev1.Taint, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, t := range taints {
		p := path.Index(i)
		errs = append(errs, metav1validation.ValidateLabelName(t.Key, p.Child("key"))...)
		if msgs := validation.IsValidLabelValue(t.Value); len(msgs) > 0 {
			errs = append(errs, field.Invalid(p.Child("value"), t.Value, strings.Join(msgs, ";")))
		}
		errs = append(errs, oneOf(p.Child("effect"), t.Effect, taintEffects...)...)
		dup := slices.ContainsFunc(taints[:i], func(o corev1.Taint) bool { return o.Key == t.Key && o.Effect == t.Effect })
		if dup {
			e := field.Duplicate(p, t)
			e.Detail = "taints must be unique by key and effect pair"
			errs = append(errs, e)
		}
	}
	return errs
}

func validateNodeUpdate(o, before Object) field.ErrorList {
	n, old := o.(*corev1.Node), before.(*corev1.Node)
	errs := validateTaints(n.Spec.Taints, specPath.Child("taints"))
	if len(old.Spec.PodCIDRs) > 0 && !slices.Equal(n.Spec.PodCIDRs, old.Spec.PodCIDRs) {
		errs = append(errs, field.Forbidden(specPath.Child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid"))
	}
	if old.Spec.ProviderID != "" && n.Spec.ProviderID != old.Spec.ProviderID {
		errs = append(errs, field.Forbidden(specPath.Child("providerID"), "node updates may not change providerID except from \"\" to valid"))
	}
	if n.Spec.ConfigSource != nil && !equality.Semantic.DeepEqual(n.Spec.ConfigSource, old.Spec.ConfigSource) {
		errs = append(errs, field.Forbidden(specPath.Child("configSource"), "configSource may not be set"))
	}
	return errs
}

func nodeWarnings(o, old Object) []string {
	n := o.(*corev1.Node)
	var out []string
	if n.Spec.DoNotUseExternalID != "" && old == nil {
		out = append(out, "spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	return out
}

const roleLabel = "node-role.kubernetes.io/"

func nodeRow(o Object, now time.Time) []any {
	n := o.(*corev1.Node)
	info := n.Status.NodeInfo
	unknown := func(s string) string {
		if s == "" {
			return "<unknown>"
		}
		return s
	}
	return []any{n.Name, nodeStatus(n), nodeRoles(n), age(n.CreationTimestamp, now), info.KubeletVersion,
		nodeAddress(n, corev1.NodeInternalIP), nodeAddress(n, corev1.NodeExternalIP),
		unknown(info.OSImage), unknown(info.KernelVersion), unknown(info.ContainerRuntimeVersion)}
}

func nodeStatus(n *corev1.Node) string {
	status := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if c.Status == corev1.ConditionTrue {
			status = "Ready"
		} else {
			status = "NotReady"
		}
	}
	if n.Spec.Unschedulable {
		return fmt.Sprintf("%s,SchedulingDisabled", status)
	}
	return status
}

func nodeRoles(n *corev1.Node) string {
	var roles []string
	for k, v := range n.Labels {
		if role, ok := strings.CutPrefix(k, roleLabel); ok && role != "" {
			roles = append(roles, role)
		} else if k == "kubernetes.io/role" && v != "" {
			roles = append(roles, v)
		}
	}
	slices.Sort(roles)
	return orNone(strings.Join(slices.Compact(roles), ","))
}

func nodeAddress(n *corev1.Node, typ corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == typ {
			return a.Address
		}
	}
	return "<none>"
}
