package bootstrap

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// parallel is how many objects are written at a time: the store commits them together.
const parallel = 16

// priorityClasses is the resource that package client does not name.
var priorityClasses = client.Resource{
	GroupVersionResource: schedulingv1.SchemeGroupVersion.WithResource("priorityclasses"),
	Kind:                 "PriorityClass",
}

// Ensure creates the objects that are missing, and completes those that are not
// what they must be. Namespaces go first. It may be called any number of times.
func Ensure(ctx context.Context, c client.Interface, objs []client.Object) error {
	var rest []client.Object
	first, firstCtx := errgroup.WithContext(ctx)
	first.SetLimit(parallel)
	for _, o := range objs {
		if _, ok := o.(*corev1.Namespace); !ok {
			rest = append(rest, o)
			continue
		}
		first.Go(func() error { return ensure(firstCtx, c, o) })
	}
	if err := first.Wait(); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, o := range rest {
		g.Go(func() error { return ensure(ctx, c, o) })
	}
	return g.Wait()
}

func ensure(ctx context.Context, c client.Interface, want client.Object) error {
	r, err := resourceOf(want)
	if err != nil {
		return err
	}
	for {
		err := ensureOnce(ctx, c, r, want)
		switch {
		case err == nil:
			return nil
		case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
			// Somebody else was quicker: look again.
		default:
			return fmt.Errorf("ensure %s %s: %w", r.Resource, client.Key(want), err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func ensureOnce(ctx context.Context, c client.Interface, r client.Resource, want client.Object) error {
	have, err := c.Get(ctx, r, client.Key(want))
	if apierrors.IsNotFound(err) {
		return create(ctx, c, r, want)
	}
	if err != nil {
		return err
	}
	fixed, replace, changed := repaired(have, want)
	switch {
	case !changed:
		return nil
	case !replace:
		_, err = c.Update(ctx, r, fixed, "", metav1.UpdateOptions{})
		return err
	}
	uid := have.GetUID()
	err = c.Delete(ctx, r, client.Key(want), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	return create(ctx, c, r, want)
}

func create(ctx context.Context, c client.Interface, r client.Resource, want client.Object) error {
	_, err := c.Create(ctx, r, want.DeepCopyObject().(client.Object), metav1.CreateOptions{})
	return err
}

func resourceOf(o client.Object) (client.Resource, error) {
	switch o.(type) {
	case *corev1.Namespace:
		return client.Namespaces.Resource, nil
	case *corev1.Service:
		return client.Services.Resource, nil
	case *corev1.ConfigMap:
		return client.ConfigMaps.Resource, nil
	case *rbacv1.ClusterRole:
		return client.ClusterRoles.Resource, nil
	case *rbacv1.ClusterRoleBinding:
		return client.ClusterRoleBindings.Resource, nil
	case *rbacv1.Role:
		return client.Roles.Resource, nil
	case *rbacv1.RoleBinding:
		return client.RoleBindings.Resource, nil
	case *schedulingv1.PriorityClass:
		return priorityClasses, nil
	case *apiextensionsv1.CustomResourceDefinition:
		return client.CustomResourceDefinitions.Resource, nil
	}
	return client.Resource{}, fmt.Errorf("ensure %T %s: no resource is known for this type", o, client.Key(o))
}
