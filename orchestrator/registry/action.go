package registry

import (
	"context"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/xebec-mesh/xebec/orchestrator/admission"
	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// act carries out a subresource that is posted to, as bindings are.
func (v *verb) act(ctx context.Context, body runtime.Object) error {
	if v.req.Subresource == "eviction" && v.kind.Actions["eviction"] == nil {
		return v.evict(ctx, body)
	}
	action := v.kind.Actions[v.req.Subresource]
	if action == nil {
		return v.notFound()
	}
	a := v.attributes(admissionv1.Create, body, nil)
	err := v.actOn(ctx, action, a)
	a.Finish(err)
	return err
}

func (v *verb) actOn(ctx context.Context, action *resource.Action, a *admission.Attributes) error {
	if chain := v.r.cfg.Admission; chain != nil {
		if err := chain.Mutate(ctx, a); err != nil {
			return v.admissionError(err)
		}
		if err := v.validate(ctx, a); err != nil {
			return err
		}
	}
	_, err := v.rewrite(ctx, func(base *cache.Object) (*cache.Object, bool, error) {
		next := base.Obj.DeepCopyObject().(resource.Object)
		if err := action.Apply(next, a.Object, v.now()); err != nil {
			return nil, true, err
		}
		o, err := v.put(ctx, base, next)
		return o, false, err
	})
	return err
}

// evict deletes a pod on the terms of an Eviction. There are no disruption
// budgets yet, so nothing refuses it.
func (v *verb) evict(ctx context.Context, body runtime.Object) error {
	var opts metav1.DeleteOptions
	switch e := body.(type) {
	case *policyv1.Eviction:
		if e.DeleteOptions != nil {
			opts = *e.DeleteOptions
		}
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("%T is not an Eviction", body))
	}
	v.req.Subresource = ""
	v.req.DryRun = v.req.DryRun || len(opts.DryRun) > 0
	_, _, err := v.delete(ctx, opts)
	return err
}
