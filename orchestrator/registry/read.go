package registry

import (
	"context"
	"fmt"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
)

// Get returns one object; opts.ResourceVersion "" is the newest, "0" any, else at
// least that one. For subresource "scale" the object's Kind is that of the scale.
func (r *Registry) Get(ctx context.Context, req Request, opts metav1.GetOptions) (*cache.Object, error) {
	v, ctx, cancel, err := r.begin(ctx, req)
	if err != nil {
		return nil, err
	}
	defer cancel()
	if !v.readable() {
		return nil, v.notFound()
	}
	rv, err := parseRV(opts.ResourceVersion)
	if err != nil {
		return nil, err
	}
	switch {
	case opts.ResourceVersion == "":
		_, err = r.hub.Fresh(ctx)
	case rv > 0:
		err = v.res.WaitFor(ctx, rv)
	}
	if err != nil {
		return nil, v.storeError(err)
	}
	o := v.res.Get(v.key)
	if o == nil {
		return nil, v.notFound()
	}
	if req.Subresource == "scale" {
		return v.scaleOf(o)
	}
	return v.show(o, nil)
}

// readable says whether the kind has the subresource that is to be read.
func (v *verb) readable() bool {
	if v.req.Subresource == "scale" {
		return v.kind.Scale != nil
	}
	return v.kind.Part(v.req.Subresource) != nil
}

// List returns what opts select, honouring limit, continue, resourceVersion and
// resourceVersionMatch. req.Namespace "" is all namespaces.
func (r *Registry) List(ctx context.Context, req Request, opts metav1.ListOptions) (*cache.List, error) {
	v, ctx, cancel, err := r.begin(ctx, req)
	if err != nil {
		return nil, err
	}
	defer cancel()
	q, err := v.query(opts)
	if err != nil {
		return nil, err
	}
	l, err := v.res.List(ctx, q)
	return l, v.storeError(err)
}

// query reads list options.
func (v *verb) query(opts metav1.ListOptions) (cache.Query, error) {
	q := cache.Query{Kind: v.req.Kind, Namespace: v.req.Namespace, Limit: opts.Limit, Continue: opts.Continue}
	if err := v.selectors(&q, opts); err != nil {
		return q, err
	}
	rv, err := parseRV(opts.ResourceVersion)
	if err != nil {
		return q, err
	}
	q.RV = rv
	m := field.NewPath("resourceVersionMatch")
	switch {
	case opts.Continue != "":
		if opts.ResourceVersionMatch != "" {
			return q, v.invalidOption(field.Forbidden(m, "resourceVersionMatch is forbidden when continue is provided"))
		}
		if opts.ResourceVersion != "" && opts.ResourceVersion != "0" {
			return q, apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
		}
		return q, nil
	case opts.ResourceVersionMatch == "":
		switch {
		case opts.ResourceVersion == "":
			q.Match = cache.Newest
		case rv == 0:
			q.Match = cache.Any
		case opts.Limit > 0:
			q.Match = cache.Exact // as Kubernetes does: pages are of one version
		default:
			q.Match = cache.NotOlder
		}
		return q, nil
	case opts.ResourceVersion == "":
		return q, v.invalidOption(field.Forbidden(m, "resourceVersionMatch is forbidden unless resourceVersion is provided"))
	case opts.ResourceVersionMatch == metav1.ResourceVersionMatchNotOlderThan:
		q.Match = cache.NotOlder
	case opts.ResourceVersionMatch == metav1.ResourceVersionMatchExact:
		if rv == 0 {
			return q, v.invalidOption(field.Forbidden(m, "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\""))
		}
		q.Match = cache.Exact
	default:
		return q, v.invalidOption(field.NotSupported(m, opts.ResourceVersionMatch,
			[]metav1.ResourceVersionMatch{metav1.ResourceVersionMatchExact, metav1.ResourceVersionMatchNotOlderThan}))
	}
	return q, nil
}

func (v *verb) selectors(q *cache.Query, opts metav1.ListOptions) error {
	if opts.LabelSelector != "" {
		l, err := labels.Parse(opts.LabelSelector)
		if err != nil {
			return apierrors.NewBadRequest(fmt.Sprintf("labelSelector %q: %v", opts.LabelSelector, err))
		}
		q.Labels = l
	}
	if opts.FieldSelector == "" {
		return nil
	}
	f, err := fields.ParseSelector(opts.FieldSelector)
	if err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("fieldSelector %q: %v", opts.FieldSelector, err))
	}
	for _, req := range f.Requirements() {
		if !v.req.Kind.HasField(req.Field) {
			return apierrors.NewBadRequest(fmt.Sprintf("field label not supported: %s", req.Field))
		}
	}
	// Selection is by what is stored; a face may have other names for the fields.
	q.Fields, err = f.Transform(func(name, value string) (string, string, error) { return v.req.Kind.StoredField(name), value, nil })
	return err
}

func (v *verb) invalidOption(e *field.Error) error {
	return apierrors.NewInvalid(metav1.SchemeGroupVersion.WithKind("ListOptions").GroupKind(), "", field.ErrorList{e})
}

func parseRV(s string) (uint64, error) {
	if s == "" || s == "0" {
		return 0, nil
	}
	rv, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, apierrors.NewBadRequest(fmt.Sprintf("resourceVersion: Invalid value: %q: must be what a server returned as resourceVersion", s))
	}
	return rv, nil
}

// Watch follows what opts select. An error that comes from the first moment (410
// Gone, bad selector) is returned at once; later ones by Watcher.Next. ctx bounds
// only the beginning; the caller must Stop the Watcher.
func (r *Registry) Watch(ctx context.Context, req Request, opts metav1.ListOptions) (*cache.Watcher, error) {
	v, ctx, cancel, err := r.begin(ctx, req)
	if err != nil {
		return nil, err
	}
	defer cancel()
	o := cache.WatchOptions{Bookmarks: opts.AllowWatchBookmarks}
	o.Query = cache.Query{Kind: req.Kind, Namespace: req.Namespace}
	if err := v.selectors(&o.Query, opts); err != nil {
		return nil, err
	}
	if o.RV, err = parseRV(opts.ResourceVersion); err != nil {
		return nil, err
	}
	if err := v.watchMode(&o, opts); err != nil {
		return nil, err
	}
	w, err := v.res.Watch(ctx, o)
	return w, v.storeError(err)
}

// watchMode reads from where a watch begins and whether it sends what is there.
func (v *verb) watchMode(o *cache.WatchOptions, opts metav1.ListOptions) error {
	m := field.NewPath("resourceVersionMatch")
	if opts.SendInitialEvents != nil {
		if opts.ResourceVersionMatch != metav1.ResourceVersionMatchNotOlderThan {
			return v.invalidOption(field.Forbidden(m, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"))
		}
		o.Initial, o.MarkInitial = *opts.SendInitialEvents, *opts.SendInitialEvents
	} else if opts.ResourceVersionMatch != "" {
		return v.invalidOption(field.Forbidden(m, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"))
	}
	switch {
	case opts.ResourceVersion == "":
		o.Match = cache.Newest
	case o.RV == 0:
		o.Match = cache.Any
	default:
		o.Match = cache.NotOlder
	}
	if opts.SendInitialEvents == nil {
		o.Initial = o.RV == 0 // as ever: no version means what is there, then what comes
	}
	return nil
}
