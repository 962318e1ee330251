// Package remote is client.Interface over HTTPS, for parts that run in another
// process than the API server.
//
//	in:   verbs on objects
//	out:  requests by client-go: protobuf for built-in kinds, JSON for custom ones
//
// Informers list, watch from there with bookmarks, and begin again after the
// server has been away or has forgotten the version.
package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// Config says how to reach the server.
type Config struct {
	// REST has the server's address and credentials. Its content type and its
	// rate limits are the client's own business and are ignored.
	REST    *rest.Config // required
	Manager string       // recorded in managedFields; default "xebec"
	Log     *slog.Logger // required
}

// Client is client.Interface over HTTPS. Close ends its informers.
type Client struct {
	cfg  Config
	http *http.Client
	ctx  context.Context // of the informers
	end  context.CancelFunc
	wg   sync.WaitGroup

	mu    sync.Mutex
	rests map[schema.GroupVersion]rest.Interface
	views map[viewKey]*client.MemoryView
}

// optionsVersion is that of options in queries, whatever the group.
var optionsVersion = schema.GroupVersion{Version: "v1"}

type viewKey struct {
	gvr  schema.GroupVersionResource
	opts client.ListOptions
}

var _ client.Interface = (*Client)(nil)

// New checks cfg and reads the credentials; it does not connect.
func New(cfg Config) (*Client, error) {
	if cfg.REST == nil {
		return nil, fmt.Errorf("make remote client: no server given")
	}
	if cfg.Log == nil {
		return nil, fmt.Errorf("make remote client: no log given")
	}
	if cfg.Manager == "" {
		cfg.Manager = "xebec"
	}
	cfg.REST = rest.CopyConfig(cfg.REST)
	cfg.REST.QPS = -1
	cfg.REST.RateLimiter = nil
	if cfg.REST.UserAgent == "" {
		cfg.REST.UserAgent = "xebec"
	}
	h, err := rest.HTTPClientFor(cfg.REST)
	if err != nil {
		return nil, fmt.Errorf("make remote client: %w", err)
	}
	ctx, end := context.WithCancel(context.Background())
	return &Client{
		cfg: cfg, http: h, ctx: ctx, end: end,
		rests: map[schema.GroupVersion]rest.Interface{},
		views: map[viewKey]*client.MemoryView{},
	}, nil
}

// Close ends the informers and returns when they have ended.
func (c *Client) Close() {
	c.end()
	c.wg.Wait()
}

// rest is the client of one group and version.
func (c *Client) rest(gv schema.GroupVersion) (rest.Interface, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.rests[gv]; r != nil {
		return r, nil
	}
	cfg := rest.CopyConfig(c.cfg.REST)
	cfg.GroupVersion = &gv
	cfg.APIPath = "/apis"
	if gv.Group == "" {
		cfg.APIPath = "/api"
	}
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(client.Scheme()).WithoutConversion()
	cfg.ContentType = runtime.ContentTypeJSON
	if scheme.Scheme.IsVersionRegistered(gv) { // custom kinds have no protobuf form
		cfg.ContentType = runtime.ContentTypeProtobuf
		cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	}
	r, err := rest.RESTClientForConfigAndClient(cfg, c.http)
	if err != nil {
		return nil, fmt.Errorf("make client for %s: %w", gv, err)
	}
	c.rests[gv] = r
	return r, nil
}

// call is one request under way.
type call struct {
	c   *Client
	r   client.Resource
	req *rest.Request
}

func (c *Client) call(r client.Resource, method, namespace, name string, sub ...string) (*call, error) {
	api, err := c.rest(r.GroupVersion())
	if err != nil {
		return nil, err
	}
	req := api.Verb(method).Resource(r.Resource).NamespaceIfScoped(namespace, r.Namespaced && namespace != "")
	if name != "" {
		req = req.Name(name)
	}
	if len(sub) > 0 && sub[0] != "" {
		req = req.SubResource(sub...)
	}
	return &call{c, r, req}, nil
}

// known says whether the Scheme has a Go type for the resource.
func known(r client.Resource) bool { return client.Scheme().Recognizes(r.GroupVersionKind()) }

// object sends the request and reads an object of the resource's kind.
func (q *call) object(ctx context.Context) (client.Object, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	if !known(q.r) {
		data, err := q.req.Do(ctx).Raw()
		if err != nil {
			return nil, err
		}
		u := &unstructured.Unstructured{}
		return u, u.UnmarshalJSON(data)
	}
	got, err := q.req.Do(ctx).Get()
	if err != nil {
		return nil, err
	}
	o, ok := got.(client.Object)
	if !ok {
		return nil, fmt.Errorf("the server answered with %T, want %s", got, q.r.Kind)
	}
	return plain(o), nil
}

// plain clears the kind that JSON carries and protobuf does not, so that objects
// look the same however they came.
func plain(o client.Object) client.Object {
	if _, ok := o.(*unstructured.Unstructured); !ok {
		o.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	}
	return o
}

func bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, client.DefaultTimeout)
}

// body encodes what is sent.
func (q *call) body(obj runtime.Object) (*call, error) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		data, err := json.Marshal(u.Object)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", q.r.Kind, err)
		}
		q.req = q.req.SetHeader("Content-Type", runtime.ContentTypeJSON).Body(data)
		return q, nil
	}
	q.req = q.req.Body(obj)
	return q, nil
}

// Get returns the newest version of one object.
func (c *Client) Get(ctx context.Context, r client.Resource, key types.NamespacedName) (client.Object, error) {
	q, err := c.call(r, http.MethodGet, key.Namespace, key.Name)
	if err != nil {
		return nil, err
	}
	return q.object(ctx)
}

// Create stores a new object.
func (c *Client) Create(ctx context.Context, r client.Resource, obj client.Object, opts metav1.CreateOptions) (client.Object, error) {
	orElse(&opts.FieldManager, c.cfg.Manager)
	q, err := c.call(r, http.MethodPost, obj.GetNamespace(), "")
	if err != nil {
		return nil, err
	}
	q.req = q.req.SpecificallyVersionedParams(&opts, scheme.ParameterCodec, optionsVersion)
	if q, err = q.body(obj); err != nil {
		return nil, err
	}
	return q.object(ctx)
}

// Update replaces an object or a part of it.
func (c *Client) Update(ctx context.Context, r client.Resource, obj client.Object, subresource string, opts metav1.UpdateOptions) (client.Object, error) {
	orElse(&opts.FieldManager, c.cfg.Manager)
	q, err := c.call(r, http.MethodPut, obj.GetNamespace(), obj.GetName(), subresource)
	if err != nil {
		return nil, err
	}
	q.req = q.req.SpecificallyVersionedParams(&opts, scheme.ParameterCodec, optionsVersion)
	if q, err = q.body(obj); err != nil {
		return nil, err
	}
	return q.object(ctx)
}

// Patch applies a patch.
func (c *Client) Patch(ctx context.Context, r client.Resource, key types.NamespacedName, pt types.PatchType, data []byte, subresource string, opts metav1.PatchOptions) (client.Object, error) {
	orElse(&opts.FieldManager, c.cfg.Manager)
	q, err := c.call(r, http.MethodPatch, key.Namespace, key.Name, subresource)
	if err != nil {
		return nil, err
	}
	q.req = q.req.SetHeader("Content-Type", string(pt)).SpecificallyVersionedParams(&opts, scheme.ParameterCodec, optionsVersion).Body(data)
	return q.object(ctx)
}

// Delete begins the deletion of an object.
func (c *Client) Delete(ctx context.Context, r client.Resource, key types.NamespacedName, opts metav1.DeleteOptions) error {
	q, err := c.call(r, http.MethodDelete, key.Namespace, key.Name)
	if err != nil {
		return err
	}
	data, err := json.Marshal(opts)
	if err != nil {
		return fmt.Errorf("encode delete options: %w", err)
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	return q.req.SetHeader("Content-Type", runtime.ContentTypeJSON).Body(data).Do(ctx).Error()
}

// CreateSub posts to a subresource.
func (c *Client) CreateSub(ctx context.Context, r client.Resource, key types.NamespacedName, subresource string, body runtime.Object) (runtime.Object, error) {
	q, err := c.call(r, http.MethodPost, key.Namespace, key.Name, subresource)
	if err != nil {
		return nil, err
	}
	if q, err = q.body(body); err != nil {
		return nil, err
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	return q.req.Do(ctx).Get()
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
		c.wg.Go(func() { client.Follow(c.ctx, c, r, opts, v, c.cfg.Log) })
	}
	return v
}

func orElse(s *string, d string) {
	if strings.TrimSpace(*s) == "" {
		*s = d
	}
}
