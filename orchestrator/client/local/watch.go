package local

import (
	"context"
	"errors"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// Watch sends every change after resourceVersion; "" and "0" send first what is there.
func (c *Client) Watch(ctx context.Context, r client.Resource, opts client.ListOptions, resourceVersion string) (watch.Interface, error) {
	req, err := c.request(r, opts.Namespace, "", "")
	if err != nil {
		return nil, err
	}
	o := selection(opts)
	o.ResourceVersion = resourceVersion
	w, err := c.cfg.Registry.Watch(ctx, req, o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	out := &watcher{c: c, w: w, out: make(chan watch.Event), cancel: cancel}
	go out.run(ctx)
	return out, nil
}

// watcher is a cache.Watcher as apimachinery's interface.
type watcher struct {
	c      *Client
	w      *cache.Watcher
	out    chan watch.Event
	cancel context.CancelFunc
}

// ResultChan is closed when the watch has ended.
func (w *watcher) ResultChan() <-chan watch.Event { return w.out }

// Stop ends the watch.
func (w *watcher) Stop() { w.cancel() }

func (w *watcher) run(ctx context.Context) {
	defer close(w.out)
	defer w.w.Stop()
	for {
		events, err := w.w.Next(ctx)
		if err != nil {
			w.fail(ctx, err)
			return
		}
		for _, e := range events {
			o, err := typed(e.Object)
			if err != nil {
				w.c.skip(e.Object, err)
				continue
			}
			select {
			case w.out <- watch.Event{Type: e.Type, Object: o}:
			case <-ctx.Done():
				return
			}
		}
	}
}

// fail sends why the watch ends, if it was not its user's wish.
func (w *watcher) fail(ctx context.Context, err error) {
	if ctx.Err() != nil || errors.Is(err, cache.ErrStopped) {
		return
	}
	s := metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: err.Error()}
	var is apierrors.APIStatus
	if errors.As(err, &is) {
		s = is.Status()
	}
	select {
	case w.out <- watch.Event{Type: watch.Error, Object: &s}:
	case <-ctx.Done():
	}
}

// Informer returns the shared view of what opts select.
func (c *Client) Informer(r client.Resource, opts client.ListOptions) client.Informer {
	key := viewKey{r.GroupVersionResource, opts}
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.views[key]
	if v == nil {
		v = client.NewMemoryView()
		c.views[key] = v
		if c.ctx.Err() == nil {
			c.wg.Go(func() { c.follow(r, opts, v) })
		}
	}
	return v
}

const (
	firstPause = 20 * time.Millisecond
	mostPause  = 500 * time.Millisecond // in this process waiting costs little, and a new kind is wanted soon
)

// follow feeds a view until Close.
func (c *Client) follow(r client.Resource, opts client.ListOptions, v *client.MemoryView) {
	for pause := firstPause; c.ctx.Err() == nil; pause = min(2*pause, mostPause) {
		synced, err := c.followOnce(r, opts, v)
		if synced {
			pause = firstPause
		}
		if c.ctx.Err() == nil {
			c.cfg.Log.Debug("informer starts over", "resource", r.Resource, "err", err)
		}
		select {
		case <-time.After(pause):
		case <-c.ctx.Done():
		}
	}
}

// followOnce lists and watches until the watch ends.
func (c *Client) followOnce(r client.Resource, opts client.ListOptions, v *client.MemoryView) (synced bool, err error) {
	items, rv, err := c.List(c.ctx, r, opts)
	if err != nil {
		return false, err
	}
	req, err := c.request(r, opts.Namespace, "", "")
	if err != nil {
		return false, err
	}
	o := selection(opts)
	o.ResourceVersion = rv
	w, err := c.cfg.Registry.Watch(c.ctx, req, o)
	if err != nil {
		return false, err
	}
	defer w.Stop()
	v.Replace(items)
	for {
		events, err := w.Next(c.ctx)
		if err != nil {
			return true, err
		}
		for _, e := range events {
			o, err := typed(e.Object)
			if err != nil {
				c.skip(e.Object, err)
				continue
			}
			v.Apply(e.Type, o)
		}
	}
}
