package tokensecret

import (
	"bytes"

	corev1 "k8s.io/api/core/v1"
)

// Plan says what a secret lacks. The zero Plan means converged.
type Plan struct {
	Fill   bool // data and the annotation with the account's UID
	Delete bool // its account is gone, or is another one by the same name
}

// compute makes the plan; account is nil if it does not exist.
func compute(secret *corev1.Secret, account *corev1.ServiceAccount, ca []byte) Plan {
	uid := secret.Annotations[corev1.ServiceAccountUIDKey]
	switch {
	case secret.Type != corev1.SecretTypeServiceAccountToken || secret.DeletionTimestamp != nil:
		return Plan{}
	case account == nil, uid != "" && uid != string(account.UID):
		return Plan{Delete: true}
	case account.DeletionTimestamp != nil:
		return Plan{}
	}
	full := uid != "" && len(secret.Data[corev1.ServiceAccountTokenKey]) > 0 &&
		bytes.Equal(secret.Data[corev1.ServiceAccountRootCAKey], ca) &&
		string(secret.Data[corev1.ServiceAccountNamespaceKey]) == secret.Namespace
	return Plan{Fill: !full}
}

// String prints one line an action.
func (p Plan) String() string {
	switch {
	case p.Fill:
		return "fill secret\n"
	case p.Delete:
		return "delete secret\n"
	}
	return ""
}
