package tokensecret

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// apply carries out a plan; account is not nil where there is something to fill.
func (c *Controller) apply(ctx context.Context, secret *corev1.Secret, account *corev1.ServiceAccount, p Plan) error {
	switch {
	case p.Delete:
		err := c.secrets.Delete(ctx, secret.Namespace, secret.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &secret.UID}})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete secret %s, whose service account is gone: %w", client.Key(secret), err)
		}
	case p.Fill:
		next, err := c.filled(secret, account)
		if err != nil {
			return err
		}
		if _, err := c.secrets.Update(ctx, next); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("fill secret %s: %w", client.Key(secret), err)
		}
	}
	return nil
}

// filled returns the secret with its data complete; a token that is there stays.
func (c *Controller) filled(secret *corev1.Secret, account *corev1.ServiceAccount) (*corev1.Secret, error) {
	next := secret.DeepCopy()
	if next.Annotations == nil {
		next.Annotations = map[string]string{}
	}
	next.Annotations[corev1.ServiceAccountUIDKey] = string(account.UID)
	if next.Data == nil {
		next.Data = map[string][]byte{}
	}
	next.Data[corev1.ServiceAccountRootCAKey] = c.cfg.CA
	next.Data[corev1.ServiceAccountNamespaceKey] = []byte(secret.Namespace)
	if len(next.Data[corev1.ServiceAccountTokenKey]) > 0 {
		return next, nil
	}
	token, err := c.cfg.Signer.Legacy(account, secret)
	if err != nil {
		return nil, fmt.Errorf("sign token for secret %s: %w", client.Key(secret), err)
	}
	next.Data[corev1.ServiceAccountTokenKey] = []byte(token)
	return next, nil
}
