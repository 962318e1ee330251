package registry_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/registry"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
	"github.com/xebec-mesh/xebec/orchestrator/store"
)

// onEtcd is a registry over an embedded database in a directory of the test's.
func onEtcd(b *testing.B) *registry.Registry {
	b.Helper()
	log := slog.New(slog.DiscardHandler)
	s, err := store.NewEtcd(store.Config{Dir: b.TempDir(), Log: log})
	check(b, err)
	r, err := registry.New(registry.Config{Store: s, Kinds: resource.Kinds(), Log: log})
	check(b, err)
	storeCtx, stopStore := context.WithCancel(context.Background())
	ctx, stop := context.WithCancel(context.Background())
	var stores, wg sync.WaitGroup
	stores.Go(func() { _ = s.Run(storeCtx) })
	wg.Go(func() { _ = r.Run(ctx) })
	b.Cleanup(func() { stop(); wg.Wait(); stopStore(); stores.Wait() })
	<-r.Ready()
	return r
}

// kib is a ConfigMap of 1 KiB.
func kib(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"tenth": name[len(name)-1:]}},
		Data:       map[string]string{"data": strings.Repeat("x", 1024)},
	}
}

var names atomic.Int64

func nextName() string { return fmt.Sprintf("bench-%08d", names.Add(1)) }

func BenchmarkCreate(b *testing.B) {
	for name, open := range map[string]func(*testing.B) *registry.Registry{
		"store=memory": func(b *testing.B) *registry.Registry { return newWorld(b).Registry },
		"store=etcd":   onEtcd,
	} {
		b.Run(name+"/size=1KiB/writers=64", func(b *testing.B) {
			r := open(b)
			b.SetParallelism(32)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := r.Create(context.Background(), cm(""), kib(nextName())); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func BenchmarkUpdateStatus(b *testing.B) {
	r := newWorld(b).Registry
	o, err := r.Create(context.Background(), on("", "pods", ""), pod("p"))
	check(b, err)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p := o.Obj.DeepCopyObject().(*corev1.Pod)
		p.Status.Message = fmt.Sprint(i)
		o, _, err = r.Update(context.Background(), on("", "pods", "p", "status"), p)
		check(b, err)
	}
}

func BenchmarkPatch(b *testing.B) {
	r := newWorld(b).Registry
	_, err := r.Create(context.Background(), cm(""), kib("p"))
	check(b, err)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_, _, err = r.Patch(context.Background(), cm("p"), registry.Patch{Type: types.MergePatchType, Data: []byte(fmt.Sprintf(`{"data":{"n":"%d"}}`, i))})
		check(b, err)
	}
}

func BenchmarkGet(b *testing.B) {
	r := onEtcd(b)
	_, err := r.Create(context.Background(), cm(""), kib("p"))
	check(b, err)
	b.ReportAllocs()
	for b.Loop() {
		o, err := r.Get(context.Background(), cm("p"), metav1.GetOptions{})
		check(b, err)
		_ = o.Protobuf()
	}
}

func BenchmarkList(b *testing.B) {
	r := onEtcd(b)
	const n = 2000
	for range n {
		_, err := r.Create(context.Background(), cm(""), kib(nextName()))
		check(b, err)
	}
	for _, c := range []struct {
		name  string
		opts  metav1.ListOptions
		write func(*cache.List, io.Writer) error
	}{
		{"all/encoding=protobuf", metav1.ListOptions{}, (*cache.List).WriteProtobuf},
		{"all/encoding=json", metav1.ListOptions{}, (*cache.List).WriteJSON},
		{"tenth/encoding=protobuf", metav1.ListOptions{LabelSelector: "tenth=3"}, (*cache.List).WriteProtobuf},
	} {
		b.Run(fmt.Sprintf("objects=%d/size=1KiB/%s", n, c.name), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l, err := r.List(context.Background(), cm(""), c.opts)
				check(b, err)
				check(b, c.write(l, io.Discard))
			}
		})
	}
}

// BenchmarkFanOut counts events that reach watchers, encoded; one operation is
// one event to one watcher.
func BenchmarkFanOut(b *testing.B) {
	for _, watchers := range []int{1, 100} {
		b.Run(fmt.Sprintf("watchers=%d/size=1KiB", watchers), func(b *testing.B) {
			r := newWorld(b).Registry
			first, err := r.Create(context.Background(), cm(""), kib("p"))
			check(b, err)
			writes := max(b.N/watchers, 1)
			var wg sync.WaitGroup
			for range watchers {
				w, err := r.Watch(context.Background(), cm(""), metav1.ListOptions{ResourceVersion: first.Obj.GetResourceVersion()})
				check(b, err)
				wg.Go(func() {
					defer w.Stop()
					var buf []byte
					for seen := 0; seen < writes; {
						events, err := w.Next(context.Background())
						if err != nil {
							b.Error(err)
							return
						}
						for _, e := range events {
							buf = e.AppendProtobuf(buf[:0])
						}
						seen += len(events)
					}
				})
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range writes {
				c := kib("p")
				c.Data["n"] = fmt.Sprint(i)
				if _, _, err := r.Update(context.Background(), cm("p"), c); err != nil {
					b.Fatal(err)
				}
			}
			wg.Wait()
			b.ReportMetric(float64(writes*watchers)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
