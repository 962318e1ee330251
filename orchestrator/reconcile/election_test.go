package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

// server is one candidate whose connection can be cut.
type server struct {
	leading atomic.Bool
	stop    context.CancelFunc
	done    chan error
}

// cut is a client whose writes fail when it is cut off.
type cut struct {
	client.Interface
	off atomic.Bool
}

func (c *cut) Update(ctx context.Context, r client.Resource, obj client.Object, subresource string, opts metav1.UpdateOptions) (client.Object, error) {
	if c.off.Load() {
		return nil, errors.New("no route to host")
	}
	return c.Interface.Update(ctx, r, obj, subresource, opts)
}

func start(t *testing.T, c client.Interface, identity string) *server {
	ctx, stop := context.WithCancel(t.Context())
	s := &server{stop: stop, done: make(chan error, 1)}
	go func() {
		s.done <- reconcile.Leader(ctx, reconcile.ElectionConfig{Client: c, Name: "test", Identity: identity, Run: func(ctx context.Context) error {
			s.leading.Store(true)
			defer s.leading.Store(false)
			<-ctx.Done()
			return ctx.Err()
		}})
	}()
	synctest.Wait()
	return s
}

func leaders(servers ...*server) string {
	out := ""
	for i, s := range servers {
		if s.leading.Load() {
			out += fmt.Sprint(i)
		}
	}
	return out
}

func expect(t *testing.T, when, want string, servers ...*server) {
	t.Helper()
	synctest.Wait()
	if got := leaders(servers...); got != want {
		t.Errorf("%s: %q lead, want %q", when, got, want)
	}
}

func TestElection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := memory.New(nil)
		defer api.Close()
		first := &cut{Interface: api}
		a, b := start(t, first, "a"), start(t, api, "b")
		expect(t, "at first", "0", a, b)
		time.Sleep(time.Minute)
		expect(t, "after a minute", "0", a, b)

		// Cut off, the leader gives up before the other begins.
		first.off.Store(true)
		for range 200 {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if got := leaders(a, b); got == "01" {
				t.Fatal("two leaders")
			}
		}
		expect(t, "after the leader was cut off", "1", a, b)

		// A leader that ends gives the lease up.
		first.off.Store(false)
		b.stop()
		<-b.done
		time.Sleep(3 * time.Second)
		expect(t, "after the leader ended", "0", a, b)
		a.stop()
		<-a.done
	})
}

func TestRestartedServerLeadsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := memory.New(nil)
		defer api.Close()
		me, seconds, now := "a", int32(15), metav1.NowMicro()
		_, err := client.For(api, client.Leases).Create(t.Context(), &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "test"},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &me, LeaseDurationSeconds: &seconds, RenewTime: &now, AcquireTime: &now},
		})
		if err != nil {
			t.Fatal(err)
		}
		other := start(t, api, "b")
		a := start(t, api, "a")
		expect(t, "at once", "0", a, other)
		a.stop()
		<-a.done
		other.stop()
		<-other.done
	})
}
