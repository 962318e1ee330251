package custom

import (
	"context"
	"fmt"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// clearAgain is how soon a deletion of instances is looked at again: those with
// finalizers go when others let them.
const clearAgain = 500 * time.Millisecond

// reconcile takes one definition one step further.
func (c *Controller) reconcile(ctx context.Context, key types.NamespacedName) (time.Duration, error) {
	d, ok := c.view.Get("", key.Name)
	if !ok {
		c.forget(key.Name)
		return 0, nil
	}
	instances := -1
	var left []client.Object
	if d.DeletionTimestamp != nil && isTrue(&d.Status, apiextensionsv1.Established) {
		if err := c.serve(d); err != nil { // instances are listed through what serves them
			return 0, err
		}
		var err error
		if left, err = c.instances(ctx, d); err != nil {
			return 0, err
		}
		instances = len(left)
	}
	p := compute(d, c.view.List(""), instances, metav1.NewTime(c.cfg.Now()))
	if p.Serve && d.DeletionTimestamp == nil {
		accepted := d.DeepCopy()
		if p.Status != nil {
			accepted.Status = *p.Status
		}
		if err := c.serve(accepted); err != nil {
			return 0, err
		}
	}
	if p.Status != nil {
		next := d.DeepCopy()
		next.Status = *p.Status
		written, err := client.For(c.cfg.Client, client.CustomResourceDefinitions).UpdateStatus(ctx, next)
		if err != nil {
			return 0, ignoreStale(err, "write status of", d.Name)
		}
		d = written
	}
	if p.Clear {
		return clearAgain, c.clear(ctx, d, left)
	}
	if p.Finalize {
		return 0, c.finalize(ctx, d)
	}
	return 0, nil
}

// ignoreStale lets the next event deal with an object that changed meanwhile.
func ignoreStale(err error, what, name string) error {
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("%s definition %s: %w", what, name, err)
}

func (c *Controller) resourceOf(d *apiextensionsv1.CustomResourceDefinition) (client.Resource, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.active[d.Name]
	if a == nil || len(a.kinds) == 0 {
		return client.Resource{}, false
	}
	k := a.kinds[0].kind
	return client.Resource{GroupVersionResource: k.GroupVersionResource(), Kind: k.Kind, Namespaced: k.Namespaced}, true
}

func (c *Controller) instances(ctx context.Context, d *apiextensionsv1.CustomResourceDefinition) ([]client.Object, error) {
	r, ok := c.resourceOf(d)
	if !ok {
		return nil, nil
	}
	list, _, err := c.cfg.Client.List(ctx, r, client.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list instances of definition %s: %w", d.Name, err)
	}
	return list, nil
}

// clear deletes the instances of a definition that is being deleted.
func (c *Controller) clear(ctx context.Context, d *apiextensionsv1.CustomResourceDefinition, left []client.Object) error {
	r, ok := c.resourceOf(d)
	if !ok {
		return nil
	}
	for _, o := range left {
		if o.GetDeletionTimestamp() != nil {
			continue
		}
		if err := c.cfg.Client.Delete(ctx, r, client.Key(o), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete %s %s: %w", r.Resource, client.Key(o), err)
		}
	}
	return nil
}

// finalize lets the definition go, and takes its kinds out of service first.
func (c *Controller) finalize(ctx context.Context, d *apiextensionsv1.CustomResourceDefinition) error {
	c.forget(d.Name)
	next := d.DeepCopy()
	next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == Finalizer })
	if _, err := client.For(c.cfg.Client, client.CustomResourceDefinitions).Update(ctx, next); err != nil {
		return ignoreStale(err, "remove finalizer from", d.Name)
	}
	return nil
}
