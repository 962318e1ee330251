// Package memory is client.Interface without a server: everything is kept in
// this process, with the API's rules for versions, names, deletion and
// subresources, but without defaulting, validation, admission or authorization.
//
//	in:   verbs on objects
//	out:  the same answers, errors and watch events that the API server gives
//
// It exists so that whatever is written against the client can be tested without
// etcd. Server-side apply is treated as a merge patch that may create.
package memory

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// Client is an API in memory. Close ends its informers and watches.
type Client struct {
	now    func() time.Time
	ctx    context.Context // of the informers; ends with Close
	cancel context.CancelFunc

	mu        sync.Mutex
	version   uint64
	tables    map[schema.GroupResource]*table
	informers map[informerKey]*client.MemoryView
}

type informerKey struct {
	resource schema.GroupVersionResource
	opts     client.ListOptions
}

type table struct {
	objects  map[types.NamespacedName]client.Object
	history  []change // every change since the start, oldest first
	watchers map[*watcher]struct{}
}

type change struct {
	version  uint64
	old, new client.Object
}

var _ client.Interface = (*Client)(nil)

// New returns an empty API. now may be nil for the wall clock.
func New(now func() time.Time) *Client {
	if now == nil {
		now = time.Now
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Client{
		now: now, ctx: ctx, cancel: cancel,
		version:   1, // "0" asks a watch for what there is
		tables:    map[schema.GroupResource]*table{},
		informers: map[informerKey]*client.MemoryView{},
	}
}

// Close ends every informer and watch.
func (c *Client) Close() {
	c.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.tables {
		for w := range t.watchers {
			delete(t.watchers, w)
			w.close()
		}
	}
}

func (c *Client) table(r client.Resource) *table {
	t := c.tables[r.GroupResource()]
	if t == nil {
		t = &table{objects: map[types.NamespacedName]client.Object{}, watchers: map[*watcher]struct{}{}}
		c.tables[r.GroupResource()] = t
	}
	return t
}

// Get returns the newest version of one object.
func (c *Client) Get(ctx context.Context, r client.Resource, key types.NamespacedName) (client.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.get(r, key)
}

func (c *Client) get(r client.Resource, key types.NamespacedName) (client.Object, error) {
	if o := c.table(r).objects[key]; o != nil {
		return o, nil
	}
	return nil, apierrors.NewNotFound(r.GroupResource(), key.Name)
}

// List returns what opts select, in no particular order.
func (c *Client) List(ctx context.Context, r client.Resource, opts client.ListOptions) ([]client.Object, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	match, err := selection(opts)
	if err != nil {
		return nil, "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []client.Object
	for _, o := range c.table(r).objects {
		if match(o) {
			out = append(out, o)
		}
	}
	return out, strconv.FormatUint(c.version, 10), nil
}

// Watch sends every change after resourceVersion; "" and "0" start with what there is.
func (c *Client) Watch(ctx context.Context, r client.Resource, opts client.ListOptions, resourceVersion string) (watch.Interface, error) {
	match, err := selection(opts)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.table(r)
	w := newWatcher(match)
	if resourceVersion == "" || resourceVersion == "0" {
		for _, o := range t.objects {
			w.send(change{new: o})
		}
	} else {
		since, err := strconv.ParseUint(resourceVersion, 10, 64)
		if err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("resourceVersion: %q: not a number", resourceVersion))
		}
		for _, ch := range t.history {
			if ch.version > since {
				w.send(ch)
			}
		}
	}
	t.watchers[w] = struct{}{}
	stop := func() {
		c.mu.Lock()
		delete(t.watchers, w)
		c.mu.Unlock()
		w.close()
	}
	w.onStop = sync.OnceFunc(stop)
	context.AfterFunc(ctx, w.onStop)
	return w, nil
}

// Informer returns the shared view of what opts select.
func (c *Client) Informer(r client.Resource, opts client.ListOptions) client.Informer {
	key := informerKey{r.GroupVersionResource, opts}
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.informers[key]
	if v == nil {
		v = client.NewMemoryView()
		c.informers[key] = v
		go client.Follow(c.ctx, c, r, opts, v, slog.New(slog.DiscardHandler))
	}
	return v
}

// Create stores a new object.
func (c *Client) Create(ctx context.Context, r client.Resource, obj client.Object, opts metav1.CreateOptions) (client.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o := obj.DeepCopyObject().(client.Object)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.create(r, o, len(opts.DryRun) > 0)
}

func (c *Client) create(r client.Resource, o client.Object, dryRun bool) (client.Object, error) {
	if o.GetName() == "" && o.GetGenerateName() != "" {
		o.SetName(o.GetGenerateName() + rand.String(5))
	}
	switch {
	case o.GetName() == "":
		return nil, apierrors.NewBadRequest("metadata.name: required, or metadata.generateName")
	case r.Namespaced && o.GetNamespace() == "":
		return nil, apierrors.NewBadRequest(fmt.Sprintf("metadata.namespace: required to create %s/%s", r.Resource, o.GetName()))
	case o.GetResourceVersion() != "":
		return nil, apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	t := c.table(r)
	if t.objects[client.Key(o)] != nil {
		return nil, apierrors.NewAlreadyExists(r.GroupResource(), o.GetName())
	}
	o.SetUID(uuid.NewUUID())
	o.SetCreationTimestamp(metav1.NewTime(c.now().Truncate(time.Second)))
	o.SetDeletionTimestamp(nil)
	o.SetGeneration(1)
	prepareCreate(o)
	if !dryRun {
		c.commit(t, nil, o)
	}
	return o, nil
}

// Update replaces an object or a part of it.
func (c *Client) Update(ctx context.Context, r client.Resource, obj client.Object, subresource string, opts metav1.UpdateOptions) (client.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o := obj.DeepCopyObject().(client.Object)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.update(r, o, subresource, len(opts.DryRun) > 0)
}

func (c *Client) update(r client.Resource, o client.Object, subresource string, dryRun bool) (client.Object, error) {
	t := c.table(r)
	old := t.objects[client.Key(o)]
	if old == nil {
		return nil, apierrors.NewNotFound(r.GroupResource(), o.GetName())
	}
	if rv := o.GetResourceVersion(); rv != "" && rv != old.GetResourceVersion() {
		return nil, apierrors.NewConflict(r.GroupResource(), o.GetName(),
			fmt.Errorf("the object has been modified; please apply your changes to the latest version and try again"))
	}
	if uid := o.GetUID(); uid != "" && uid != old.GetUID() {
		return nil, apierrors.NewConflict(r.GroupResource(), o.GetName(),
			fmt.Errorf("precondition failed: UID in precondition: %v, UID in object meta: %v", uid, old.GetUID()))
	}
	next, err := merge(old, o, subresource)
	if err != nil {
		return nil, err
	}
	if equal(old, next) {
		return old, nil
	}
	if dryRun {
		return next, nil
	}
	if finished(next) {
		c.commit(t, next, nil)
		return next, nil
	}
	c.commit(t, old, next)
	return next, nil
}

// Delete begins the deletion of an object.
func (c *Client) Delete(ctx context.Context, r client.Resource, key types.NamespacedName, opts metav1.DeleteOptions) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.delete(r, key, opts)
}

func (c *Client) delete(r client.Resource, key types.NamespacedName, opts metav1.DeleteOptions) error {
	old, err := c.get(r, key)
	if err != nil {
		return err
	}
	if err := checkPreconditions(r, old, opts.Preconditions); err != nil {
		return err
	}
	next := old.DeepCopyObject().(client.Object)
	markDeleted(next, opts, c.now())
	t := c.table(r)
	switch {
	case finished(next):
		c.commit(t, old, nil)
	case !equal(old, next):
		c.commit(t, old, next)
	}
	return nil
}

// commit makes a change visible: new nil deletes old.
func (c *Client) commit(t *table, old, new client.Object) {
	c.version++
	rv := strconv.FormatUint(c.version, 10)
	if new == nil {
		delete(t.objects, client.Key(old))
		old = old.DeepCopyObject().(client.Object)
		old.SetResourceVersion(rv)
	} else {
		new.SetResourceVersion(rv)
		t.objects[client.Key(new)] = new
	}
	ch := change{version: c.version, old: old, new: new}
	t.history = append(t.history, ch)
	for w := range t.watchers {
		w.send(ch)
	}
}

// Patch applies data to an object; an apply patch creates what is missing.
func (c *Client) Patch(ctx context.Context, r client.Resource, key types.NamespacedName, pt types.PatchType, data []byte, subresource string, opts metav1.PatchOptions) (client.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old, err := c.get(r, key)
	if apierrors.IsNotFound(err) && pt == types.ApplyPatchType {
		o, err := decode(r, data)
		if err != nil {
			return nil, err
		}
		o.SetNamespace(key.Namespace)
		o.SetName(key.Name)
		return c.create(r, o, len(opts.DryRun) > 0)
	}
	if err != nil {
		return nil, err
	}
	o, err := patched(r, old, pt, data)
	if err != nil {
		return nil, err
	}
	return c.update(r, o, subresource, len(opts.DryRun) > 0)
}

// CreateSub posts to a subresource: binding, eviction or token.
func (c *Client) CreateSub(ctx context.Context, r client.Resource, key types.NamespacedName, subresource string, body runtime.Object) (runtime.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old, err := c.get(r, key)
	if err != nil {
		return nil, err
	}
	switch subresource {
	case "binding":
		return c.bind(r, old, body)
	case "eviction":
		return &metav1.Status{Status: metav1.StatusSuccess}, c.delete(r, key, metav1.DeleteOptions{})
	case "token":
		return token(old, body, c.now())
	}
	return nil, apierrors.NewNotFound(r.GroupResource(), key.Name+"/"+subresource)
}
