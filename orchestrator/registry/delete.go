package registry

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/admission"
	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// Delete begins or ends the deletion of an object. It returns the object, gone
// if it is gone and as it was marked otherwise.
func (r *Registry) Delete(ctx context.Context, req Request, opts metav1.DeleteOptions) (o *cache.Object, gone bool, err error) {
	v, ctx, cancel, err := r.begin(ctx, req)
	if err != nil {
		return nil, false, err
	}
	defer cancel()
	o, gone, err = v.delete(ctx, opts)
	o, err = v.show(o, err)
	return o, gone, err
}

func (v *verb) delete(ctx context.Context, opts metav1.DeleteOptions) (o *cache.Object, gone bool, err error) {
	exact := opts.Preconditions != nil && opts.Preconditions.ResourceVersion != nil
	o, err = v.rewrite(ctx, func(base *cache.Object) (_ *cache.Object, _ bool, err error) {
		if err := v.checkPreconditions(opts.Preconditions, base.Obj); err != nil {
			return nil, exact, err
		}
		a := v.attributes(admissionv1.Delete, nil, base.Obj)
		a.Options = &opts
		defer func() { a.Finish(err) }()
		if err := v.admitDelete(ctx, a); err != nil {
			return nil, exact, err
		}
		next, done := v.markDeleted(base.Obj, opts)
		var o *cache.Object
		if gone = done; done {
			o, err = v.remove(ctx, base, next)
		} else {
			o, err = v.put(ctx, base, next)
		}
		return o, exact, err
	})
	return o, gone && err == nil, err
}

func (v *verb) admitDelete(ctx context.Context, a *admission.Attributes) error {
	chain := v.r.cfg.Admission
	if chain == nil {
		return nil
	}
	if err := chain.Mutate(ctx, a); err != nil {
		return v.admissionError(err)
	}
	return v.validate(ctx, a)
}

// markDeleted is the object with its deletion begun, or done if nothing keeps it.
//
//	         grace period > 0            finalizers or Held
//	lives ─────────────────────▶ waits ─────────────────────▶ waits ──▶ gone
//	  └──────────── 0 ─────────────┴────────── none ──────────────────▶ gone
func (v *verb) markDeleted(old resource.Object, opts metav1.DeleteOptions) (next resource.Object, done bool) {
	next = old.DeepCopyObject().(resource.Object)
	next.SetFinalizers(finalizersFor(next.GetFinalizers(), opts))
	grace := int64(0)
	if v.kind.GracePeriod != nil {
		grace = max(v.kind.GracePeriod(old, opts.GracePeriodSeconds), 0)
	}
	if was := old.GetDeletionTimestamp(); was != nil {
		shortenGrace(next, *was, grace, v.now())
	} else {
		now := v.now()
		end := metav1.Time{Time: now.Add(time.Duration(grace) * time.Second)}
		next.SetDeletionTimestamp(&end)
		next.SetDeletionGracePeriodSeconds(&grace)
		if next.GetGeneration() > 0 {
			next.SetGeneration(next.GetGeneration() + 1)
		}
		if v.kind.PrepareDelete != nil {
			v.kind.PrepareDelete(next)
		}
	}
	return next, v.finished(next)
}

// shortenGrace lets a later deletion hurry an earlier one, never slow it down.
func shortenGrace(obj resource.Object, was metav1.Time, grace int64, now metav1.Time) {
	old := obj.GetDeletionGracePeriodSeconds()
	if old == nil || grace >= *old {
		return
	}
	end := metav1.Time{Time: was.Add(time.Duration(grace-*old) * time.Second)}
	if end.Before(&now) {
		end = now
	}
	obj.SetDeletionTimestamp(&end)
	obj.SetDeletionGracePeriodSeconds(&grace)
}

// finalizersFor is an object's finalizers with those that the wish about its
// dependents stands for.
func finalizersFor(has []string, opts metav1.DeleteOptions) []string {
	orphan, foreground := slices.Contains(has, metav1.FinalizerOrphanDependents), slices.Contains(has, metav1.FinalizerDeleteDependents)
	if p := opts.PropagationPolicy; p != nil {
		orphan, foreground = *p == metav1.DeletePropagationOrphan, *p == metav1.DeletePropagationForeground
	} else if o := opts.OrphanDependents; o != nil { //nolint:staticcheck // old clients still send it
		orphan, foreground = *o, false
	}
	var out []string
	for _, f := range has {
		if f != metav1.FinalizerOrphanDependents && f != metav1.FinalizerDeleteDependents {
			out = append(out, f)
		}
	}
	if orphan {
		out = append(out, metav1.FinalizerOrphanDependents)
	}
	if foreground {
		out = append(out, metav1.FinalizerDeleteDependents)
	}
	if len(out) == len(has) {
		return has // the order of what was there stays
	}
	return out
}

// deleteWorkers is how many objects of a collection are deleted at once.
const deleteWorkers = 16

// DeleteCollection deletes what list selects and returns it.
func (r *Registry) DeleteCollection(ctx context.Context, req Request, opts metav1.DeleteOptions, list metav1.ListOptions) (*cache.List, error) {
	l, err := r.List(ctx, req, list)
	if err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(deleteWorkers)
	for _, o := range l.Items {
		g.Go(func() error {
			one := req
			one.Namespace, one.Name = o.Obj.GetNamespace(), o.Obj.GetName()
			pre := opts
			if pre.Preconditions == nil {
				// What has been made anew under the same name was not selected.
				uid := o.Obj.GetUID()
				pre.Preconditions = &metav1.Preconditions{UID: &uid}
			}
			_, _, err := r.Delete(ctx, one, pre)
			if apierrors.IsNotFound(err) || opts.Preconditions == nil && apierrors.IsConflict(err) {
				return nil
			}
			return err
		})
	}
	return l, g.Wait()
}
