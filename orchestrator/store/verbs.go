package store

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// pageSize is how many keys List asks for at once, so that neither side needs
// memory for everything twice.
const pageSize = 2000

// Get reads the newest version of a key.
func (e *Etcd) Get(ctx context.Context, key string) (Entry, error) {
	ctx, cancel, err := e.begin(ctx)
	if err != nil {
		return Entry{}, err
	}
	defer cancel()
	r, err := e.client.Get(ctx, key)
	if err != nil {
		return Entry{}, e.kind("get", key, err)
	}
	if len(r.Kvs) == 0 {
		return Entry{}, fmt.Errorf("get %s: %w", key, ErrNotFound)
	}
	return entry(r.Kvs[0]), nil
}

// List reads every key under prefix as of one revision.
func (e *Etcd) List(ctx context.Context, prefix string, each func(Entry) error) (int64, error) {
	end := clientv3.GetPrefixRangeEnd(prefix)
	var rev int64
	for from := prefix; ; {
		r, err := e.page(ctx, from, end, rev)
		if err != nil {
			return 0, e.kind("list", prefix, err)
		}
		rev = max(rev, r.Header.Revision*b2i(rev == 0))
		for _, kv := range r.Kvs {
			if err := each(entry(kv)); err != nil {
				return 0, err
			}
		}
		if !r.More || len(r.Kvs) == 0 {
			return rev, nil
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

func (e *Etcd) page(ctx context.Context, from, end string, rev int64) (*clientv3.GetResponse, error) {
	ctx, cancel, err := e.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	return e.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(rev))
}

// Create stores a key that does not exist.
func (e *Etcd) Create(ctx context.Context, key string, value []byte) (int64, error) {
	rev, current, err := e.swap(ctx, key, 0, clientv3.OpPut(key, string(value)))
	if err == nil && current != nil {
		err = fmt.Errorf("create %s: %w", key, ErrExists)
	}
	return rev, err
}

// Update replaces the version expect.
func (e *Etcd) Update(ctx context.Context, key string, value []byte, expect int64) (int64, error) {
	return e.cas(ctx, key, expect, clientv3.OpPut(key, string(value)))
}

// Delete removes the version expect.
func (e *Etcd) Delete(ctx context.Context, key string, expect int64) (int64, error) {
	return e.cas(ctx, key, expect, clientv3.OpDelete(key))
}

func (e *Etcd) cas(ctx context.Context, key string, expect int64, op clientv3.Op) (int64, error) {
	rev, current, err := e.swap(ctx, key, expect, op)
	if err != nil || current == nil {
		return rev, err
	}
	conflict := &ConflictError{Key: key, Expect: expect}
	if current.Revision != 0 {
		conflict.Current = current
	}
	return 0, conflict
}

// swap does op if key is at revision expect. Otherwise it returns what is there,
// the zero Entry if nothing is.
func (e *Etcd) swap(ctx context.Context, key string, expect int64, op clientv3.Op) (int64, *Entry, error) {
	if op.IsPut() && e.full.Load() {
		return 0, nil, fmt.Errorf("write %s: %w", key, ErrNoSpace)
	}
	ctx, cancel, err := e.begin(ctx)
	if err != nil {
		return 0, nil, err
	}
	defer cancel()
	r, err := e.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", expect)).
		Then(op).Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		return 0, nil, e.kind("write", key, err)
	}
	if r.Succeeded {
		return e.saw(r.Header.Revision), nil, nil
	}
	current := Entry{Key: key}
	if kvs := r.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		current = entry(kvs[0])
	}
	return 0, &current, nil
}

// Current is the newest revision that was acknowledged to anybody.
func (e *Etcd) Current(ctx context.Context) (int64, error) {
	select {
	case <-e.ready:
	default:
		_, cancel, err := e.begin(ctx)
		if err != nil {
			return 0, err
		}
		cancel()
	}
	if e.member != nil && e.cfg.Member == nil {
		// A single member has applied everything that it acknowledged.
		return e.member.Server.KV().Rev(), nil
	}
	return e.current.do(ctx)
}

func (e *Etcd) readCurrent() (int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), e.cfg.Timeout)
	defer cancel()
	r, err := e.client.Get(ctx, e.cfg.Prefix, clientv3.WithLimit(1), clientv3.WithKeysOnly())
	if err != nil {
		return 0, e.kind("read the current revision", "", err)
	}
	return r.Header.Revision, nil
}

// kind turns etcd's error into one of this package's.
func (e *Etcd) kind(verb, key string, err error) error {
	if err == nil {
		return nil
	}
	if key != "" {
		verb += " " + key
	}
	var is error
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		is = ErrNoSpace
	case errors.Is(err, rpctypes.ErrCompacted):
		is = ErrCompacted
	case errors.Is(err, rpctypes.ErrRequestTooLarge), status.Code(err) == codes.ResourceExhausted:
		is = ErrTooLarge
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", verb, err)
	default:
		return fmt.Errorf("%s: %w (%w)", verb, ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", verb, is)
}

func entry(kv *mvccpb.KeyValue) Entry {
	return Entry{Key: string(kv.Key), Value: kv.Value, Revision: kv.ModRevision}
}

func b2i(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// single lets concurrent callers share reads. A caller must not get the result
// of a read that began before its call, so at most one read runs and one waits.
type single struct {
	read func() (int64, error)

	mu      sync.Mutex
	running bool
	next    *result
}

type result struct {
	done chan struct{}
	rev  int64
	err  error
}

func (s *single) do(ctx context.Context) (int64, error) {
	s.mu.Lock()
	if s.next == nil {
		s.next = &result{done: make(chan struct{})}
	}
	r := s.next
	if !s.running {
		s.running = true
		go s.loop()
	}
	s.mu.Unlock()
	select {
	case <-r.done:
		return r.rev, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (s *single) loop() {
	for {
		s.mu.Lock()
		r := s.next
		s.next = nil
		if r == nil {
			s.running = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		r.rev, r.err = s.read()
		close(r.done)
	}
}
