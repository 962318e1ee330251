package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

func selection(opts client.ListOptions) metav1.ListOptions {
	return metav1.ListOptions{LabelSelector: opts.LabelSelector, FieldSelector: opts.FieldSelector}
}

// List returns the newest version of all that opts select.
func (c *Client) List(ctx context.Context, r client.Resource, opts client.ListOptions) ([]client.Object, string, error) {
	q, err := c.call(r, http.MethodGet, opts.Namespace, "")
	if err != nil {
		return nil, "", err
	}
	o := selection(opts)
	q.req = q.req.SpecificallyVersionedParams(&o, scheme.ParameterCodec, optionsVersion)
	ctx, cancel := bound(ctx)
	defer cancel()
	var list runtime.Object
	if known(r) {
		list, err = q.req.Do(ctx).Get()
	} else {
		list, err = q.unstructuredList(ctx)
	}
	if err != nil {
		return nil, "", err
	}
	m, err := meta.ListAccessor(list)
	if err != nil {
		return nil, "", fmt.Errorf("list %s: the server answered with %T", r.Resource, list)
	}
	items := make([]client.Object, 0, meta.LenList(list))
	err = meta.EachListItem(list, func(o runtime.Object) error {
		items = append(items, plain(o.(client.Object)))
		return nil
	})
	return items, m.GetResourceVersion(), err
}

func (q *call) unstructuredList(ctx context.Context) (runtime.Object, error) {
	data, err := q.req.Do(ctx).Raw()
	if err != nil {
		return nil, err
	}
	l := &unstructured.UnstructuredList{}
	return l, l.UnmarshalJSON(data)
}

// Watch sends every change after resourceVersion; "" and "0" send first what is there.
func (c *Client) Watch(ctx context.Context, r client.Resource, opts client.ListOptions, resourceVersion string) (watch.Interface, error) {
	q, err := c.call(r, http.MethodGet, opts.Namespace, "")
	if err != nil {
		return nil, err
	}
	o := selection(opts)
	o.Watch, o.ResourceVersion, o.AllowWatchBookmarks = true, resourceVersion, true
	q.req = q.req.SpecificallyVersionedParams(&o, scheme.ParameterCodec, optionsVersion)
	ctx, cancel := context.WithCancel(ctx)
	if !known(r) {
		body, err := q.req.Stream(ctx)
		if err != nil {
			cancel()
			return nil, err
		}
		w := &watcher{out: make(chan watch.Event), cancel: cancel}
		go w.decode(ctx, body)
		return w, nil
	}
	in, err := q.req.Watch(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	w := &watcher{out: make(chan watch.Event), cancel: cancel}
	go w.relay(ctx, in)
	return w, nil
}

// watcher is a watch whose objects have been made plain.
type watcher struct {
	out    chan watch.Event
	cancel context.CancelFunc
}

// ResultChan is closed when the watch has ended.
func (w *watcher) ResultChan() <-chan watch.Event { return w.out }

// Stop ends the watch.
func (w *watcher) Stop() { w.cancel() }

func (w *watcher) relay(ctx context.Context, in watch.Interface) {
	defer close(w.out)
	defer in.Stop()
	for {
		select {
		case e, ok := <-in.ResultChan():
			if !ok {
				return
			}
			if o, is := e.Object.(client.Object); is && e.Type != watch.Error {
				e.Object = plain(o)
			}
			if !w.send(ctx, e) {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (w *watcher) send(ctx context.Context, e watch.Event) bool {
	select {
	case w.out <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// decode reads the JSON stream of kinds that have no Go type.
func (w *watcher) decode(ctx context.Context, body io.ReadCloser) {
	defer close(w.out)
	defer body.Close()
	d := json.NewDecoder(body)
	for {
		var raw struct {
			Type   watch.EventType
			Object json.RawMessage
		}
		if err := d.Decode(&raw); err != nil {
			if ctx.Err() == nil && err != io.EOF {
				s := apierrors.NewInternalError(err).Status()
				w.send(ctx, watch.Event{Type: watch.Error, Object: &s})
			}
			return
		}
		e := watch.Event{Type: raw.Type}
		if raw.Type == watch.Error {
			s := &metav1.Status{}
			_ = json.Unmarshal(raw.Object, s)
			e.Object = s
		} else {
			u := &unstructured.Unstructured{}
			if err := u.UnmarshalJSON(raw.Object); err != nil {
				continue
			}
			e.Object = u
		}
		if !w.send(ctx, e) {
			return
		}
	}
}
