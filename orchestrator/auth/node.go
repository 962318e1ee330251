package auth

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// A node reads only what its pods need and writes only what is its own:
//
//	secrets, configmaps       read by name, if a pod bound to the node refers to them
//	serviceaccounts           get, and create tokens, if a pod bound to the node runs as them
//	persistentvolumeclaims    get, likewise
//	pods                      read by name or by spec.nodeName, if bound to the node
//	nodes, leases, csinodes   its own
//	everything else           what the ClusterRole system:node allows
//
// https://kubernetes.io/docs/reference/access-authn-authz/node/

const (
	byNodeReference = "node-reference"
	roleNode        = "system:node"
	namespaceLeases = "kube-node-lease"
)

// nodeName is the node that a user is, if it is one.
func nodeName(u user.Info) (string, bool) {
	name, ok := strings.CutPrefix(u.GetName(), prefixNode)
	return name, ok && name != "" && hasGroup(u, GroupNodes)
}

// authorizeNode decides for a node. It never denies: RBAC may still allow more.
func (a *Authorizer) authorizeNode(node string, at *Attributes) (Decision, string) {
	guarded, ok := a.nodeOwns(node, at)
	if !guarded {
		rules, found := a.clusterRole(roleNode)
		ok = found && rulesAllow(rules, at)
	}
	if ok {
		return Allow, ""
	}
	if guarded {
		return NoOpinion, fmt.Sprintf("no relationship found between node '%s' and this object", node)
	}
	return NoOpinion, ""
}

// nodeOwns says whether a node has to do with an object. guarded is false for
// resources that need no relation.
func (a *Authorizer) nodeOwns(node string, at *Attributes) (guarded, ok bool) {
	switch at.Group + "/" + at.Resource {
	case "/secrets", "/configmaps":
		return true, at.Subresource == "" && isRead(at.Verb) && a.refers(node, at)
	case "/persistentvolumeclaims":
		return at.Subresource == "", at.Verb == "get" && a.refers(node, at)
	case "/serviceaccounts":
		token := at.Subresource == "token" && at.Verb == "create"
		return true, (token || at.Subresource == "" && at.Verb == "get") && a.refers(node, at)
	case "/pods":
		if !isRead(at.Verb) || at.Subresource != "" {
			return false, false // system:node allows writes, admission checks that the pod is the node's
		}
		return true, a.readsOwnPods(node, at)
	case "/nodes":
		if isRead(at.Verb) {
			return true, at.Name == node
		}
		return false, false
	case "coordination.k8s.io/leases":
		return true, at.Namespace == namespaceLeases && at.Verb != "list" && at.Verb != "watch" && (at.Name == node || at.Verb == "create")
	case "storage.k8s.io/csinodes":
		return true, at.Name == node || at.Verb == "create"
	}
	return false, false
}

func (a *Authorizer) readsOwnPods(node string, at *Attributes) bool {
	if at.Name != "" {
		pod, ok := a.pods.Get(at.Namespace, at.Name)
		return ok && pod.Spec.NodeName == node
	}
	selector, err := fields.ParseSelector(at.FieldSelector)
	if err != nil {
		return false
	}
	value, ok := selector.RequiresExactMatch("spec.nodeName")
	return ok && value == node
}

func (a *Authorizer) refers(node string, at *Attributes) bool {
	return at.Name != "" && at.Namespace != "" &&
		len(a.pods.ByIndex(byNodeReference, referenceKey(node, at.Resource, at.Namespace, at.Name))) > 0
}

func isRead(verb string) bool { return verb == "get" || verb == "list" || verb == "watch" }

func referenceKey(node, resource, namespace, name string) string {
	return node + "|" + resource + "|" + namespace + "/" + name
}

// nodeReferences are the index values of a pod: all that its node must read for it.
func nodeReferences(o client.Object) []string {
	pod := o.(*corev1.Pod)
	if pod.Spec.NodeName == "" {
		return nil
	}
	var keys []string
	add := func(resource, name string) {
		if name != "" {
			keys = append(keys, referenceKey(pod.Spec.NodeName, resource, pod.Namespace, name))
		}
	}
	add("serviceaccounts", pod.Spec.ServiceAccountName)
	for _, s := range pod.Spec.ImagePullSecrets {
		add("secrets", s.Name)
	}
	for i := range pod.Spec.Volumes {
		volumeReferences(&pod.Spec.Volumes[i], pod.Name, add)
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			envReferences(&list[i], add)
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		c := corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		envReferences(&c, add)
	}
	return keys
}

func volumeReferences(v *corev1.Volume, pod string, add func(resource, name string)) {
	switch {
	case v.Secret != nil:
		add("secrets", v.Secret.SecretName)
	case v.ConfigMap != nil:
		add("configmaps", v.ConfigMap.Name)
	case v.PersistentVolumeClaim != nil:
		add("persistentvolumeclaims", v.PersistentVolumeClaim.ClaimName)
	case v.Ephemeral != nil:
		add("persistentvolumeclaims", pod+"-"+v.Name)
	case v.CSI != nil && v.CSI.NodePublishSecretRef != nil:
		add("secrets", v.CSI.NodePublishSecretRef.Name)
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s.Secret != nil {
				add("secrets", s.Secret.Name)
			}
			if s.ConfigMap != nil {
				add("configmaps", s.ConfigMap.Name)
			}
		}
	}
}

func envReferences(c *corev1.Container, add func(resource, name string)) {
	for _, from := range c.EnvFrom {
		if from.SecretRef != nil {
			add("secrets", from.SecretRef.Name)
		}
		if from.ConfigMapRef != nil {
			add("configmaps", from.ConfigMapRef.Name)
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			continue
		}
		if ref := e.ValueFrom.SecretKeyRef; ref != nil {
			add("secrets", ref.Name)
		}
		if ref := e.ValueFrom.ConfigMapKeyRef; ref != nil {
			add("configmaps", ref.Name)
		}
	}
}
