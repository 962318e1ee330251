package svid

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xebec-mesh/xebec/citadel/ca"
)

// issuer signs with a root of its own, or fails.
type issuer struct {
	root *ca.Issuer
	ttl  time.Duration

	mu    sync.Mutex
	calls []time.Time
	err   error
}

func (i *issuer) X509(_ context.Context, id ca.Identity, csr []byte) ([][]byte, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.calls = append(i.calls, time.Now())
	if i.err != nil {
		return nil, i.err
	}
	pub, err := ca.ParseCSR(csr)
	if err != nil {
		return nil, err
	}
	serial, err := ca.NewSerial()
	if err != nil {
		return nil, err
	}
	chain, _, err := i.root.Sign(ca.Leaf{TrustDomain: "cluster.local", Identity: id, PublicKey: pub, Serial: serial, Now: time.Now(), TTL: i.ttl})
	return chain, err
}

func (i *issuer) fail(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.err = err
}

func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.calls)
}

var cart = ca.Identity{Namespace: "shop", ServiceAccount: "cart"}

// run calls f in a bubble of fake time with a running cache.
func run(t *testing.T, f func(t *testing.T, c *Cache, i *issuer)) {
	synctest.Test(t, func(t *testing.T) {
		root, err := ca.NewRoot("cluster.local", time.Now(), 10*365*24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		i := &issuer{root: root, ttl: 24 * time.Hour}
		c, err := New(Config{Issuer: i, TrustDomain: "cluster.local"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		f(t, c, i)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func get(t *testing.T, h *Handle) *SVID {
	t.Helper()
	s, err := h.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPodsOfOneServiceAccountShare(t *testing.T) {
	run(t, func(t *testing.T, c *Cache, i *issuer) {
		a, b := c.Hold(cart), c.Hold(cart)
		defer a.Release()
		defer b.Release()
		other := c.Hold(ca.Identity{Namespace: "shop", ServiceAccount: "web"})
		defer other.Release()
		if get(t, a) != get(t, b) {
			t.Error("two pods of one service account have two SVIDs")
		}
		if bytes.Equal(get(t, a).KeyDER, get(t, other).KeyDER) {
			t.Error("two service accounts share a key")
		}
		if i.count() != 2 {
			t.Errorf("%d were signed, want 2", i.count())
		}
	})
}

func TestRenewedAroundHalfLife(t *testing.T) {
	run(t, func(t *testing.T, c *Cache, _ *issuer) {
		h := c.Hold(cart)
		defer h.Release()
		first := get(t, h)
		begin := time.Now()
		_, changed, _ := h.Get()
		<-changed
		if d := time.Since(begin); d < 9*time.Hour || d > 15*time.Hour {
			t.Errorf("renewed after %s of 24h", d)
		}
		if second := get(t, h); second == first || bytes.Equal(second.KeyDER, first.KeyDER) {
			t.Error("the renewed SVID has the old key")
		}
	})
}

func TestOutageKeepsTheOldUntilItEnds(t *testing.T) {
	run(t, func(t *testing.T, c *Cache, i *issuer) {
		h := c.Hold(cart)
		defer h.Release()
		first := get(t, h)
		i.fail(errors.New("unreachable"))
		time.Sleep(20 * time.Hour)
		s, _, err := h.Get()
		if s != first || err == nil {
			t.Errorf("during the outage: %v, %v; want the first and a reason", s, err)
		}
		before := i.count()
		time.Sleep(time.Hour)
		if n := i.count() - before; n < 100 || n > 125 {
			t.Errorf("%d attempts in an hour, want one each half minute", n)
		}
		time.Sleep(4 * time.Hour)
		if s, _, _ := h.Get(); s != nil {
			t.Error("an expired SVID was handed out")
		}
		i.fail(nil)
		time.Sleep(31 * time.Second)
		if s, _, err := h.Get(); s == nil || err != nil {
			t.Errorf("after the outage: %v, %v", s, err)
		}
	})
}

func TestForgottenWhenNobodyHolds(t *testing.T) {
	run(t, func(t *testing.T, c *Cache, i *issuer) {
		h := c.Hold(cart)
		first := get(t, h)
		h.Release()
		h.Release()
		time.Sleep(4 * time.Minute)
		again := c.Hold(cart)
		if get(t, again) != first {
			t.Error("a pod that restarts does not find the SVID")
		}
		again.Release()
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if len(c.entries) != 0 {
			t.Error("the key is still there")
		}
	})
}

func TestNothingPrintsTheKey(t *testing.T) {
	run(t, func(t *testing.T, c *Cache, _ *issuer) {
		h := c.Hold(cart)
		defer h.Release()
		s := get(t, h)
		for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s), s.LogValue().String()} {
			if strings.Contains(text, "PRIVATE") || strings.Contains(text, "KeyDER") {
				t.Errorf("printed: %s", text)
			}
		}
	})
}

func BenchmarkRequest(b *testing.B) {
	root, err := ca.NewRoot("cluster.local", time.Now(), time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	c, err := New(Config{Issuer: &issuer{root: root, ttl: time.Minute}, TrustDomain: "cluster.local"})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := c.request(context.Background(), cart); err != nil {
			b.Fatal(err)
		}
	}
}
