// Package local is client.Interface inside the server's process: it reads the
// watch cache itself and writes through the registry, under the same rules that
// HTTP clients meet.
//
//	in:   verbs on objects, from controllers and the other parts of this process
//	out:  the very objects of the watch cache, shared and immutable
//
// Nothing is copied or decoded on the way out. Objects of custom kinds, which the
// cache keeps as the unstructured documents they are, are converted to the Go
// type that client.Scheme has for them, once for each version, and kept beside it.
package local

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/registry"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// Config says through what and as whom the client acts.
type Config struct {
	Registry *registry.Registry // required
	User     user.Info          // default: system:xebec in the group system:masters
	Manager  string             // recorded in managedFields; default "xebec"
	// Actions answer posts to subresources that the registry does not know, by
	// "resource/subresource": "serviceaccounts/token".
	Actions map[string]Action
	Log     *slog.Logger // required
}

// Action answers a post to a subresource.
type Action func(ctx context.Context, key types.NamespacedName, body runtime.Object) (runtime.Object, error)

// Client is client.Interface in this process. Its informers follow while Run runs.
type Client struct {
	cfg Config
	ctx context.Context // of the informers
	end context.CancelFunc
	wg  sync.WaitGroup

	mu    sync.Mutex
	views map[viewKey]*client.MemoryView
}

type viewKey struct {
	gvr  schema.GroupVersionResource
	opts client.ListOptions
}

var _ client.Interface = (*Client)(nil)

// New checks cfg. Informers start when they are asked for and end with Close.
func New(cfg Config) (*Client, error) {
	if cfg.Registry == nil {
		return nil, fmt.Errorf("make in-process client: no registry given")
	}
	if cfg.Log == nil {
		return nil, fmt.Errorf("make in-process client: no log given")
	}
	if cfg.User == nil {
		cfg.User = &user.DefaultInfo{Name: "system:xebec", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}
	}
	if cfg.Manager == "" {
		cfg.Manager = "xebec"
	}
	ctx, end := context.WithCancel(context.Background())
	return &Client{cfg: cfg, ctx: ctx, end: end, views: map[viewKey]*client.MemoryView{}}, nil
}

// Close ends the informers and returns when they have ended.
func (c *Client) Close() {
	c.end()
	c.wg.Wait()
}

// request names an object to the registry.
func (c *Client) request(r client.Resource, namespace, name, subresource string) (registry.Request, error) {
	k := c.cfg.Registry.Kind(r.GroupVersionResource)
	if k == nil {
		return registry.Request{}, errNoKind(r)
	}
	req := registry.Request{
		Kind: k, Namespace: namespace, Name: name, Subresource: subresource,
		User: c.cfg.User, FieldManager: c.cfg.Manager, FieldValidation: metav1.FieldValidationIgnore,
	}
	if !k.Namespaced {
		req.Namespace = ""
	}
	return req, nil
}

// errNoKind is what the HTTP server says of a resource that is not served (yet).
func errNoKind(r client.Resource) error {
	return apierrors.NewGenericServerResponse(404, "get", r.GroupResource(), "", "the resource is not served", 0, true)
}

// Get returns the newest version of one object.
func (c *Client) Get(ctx context.Context, r client.Resource, key types.NamespacedName) (client.Object, error) {
	req, err := c.request(r, key.Namespace, key.Name, "")
	if err != nil {
		return nil, err
	}
	return out(c.cfg.Registry.Get(ctx, req, metav1.GetOptions{}))
}

// List returns the newest version of all that opts select, sorted by key.
func (c *Client) List(ctx context.Context, r client.Resource, opts client.ListOptions) ([]client.Object, string, error) {
	req, err := c.request(r, opts.Namespace, "", "")
	if err != nil {
		return nil, "", err
	}
	l, err := c.cfg.Registry.List(ctx, req, selection(opts))
	if err != nil {
		return nil, "", err
	}
	items := make([]client.Object, 0, len(l.Items))
	for _, o := range l.Items {
		t, err := typed(o)
		if err != nil {
			c.skip(o, err)
			continue
		}
		items = append(items, t)
	}
	return items, strconv.FormatUint(l.RV, 10), nil
}

// skip reports an object that its Go type cannot hold: it may have been stored
// before its definition became stricter. Others must not suffer from it.
func (c *Client) skip(o *cache.Object, err error) {
	c.cfg.Log.Warn("object is left out: it does not fit its Go type", "kind", o.Kind.Kind, "object", o.Key, "err", err)
}

func selection(opts client.ListOptions) metav1.ListOptions {
	return metav1.ListOptions{LabelSelector: opts.LabelSelector, FieldSelector: opts.FieldSelector}
}

// Create stores a new object.
func (c *Client) Create(ctx context.Context, r client.Resource, obj client.Object, opts metav1.CreateOptions) (client.Object, error) {
	req, err := c.request(r, obj.GetNamespace(), "", "")
	if err != nil {
		return nil, err
	}
	setOptions(&req, opts.DryRun, opts.FieldManager)
	o, err := in(req.Kind, obj)
	if err != nil {
		return nil, err
	}
	return out(c.cfg.Registry.Create(ctx, req, o))
}

// Update replaces an object or a part of it.
func (c *Client) Update(ctx context.Context, r client.Resource, obj client.Object, subresource string, opts metav1.UpdateOptions) (client.Object, error) {
	req, err := c.request(r, obj.GetNamespace(), obj.GetName(), subresource)
	if err != nil {
		return nil, err
	}
	setOptions(&req, opts.DryRun, opts.FieldManager)
	o, err := in(req.Kind, obj)
	if err != nil {
		return nil, err
	}
	u, _, err := c.cfg.Registry.Update(ctx, req, o)
	return out(u, err)
}

// Patch applies a patch.
func (c *Client) Patch(ctx context.Context, r client.Resource, key types.NamespacedName, pt types.PatchType, data []byte, subresource string, opts metav1.PatchOptions) (client.Object, error) {
	req, err := c.request(r, key.Namespace, key.Name, subresource)
	if err != nil {
		return nil, err
	}
	setOptions(&req, opts.DryRun, opts.FieldManager)
	o, _, err := c.cfg.Registry.Patch(ctx, req, registry.Patch{Type: pt, Data: data, Force: opts.Force != nil && *opts.Force})
	return out(o, err)
}

// Delete begins the deletion of an object.
func (c *Client) Delete(ctx context.Context, r client.Resource, key types.NamespacedName, opts metav1.DeleteOptions) error {
	req, err := c.request(r, key.Namespace, key.Name, "")
	if err != nil {
		return err
	}
	setOptions(&req, opts.DryRun, "")
	_, _, err = c.cfg.Registry.Delete(ctx, req, opts)
	return err
}

// CreateSub posts to a subresource.
func (c *Client) CreateSub(ctx context.Context, r client.Resource, key types.NamespacedName, subresource string, body runtime.Object) (runtime.Object, error) {
	if act := c.cfg.Actions[r.Resource+"/"+subresource]; act != nil {
		return act(ctx, key, body.DeepCopyObject())
	}
	req, err := c.request(r, key.Namespace, key.Name, subresource)
	if err != nil {
		return nil, err
	}
	o, err := c.cfg.Registry.Create(ctx, req, body.DeepCopyObject())
	switch {
	case err != nil:
		return nil, err
	case o == nil:
		return &metav1.Status{Status: metav1.StatusSuccess, Code: 201}, nil
	}
	return o.Obj, nil
}

func setOptions(req *registry.Request, dryRun []string, manager string) {
	req.DryRun = len(dryRun) > 0
	if manager != "" {
		req.FieldManager = manager
	}
}

// in copies an object, since the registry keeps what it is given, in the form
// that its kind is stored in.
func in(k *resource.Kind, obj client.Object) (runtime.Object, error) {
	if _, is := obj.(*unstructured.Unstructured); is == k.Custom {
		return obj.DeepCopyObject(), nil
	}
	if !k.Custom {
		t := k.New()
		u := obj.(*unstructured.Unstructured)
		return t, runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, t)
	}
	if reflect.TypeOf(obj).Elem().Name() == "Scale" { // of a custom kind, but itself built in
		return obj.DeepCopyObject(), nil
	}
	data, err := json.Marshal(obj)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", k.Kind, client.Key(obj), err)
	}
	u := &unstructured.Unstructured{}
	if err := json.Unmarshal(data, &u.Object); err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", k.Kind, client.Key(obj), err)
	}
	u.SetGroupVersionKind(k.GroupVersionKind)
	return u, nil
}

// out is what the registry returned as clients see it.
func out(o *cache.Object, err error) (client.Object, error) {
	if err != nil {
		return nil, err
	}
	return typed(o)
}

// typed is an object in the Go type that client.Scheme has for it.
func typed(o *cache.Object) (client.Object, error) {
	if !o.Kind.Custom || !client.Scheme().Recognizes(o.Kind.GroupVersionKind) {
		return o.Obj, nil
	}
	v, err := o.Memo(func(o *cache.Object) (any, error) {
		t, err := client.Scheme().New(o.Kind.GroupVersionKind)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(o.JSON(), t); err != nil {
			return nil, err
		}
		t.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
		return t, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", o.Kind.Kind, o.Key, err)
	}
	return v.(client.Object), nil
}
