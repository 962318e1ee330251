package auth

import (
	"context"
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/xebec-mesh/xebec/orchestrator/admission"
)

// NodeRestriction is the admission plugin that keeps a node to its own objects:
// its Node, its Lease, the pods bound to it, and tokens of those pods.
// https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction
type NodeRestriction struct{}

// Name is what errors call the plugin.
func (NodeRestriction) Name() string { return "NodeRestriction" }

// Validate refuses what is not the node's own. It has no opinion on other users.
func (NodeRestriction) Validate(_ context.Context, a *admission.Attributes) error {
	if a.User == nil {
		return nil
	}
	node, ok := nodeName(a.User)
	if !ok {
		return nil
	}
	var reason string
	switch a.Kind.Group + "/" + a.Kind.Resource {
	case "/nodes":
		reason = restrictNode(node, a)
	case "/pods":
		reason = restrictPod(node, a)
	case "/serviceaccounts":
		reason = restrictToken(a)
	case "coordination.k8s.io/leases":
		if l, isLease := a.Object.(*coordinationv1.Lease); isLease && (l.Namespace != namespaceLeases || l.Name != node) {
			reason = fmt.Sprintf("can only access lease in the %q system namespace with the same name as the node", namespaceLeases)
		}
	}
	if reason == "" {
		return nil
	}
	return apierrors.NewForbidden(a.Kind.GroupResource(), a.Name, fmt.Errorf("%s", reason))
}

func restrictNode(node string, a *admission.Attributes) string {
	n, _ := a.Object.(*corev1.Node)
	name := a.Name
	if n != nil && name == "" {
		name = n.Name
	}
	if name != node {
		return fmt.Sprintf("node %q is not allowed to modify node %q", node, name)
	}
	old, _ := a.OldObject.(*corev1.Node)
	if n == nil || old == nil {
		return ""
	}
	if a.Subresource == "" && !slices.EqualFunc(n.Spec.Taints, old.Spec.Taints, func(x, y corev1.Taint) bool { return x.MatchTaint(&y) && x.Value == y.Value }) {
		return fmt.Sprintf("node %q is not allowed to modify taints", node)
	}
	for key, value := range n.Labels {
		if strings.Contains(key, "node-restriction.kubernetes.io/") && old.Labels[key] != value {
			return fmt.Sprintf("node %q is not allowed to modify label %q", node, key)
		}
	}
	return ""
}

func restrictPod(node string, a *admission.Attributes) string {
	pod, _ := a.Object.(*corev1.Pod)
	if old, ok := a.OldObject.(*corev1.Pod); ok {
		pod = old
	}
	if pod == nil {
		return ""
	}
	if pod.Spec.NodeName != node {
		return fmt.Sprintf("node %q can only write pods with spec.nodeName set to itself", node)
	}
	if a.Operation != admissionv1.Create || a.Subresource != "" {
		return ""
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; !mirror {
		return fmt.Sprintf("pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node)
	}
	if pod.Spec.ServiceAccountName != "" {
		return fmt.Sprintf("node %q can not create pods that reference a service account", node)
	}
	return ""
}

func restrictToken(a *admission.Attributes) string {
	req, ok := a.Object.(*authenticationv1.TokenRequest)
	if !ok || a.Subresource != "token" {
		return ""
	}
	if ref := req.Spec.BoundObjectRef; ref == nil || ref.Kind != "Pod" || ref.APIVersion != "v1" || ref.UID == "" {
		return "node requested token not bound to a pod"
	}
	return ""
}
