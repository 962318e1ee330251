package registry

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// verb is one request under way.
type verb struct {
	r    *Registry
	req  Request
	kind *resource.Kind // as stored
	res  *cache.Resource
	key  string
}

// defaultTimeout bounds a verb whose context has no deadline.
const defaultTimeout = 34 * time.Second

// begin waits for the cache and finds the resource. cancel must be called.
func (r *Registry) begin(ctx context.Context, req Request) (*verb, context.Context, context.CancelFunc, error) {
	cancel := context.CancelFunc(func() {})
	if _, has := ctx.Deadline(); !has {
		ctx, cancel = context.WithTimeout(ctx, defaultTimeout)
	}
	v, err := r.verb(ctx, req)
	if err != nil {
		cancel()
		return nil, nil, nil, err
	}
	return v, ctx, cancel, nil
}

func (r *Registry) verb(ctx context.Context, req Request) (*verb, error) {
	select {
	case <-r.hub.Ready():
	default:
		select {
		case <-r.hub.Ready():
		case <-ctx.Done():
			return nil, errUnavailable(ctx.Err())
		}
	}
	if req.Kind == nil {
		return nil, fmt.Errorf("request without a kind")
	}
	res := r.resource(req.Kind)
	if res == nil {
		return nil, apierrors.NewGenericServerResponse(404, "", req.Kind.GroupResource(), "", "", 0, true)
	}
	if req.Warn == nil {
		req.Warn = func(string) {}
	}
	v := &verb{r: r, req: req, kind: req.Kind.Stored(), res: res, key: cache.KeyOf(req.Namespace, req.Name)}
	if !req.Kind.Namespaced {
		v.key = req.Name
	}
	return v, nil
}

// current is the newest version of the object. It looks at the cache first, which
// is right unless another server wrote; fresh catches up with the store before.
func (v *verb) current(ctx context.Context, fresh bool) (*cache.Object, error) {
	if !fresh {
		if o := v.res.Latest(v.key); o != nil {
			return o, nil
		}
	}
	if _, err := v.r.hub.Fresh(ctx); err != nil {
		return nil, v.storeError(err)
	}
	if o := v.res.Latest(v.key); o != nil {
		return o, nil
	}
	return nil, v.notFound()
}

// show is the object as the request's kind shows it.
func (v *verb) show(o *cache.Object, err error) (*cache.Object, error) {
	if err != nil {
		return nil, err
	}
	return o.As(v.req.Kind)
}

func (v *verb) now() metav1.Time {
	return metav1.Time{Time: v.r.cfg.Clock.Now().Truncate(time.Second)}
}

// keyLocks let writers of one key take turns.
type keyLocks struct {
	seed   maphash.Seed
	once   sync.Once
	shards [64]struct {
		mu   sync.Mutex
		held map[string]*keyLock
	}
}

type keyLock struct {
	turn chan struct{} // buffered, one: full while held
	n    int           // holders and waiters
}

// lock takes the turn for a key, or ends with ctx.
func (l *keyLocks) lock(ctx context.Context, key string) (unlock func(), err error) {
	l.once.Do(func() { l.seed = maphash.MakeSeed() })
	s := &l.shards[maphash.String(l.seed, key)%uint64(len(l.shards))]
	s.mu.Lock()
	if s.held == nil {
		s.held = map[string]*keyLock{}
	}
	k := s.held[key]
	if k == nil {
		k = &keyLock{turn: make(chan struct{}, 1)}
		s.held[key] = k
	}
	k.n++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		if k.n--; k.n == 0 {
			delete(s.held, key)
		}
		s.mu.Unlock()
	}
	select {
	case k.turn <- struct{}{}:
		return func() { <-k.turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, errUnavailable(ctx.Err())
	}
}
