package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/xebec-mesh/xebec/orchestrator/store"
)

// backend is a Store with what the suite needs beside.
type backend interface {
	store.Store
	Compact(ctx context.Context, rev int64) error
}

func etcd(tb testing.TB, cfg store.Config) *store.Etcd {
	tb.Helper()
	cfg.Log = discard
	s, err := store.NewEtcd(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("run: %v", err)
		}
	})
	tb.Cleanup(stop)
	select {
	case <-s.Ready():
	case err := <-done:
		tb.Fatalf("run: %v", err)
	}
	stops[s] = stop
	return s
}

var (
	stops   = map[*store.Etcd]func(){}
	discard = slog.New(slog.DiscardHandler)
)

// TestStore is the suite that every Store passes.
func TestStore(t *testing.T) {
	for name, open := range map[string]func(testing.TB) backend{
		"memory": func(testing.TB) backend { return store.NewMemory() },
		"etcd":   func(tb testing.TB) backend { return etcd(tb, store.Config{Dir: tb.TempDir()}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			t.Run("verbs", func(t *testing.T) { verbs(t, s) })
			t.Run("list", func(t *testing.T) { list(t, s) })
			t.Run("watch", func(t *testing.T) { watch(t, s) })
			t.Run("lost update", func(t *testing.T) { lostUpdate(t, s) })
			t.Run("too large", func(t *testing.T) { tooLarge(t, s) })
			t.Run("compact", func(t *testing.T) { compact(t, s) })
		})
	}
}

func verbs(t *testing.T, s backend) {
	ctx := t.Context()
	if _, err := s.Get(ctx, "/registry/a"); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("get of nothing: %v", err)
	}
	r1, err := s.Create(ctx, "/registry/a", []byte("1"))
	check(t, err)
	if _, err := s.Create(ctx, "/registry/a", []byte("1")); !errors.Is(err, store.ErrExists) {
		t.Fatalf("second create: %v", err)
	}
	r2, err := s.Update(ctx, "/registry/a", []byte("2"), r1)
	check(t, err)
	if r2 != r1+1 {
		t.Fatalf("revision went from %d to %d", r1, r2)
	}
	var conflict *store.ConflictError
	if _, err := s.Update(ctx, "/registry/a", []byte("3"), r1); !errors.As(err, &conflict) ||
		conflict.Current == nil || string(conflict.Current.Value) != "2" || conflict.Current.Revision != r2 {
		t.Fatalf("stale update: %v", err)
	}
	if now, err := s.Current(ctx); err != nil || now < r2 {
		t.Fatalf("current is %d, %v; want %d", now, err, r2)
	}
	if _, err := s.Delete(ctx, "/registry/a", r1); !errors.As(err, &conflict) || conflict.Current == nil {
		t.Fatalf("stale delete: %v", err)
	}
	_, err = s.Delete(ctx, "/registry/a", r2)
	check(t, err)
	conflict = nil
	if _, err := s.Update(ctx, "/registry/a", []byte("3"), r2); !errors.As(err, &conflict) || conflict.Current != nil {
		t.Fatalf("update of what is gone: %v", err)
	}
}

func list(t *testing.T, s backend) {
	ctx := t.Context()
	const n = 4500
	var wg sync.WaitGroup
	for w := range 10 {
		wg.Go(func() {
			for i := w; i < n; i += 10 {
				if _, err := s.Create(ctx, fmt.Sprintf("/registry/list/%05d", i), []byte("x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	next := 0
	rev, err := s.List(ctx, "/registry/list/", func(e store.Entry) error {
		if want := fmt.Sprintf("/registry/list/%05d", next); e.Key != want {
			return fmt.Errorf("key %s, want %s", e.Key, want)
		}
		next++
		return nil
	})
	check(t, err)
	if now, _ := s.Current(ctx); rev != now || next != n {
		t.Fatalf("listed %d keys at %d, want %d at %d", next, rev, n, now)
	}
}

// watch follows a writer, from the past and into the future, and misses nothing.
func watch(t *testing.T, s backend) {
	ctx, cancel := context.WithCancel(t.Context())
	start, err := s.Current(ctx)
	check(t, err)
	const n = 300
	go func() {
		rev := int64(0)
		for i := range n {
			key := fmt.Sprintf("/registry/w/%d", i/3)
			switch i % 3 {
			case 0:
				rev, _ = s.Create(ctx, key, []byte("a"))
			case 1:
				rev, _ = s.Update(ctx, key, []byte("b"), rev)
			case 2:
				_, _ = s.Delete(ctx, key, rev)
			}
			if i == n/2 {
				_, _ = s.Create(ctx, "/elsewhere", nil)
			}
		}
	}()
	stream := s.Watch(ctx, "/registry/w/", start)
	seen, last := 0, start
	for seen < n {
		b, ok := <-stream.C
		if !ok {
			t.Fatalf("stream ended: %v", stream.Err())
		}
		for _, ev := range b.Events {
			if ev.Revision <= last || ev.Revision > b.Revision {
				t.Fatalf("event at %d after %d in batch at %d", ev.Revision, last, b.Revision)
			}
			last = ev.Revision
			if ev.Created != (seen%3 == 0) || ev.Deleted != (seen%3 == 2) || ev.Key != fmt.Sprintf("/registry/w/%d", seen/3) {
				t.Fatalf("event %d is %+v", seen, ev)
			}
			seen++
		}
	}
	cancel()
	for range stream.C {
	}
	if err := stream.Err(); err != nil {
		t.Fatalf("stream ended with %v", err)
	}
}

// lostUpdate counts up from many goroutines; every count must survive.
func lostUpdate(t *testing.T, s backend) {
	ctx := t.Context()
	_, err := s.Create(ctx, "/registry/n", []byte{0})
	check(t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				for {
					e, err := s.Get(ctx, "/registry/n")
					if err != nil {
						t.Error(err)
						return
					}
					_, err = s.Update(ctx, "/registry/n", []byte{e.Value[0] + 1}, e.Revision)
					var conflict *store.ConflictError
					if err == nil {
						break
					}
					if !errors.As(err, &conflict) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if e, _ := s.Get(ctx, "/registry/n"); e.Value[0] != 80 {
		t.Fatalf("counted to %d, want 80", e.Value[0])
	}
}

func tooLarge(t *testing.T, s backend) {
	if _, err := s.Create(t.Context(), "/registry/large", make([]byte, 3<<20)); !errors.Is(err, store.ErrTooLarge) {
		t.Fatalf("3 MiB: %v", err)
	}
	if _, err := s.Create(t.Context(), "/registry/large", make([]byte, 3<<19)); err != nil {
		t.Fatalf("1.5 MiB: %v", err)
	}
}

func compact(t *testing.T, s backend) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	old, err := s.Create(ctx, "/registry/c", nil)
	check(t, err)
	now, err := s.Update(ctx, "/registry/c", []byte("x"), old)
	check(t, err)
	check(t, s.Compact(ctx, now))
	stream := s.Watch(ctx, "/registry/", old-1)
	for range stream.C {
	}
	if err := stream.Err(); !errors.Is(err, store.ErrCompacted) {
		t.Fatalf("watch from the compacted past: %v", err)
	}
	stream = s.Watch(ctx, "/registry/", now)
	_, err = s.Update(ctx, "/registry/c", []byte("y"), now)
	check(t, err)
	if b := <-stream.C; len(b.Events) != 1 {
		t.Fatalf("watch from now: %v, %v", b, stream.Err())
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
