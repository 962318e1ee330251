package serviceaccount

import (
	corev1 "k8s.io/api/core/v1"
)

// name is the account that pods get which name none.
const name = "default"

// Plan says what a namespace lacks. The zero Plan means converged.
type Plan struct {
	Create bool
}

// compute makes the plan; account is nil if there is none.
func compute(ns *corev1.Namespace, account *corev1.ServiceAccount) Plan {
	active := ns.DeletionTimestamp == nil && ns.Status.Phase != corev1.NamespaceTerminating
	return Plan{Create: active && account == nil}
}

// String prints one line an action.
func (p Plan) String() string {
	if p.Create {
		return "create service account " + name + "\n"
	}
	return ""
}
