package registry

import (
	"context"
	"errors"
	"time"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/store"
)

// expireEvery is how often objects of kinds with a TTL are looked through, and
// idleTicks how many times that until a schema that nobody needs is let go.
const (
	expireEvery = 30 * time.Second
	idleTicks   = 4
)

// expireLoop lets go of what is not needed any more. It removes objects that nobody has written for their kind's TTL. When an
// object was written last is in its managedFields, so that it survives restarts
// and every server agrees on it.
func (r *Registry) expireLoop(ctx context.Context) error {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.expire(ctx)
			if n%idleTicks == 0 {
				r.fields.dropIdle()
			}
		}
	}
}

func (r *Registry) expire(ctx context.Context) {
	for _, k := range r.Kinds() {
		if k.TTL == 0 || k.View != nil {
			continue
		}
		res := r.resource(k)
		if res == nil {
			continue
		}
		l, err := res.List(ctx, cache.Query{Match: cache.Any})
		if err != nil {
			continue
		}
		for _, o := range l.Items {
			if r.cfg.Clock.Since(lastWrite(o)) < k.TTL {
				continue
			}
			_, err := r.cfg.Store.Delete(ctx, res.StoreKey(o.Key), int64(o.RV))
			var moved *store.ConflictError
			if err != nil && !errors.As(err, &moved) {
				r.cfg.Log.Warn("remove expired object", "resource", k.Resource, "key", o.Key, "err", err)
				return
			}
		}
	}
}

func lastWrite(o *cache.Object) time.Time {
	last := o.Obj.GetCreationTimestamp().Time
	for _, m := range o.Obj.GetManagedFields() {
		if m.Time != nil && m.Time.After(last) {
			last = m.Time.Time
		}
	}
	return last
}
