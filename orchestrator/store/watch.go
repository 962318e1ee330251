package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// Watch sends all changes under prefix after revision.
func (e *Etcd) Watch(ctx context.Context, prefix string, revision int64) *Stream {
	out := make(chan Batch, 64)
	s := &Stream{C: out}
	go func() {
		defer close(out)
		s.err = e.follow(ctx, prefix, revision, out)
	}()
	return s
}

func (e *Etcd) follow(ctx context.Context, prefix string, revision int64, out chan<- Batch) error {
	_, cancel, err := e.begin(ctx)
	if err != nil {
		return err
	}
	cancel()
	if e.member != nil {
		return e.followMember(ctx, prefix, revision, out)
	}
	ctx, cancel = context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	c := e.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1), clientv3.WithProgressNotify())
	go e.askProgress(ctx)
	for r := range c {
		if err := r.Err(); err != nil {
			if errors.Is(err, rpctypes.ErrCompacted) || r.CompactRevision > 0 {
				return fmt.Errorf("watch %s from %d: %w", prefix, revision, ErrCompacted)
			}
			return e.kind("watch", prefix, err)
		}
		select {
		case out <- batch(r):
		case <-ctx.Done():
			return nil
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("watch %s: %w: the stream ended", prefix, ErrUnavailable)
}

// askProgress keeps the stream's revision near the database's although others
// write keys outside of the prefix, or to other servers.
func (e *Etcd) askProgress(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = e.client.RequestProgress(ctx) // an error ends the watch too, which reports it
		}
	}
}

func batch(r clientv3.WatchResponse) Batch {
	b := Batch{Revision: r.Header.Revision, Events: make([]Event, len(r.Events))}
	for i, ev := range r.Events {
		b.Events[i] = Event{Entry: entry(ev.Kv), Created: ev.IsCreate(), Deleted: ev.Type == mvccpb.DELETE}
	}
	if n := len(b.Events); n > 0 {
		// The header is the database's revision when the batch was sent, which may
		// be ahead of events that are still on their way.
		b.Revision = b.Events[n-1].Revision
	}
	return b
}

// pendingMost is how many events wait for a slow reader of the member's stream
// before the stream itself is left waiting.
const pendingMost = 1 << 16

// followMember watches the embedded member's own table of keys. Whatever has
// come by the time that the reader is ready goes out as one batch; the member's
// channel is emptied meanwhile, since a watcher that leaves it full is put aside
// and served with a delay.
func (e *Etcd) followMember(ctx context.Context, prefix string, revision int64, out chan<- Batch) error {
	ws := e.member.Server.KV().NewWatchStream()
	defer ws.Close()
	end := []byte(clientv3.GetPrefixRangeEnd(prefix))
	if _, err := ws.Watch(ctx, clientv3.AutoWatchID, []byte(prefix), end, revision+1); err != nil {
		return fmt.Errorf("watch %s: %w", prefix, err)
	}
	ask := time.NewTicker(100 * time.Millisecond)
	defer ask.Stop()
	var pending Batch
	seen := revision
	for {
		in, to := ws.Chan(), out
		if pending.Revision == 0 {
			to = nil
		}
		if len(pending.Events) >= pendingMost {
			in = nil
		}
		select {
		case r, ok := <-in:
			if !ok {
				return fmt.Errorf("watch %s: %w: the stream ended", prefix, ErrUnavailable)
			}
			if r.CompactRevision > 0 {
				return fmt.Errorf("watch %s from %d: %w", prefix, revision, ErrCompacted)
			}
			pending.add(r)
			seen = max(seen, pending.Revision)
		case to <- pending:
			pending = Batch{}
		case <-ask.C: // keys outside of the prefix move the revision too
			if e.member.Server.KV().Rev() > seen {
				ws.RequestProgressAll()
			}
		case <-e.member.Server.StopNotify():
			return fmt.Errorf("watch %s: %w: it has been stopped", prefix, ErrUnavailable)
		case <-ctx.Done():
			return nil
		}
	}
}

func (b *Batch) add(r mvcc.WatchResponse) {
	for _, ev := range r.Events {
		b.Events = append(b.Events, Event{Entry: entry(ev.Kv), Created: ev.Kv.CreateRevision == ev.Kv.ModRevision, Deleted: ev.Type == mvccpb.Event_DELETE})
		b.Revision = ev.Kv.ModRevision
	}
	if len(r.Events) == 0 {
		b.Revision = max(b.Revision, r.Revision)
	}
}
