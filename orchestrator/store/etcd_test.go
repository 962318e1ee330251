package store_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xebec-mesh/xebec/orchestrator/store"
)

// TestRestart closes the database and opens it again: quickly, with everything in it.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	s := etcd(t, store.Config{Dir: dir})
	rev, err := s.Create(t.Context(), "/registry/a", []byte("1"))
	check(t, err)
	stops[s]()
	if _, err := s.Get(t.Context(), "/registry/a"); err == nil {
		t.Fatal("a stopped store answers")
	}
	start := time.Now()
	s = etcd(t, store.Config{Dir: dir})
	t.Logf("open again: %v", time.Since(start))
	e, err := s.Get(t.Context(), "/registry/a")
	check(t, err)
	if string(e.Value) != "1" || e.Revision != rev {
		t.Fatalf("after a restart: %+v", e)
	}
	stream := s.Watch(t.Context(), "/registry/", rev-1)
	if b := <-stream.C; len(b.Events) != 1 || b.Events[0].Key != "/registry/a" {
		t.Fatalf("watch across a restart: %+v %v", b, stream.Err())
	}
}

// TestExternal reaches the embedded member of one Store from another, over its socket.
func TestExternal(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	in := etcd(t, store.Config{Dir: t.TempDir(), Socket: socket})
	out := etcd(t, store.Config{Endpoints: []string{"unix://" + socket}})
	t.Run("verbs", func(t *testing.T) { verbs(t, out) })
	t.Run("watch", func(t *testing.T) { watch(t, out) })
	t.Run("compact", func(t *testing.T) { compact(t, out) })
	t.Run("progress", func(t *testing.T) {
		stream := out.Watch(t.Context(), "/registry/", mustCurrent(t, out))
		_, err := in.Create(t.Context(), "/not/ours", nil)
		check(t, err)
		want := mustCurrent(t, in)
		for b := range stream.C {
			if b.Revision >= want {
				return
			}
		}
		t.Fatal(stream.Err())
	})
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	s, err := store.NewEtcd(store.Config{Endpoints: []string{l.Addr().String()}, Timeout: 50 * time.Millisecond, Log: discard})
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := s.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("run: %v", err)
	}
}

// TestQuota fills the database, sees writes refused, makes room and writes again.
func TestQuota(t *testing.T) {
	s := etcd(t, store.Config{Dir: t.TempDir(), Quota: 8 << 20})
	ctx := t.Context()
	var err error
	var keys []string
	var revs []int64
	for i := 0; err == nil && i < 100; i++ {
		var rev int64
		key := fmt.Sprintf("/registry/%d", i)
		rev, err = s.Create(ctx, key, []byte(strings.Repeat("x", 1<<20)))
		keys, revs = append(keys, key), append(revs, rev)
	}
	if !errors.Is(err, store.ErrNoSpace) {
		t.Fatalf("a full database says %v", err)
	}
	for i, rev := range revs[:len(revs)-1] {
		_, err := s.Delete(ctx, keys[i], rev)
		check(t, err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		check(t, s.Compact(ctx, mustCurrent(t, s)))
		rev, err := s.Create(ctx, "/registry/again", nil)
		if err == nil {
			_, err = s.Delete(ctx, "/registry/again", rev)
			check(t, err)
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no room after everything is deleted: %v", err)
		}
		_, _ = s.Delete(ctx, keys[0], 1) // moves nothing; the compaction runs in the background
		time.Sleep(50 * time.Millisecond)
	}
}

func TestDiskFull(t *testing.T) {
	s := etcd(t, store.Config{Dir: t.TempDir(), MinFree: 1 << 60})
	for range 100 {
		if _, err := s.Create(t.Context(), "/registry/a", nil); errors.Is(err, store.ErrNoSpace) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("writes are accepted without space")
}

func mustCurrent(t *testing.T, s *store.Etcd) int64 {
	t.Helper()
	rev, err := s.Current(t.Context())
	check(t, err)
	return rev
}

// TestMembers runs three members: what one has acknowledged, the others know of,
// and two go on without the third.
func TestMembers(t *testing.T) {
	peers := map[string]string{}
	for i := range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		check(t, err)
		peers[fmt.Sprintf("m%d", i)] = "http://" + l.Addr().String()
		check(t, l.Close())
	}
	members := make([]*store.Etcd, 3)
	var wg sync.WaitGroup
	for i := range members {
		name := fmt.Sprintf("m%d", i)
		dir := t.TempDir()
		s, err := store.NewEtcd(store.Config{Dir: dir, Log: discard, Member: &store.Member{Name: name, PeerURL: peers[name], Peers: peers}})
		check(t, err)
		members[i] = s
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { _ = s.Run(ctx); close(done) }()
		stop := sync.OnceFunc(func() { cancel(); <-done })
		stops[s] = stop
		wg.Go(func() { <-s.Ready() })
		t.Cleanup(stop)
	}
	wg.Wait()
	ctx := t.Context()
	rev, err := members[0].Create(ctx, "/registry/a", []byte("1"))
	check(t, err)
	if now := mustCurrent(t, members[1]); now < rev {
		t.Fatalf("the second member is at %d, the first has acknowledged %d", now, rev)
	}
	if b := <-members[2].Watch(ctx, "/registry/", rev-1).C; len(b.Events) != 1 || b.Events[0].Revision != rev {
		t.Fatalf("the third member's watch has %+v", b)
	}
	stops[members[2]]()
	_, err = members[0].Update(ctx, "/registry/a", []byte("2"), rev)
	for errors.Is(err, store.ErrUnavailable) { // an election, if the third led
		_, err = members[0].Update(ctx, "/registry/a", []byte("2"), rev)
	}
	var moved *store.ConflictError
	if !errors.As(err, &moved) { // an attempt that seemed to fail may have succeeded
		check(t, err)
	}
	if e, err := members[1].Get(ctx, "/registry/a"); err != nil || string(e.Value) != "2" {
		t.Fatalf("the second member reads %+v, %v", e, err)
	}
}
