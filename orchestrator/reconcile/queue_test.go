package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

func key(name string) types.NamespacedName { return types.NamespacedName{Name: name} }

// calls notes when each key was reconciled, in time since the start.
type calls struct {
	mu    sync.Mutex
	start time.Time
	list  []string
}

func (c *calls) add(k types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, fmt.Sprintf("%s@%s", k.Name, time.Since(c.start)))
}

func run(t *testing.T, cfg reconcile.Config, then func(q *reconcile.Queue)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		q, err := reconcile.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- q.Run(ctx) }()
		then(q)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
}

func want(t *testing.T, c *calls, list ...string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if fmt.Sprint(c.list) != fmt.Sprint(list) {
		t.Errorf("got  %v\nwant %v", c.list, list)
	}
}

func TestKeyIsReconciledOnceHoweverOftenItIsAdded(t *testing.T) {
	c := &calls{}
	run(t, reconcile.Config{Reconcile: func(_ context.Context, k types.NamespacedName) (time.Duration, error) {
		c.add(k)
		return 0, nil
	}}, func(q *reconcile.Queue) {
		c.start = time.Now()
		for range 3 {
			q.Add(key("a"))
		}
		q.AddAfter(key("b"), time.Second)
		q.AddAfter(key("b"), time.Minute)
		time.Sleep(2 * time.Minute)
		want(t, c, "a@0s", "b@1s")
		if s := q.Stats(); s.Depth+s.Delayed+s.Running != 0 || s.Runs != 2 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestErrorsBackOffByKeyUntilSuccess(t *testing.T) {
	c := &calls{}
	left := 3
	run(t, reconcile.Config{MinBackoff: time.Second, MaxBackoff: 3 * time.Second, Reconcile: func(_ context.Context, k types.NamespacedName) (time.Duration, error) {
		c.add(k)
		if left--; left >= 0 && k.Name == "a" {
			if left == 1 {
				panic("a panic is an error")
			}
			return 0, errors.New("not yet")
		}
		return 0, nil
	}}, func(q *reconcile.Queue) {
		c.start = time.Now()
		q.Add(key("a"))
		time.Sleep(time.Minute)
		want(t, c, "a@0s", "a@1s", "a@3s", "a@6s")
	})
}

func TestFreshEventDoesNotWaitForTheBackoff(t *testing.T) {
	c := &calls{}
	run(t, reconcile.Config{MinBackoff: 10 * time.Second, Reconcile: func(_ context.Context, k types.NamespacedName) (time.Duration, error) {
		c.add(k)
		if time.Since(c.start) == 0 {
			return 0, errors.New("not yet")
		}
		return 0, nil
	}}, func(q *reconcile.Queue) {
		c.start = time.Now()
		q.Add(key("a"))
		time.Sleep(time.Second)
		q.Add(key("a"))
		time.Sleep(time.Minute)
		want(t, c, "a@0s", "a@1s")
	})
}

func TestOneKeyIsNeverReconciledTwiceAtATime(t *testing.T) {
	c := &calls{}
	run(t, reconcile.Config{Workers: 4, Reconcile: func(_ context.Context, k types.NamespacedName) (time.Duration, error) {
		c.add(k)
		time.Sleep(time.Second)
		return 0, nil
	}}, func(q *reconcile.Queue) {
		c.start = time.Now()
		q.Add(key("a"))
		time.Sleep(time.Millisecond)
		q.Add(key("a"))
		q.Add(key("b"))
		time.Sleep(time.Minute)
		want(t, c, "a@0s", "b@1ms", "a@1s")
	})
}

func TestRequeueAfter(t *testing.T) {
	c := &calls{}
	run(t, reconcile.Config{Reconcile: func(_ context.Context, k types.NamespacedName) (time.Duration, error) {
		c.add(k)
		if time.Since(c.start) < time.Minute {
			return 40 * time.Second, nil
		}
		return 0, nil
	}}, func(q *reconcile.Queue) {
		c.start = time.Now()
		q.Add(key("a"))
		time.Sleep(time.Hour)
		want(t, c, "a@0s", "a@40s", "a@1m20s")
	})
}

func BenchmarkQueue(b *testing.B) {
	for _, n := range []int{1000, 100000} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			keys := make([]types.NamespacedName, n)
			for i := range keys {
				keys[i] = types.NamespacedName{Namespace: "default", Name: fmt.Sprint("web-", i)}
			}
			b.ReportAllocs()
			for b.Loop() {
				var left sync.WaitGroup
				left.Add(n)
				q, _ := reconcile.New(reconcile.Config{Workers: 4, Reconcile: func(context.Context, types.NamespacedName) (time.Duration, error) {
					left.Done()
					return 0, nil
				}})
				ctx, cancel := context.WithCancel(b.Context())
				go func() { _ = q.Run(ctx) }()
				for _, k := range keys {
					q.Add(k)
				}
				left.Wait()
				cancel()
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "keys/s")
		})
	}
}
