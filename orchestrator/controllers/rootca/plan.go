package rootca

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	name        = "kube-root-ca.crt"
	key         = "ca.crt"
	description = "The CA bundle that verifies the API server when it is reached inside the cluster, as by kubernetes.default.svc."
)

// Plan says what a namespace lacks. The zero Plan means converged.
type Plan struct {
	Create, Update *corev1.ConfigMap
}

// compute makes the plan; have is nil if there is no such ConfigMap.
func compute(ns *corev1.Namespace, have *corev1.ConfigMap, ca string) Plan {
	data := map[string]string{key: ca}
	switch {
	case ns.DeletionTimestamp != nil, ns.Status.Phase == corev1.NamespaceTerminating:
		return Plan{}
	case have == nil:
		return Plan{Create: &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: ns.Name, Name: name,
				Annotations: map[string]string{"kubernetes.io/description": description},
			},
			Data: data,
		}}
	case !maps.Equal(have.Data, data):
		next := *have // its maps are not changed
		next.Data = data
		return Plan{Update: &next}
	}
	return Plan{}
}

// String prints one line an action.
func (p Plan) String() string {
	switch {
	case p.Create != nil:
		return "create config map " + p.Create.Namespace + "/" + name + "\n"
	case p.Update != nil:
		return "update config map " + p.Update.Namespace + "/" + name + "\n"
	}
	return ""
}
