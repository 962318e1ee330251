package cache_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
	"github.com/xebec-mesh/xebec/orchestrator/store"
)

var configMaps = &resource.Kind{
	GroupVersionKind: corev1.SchemeGroupVersion.WithKind("ConfigMap"),
	Resource:         "configmaps",
	Namespaced:       true,
	New:              func() resource.Object { return &corev1.ConfigMap{} },
	NewList:          func() runtime.Object { return &corev1.ConfigMapList{} },
}

var pods = &resource.Kind{
	GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Pod"),
	Resource:         "pods",
	Namespaced:       true,
	New:              func() resource.Object { return &corev1.Pod{} },
	NewList:          func() runtime.Object { return &corev1.PodList{} },
	FieldNames:       []string{"spec.nodeName"},
	Fields: func(o resource.Object) fields.Set {
		return fields.Set{"metadata.name": o.GetName(), "metadata.namespace": o.GetNamespace(), "spec.nodeName": o.(*corev1.Pod).Spec.NodeName}
	},
}

// world is a store with caches over it.
type world struct {
	t    testing.TB
	s    store.Store
	hub  *cache.Hub
	maps *cache.Resource
	pods *cache.Resource
}

func newWorld(t testing.TB, s store.Store, cfg cache.Config) *world {
	t.Helper()
	cfg.Store = s
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	hub, err := cache.NewHub(cfg)
	check(t, err)
	w := &world{t: t, s: s, hub: hub}
	w.maps, err = hub.Add(context.Background(), configMaps)
	check(t, err)
	w.pods, err = hub.Add(context.Background(), pods)
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = hub.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	<-hub.Ready()
	return w
}

// put creates or replaces an object through the cache's write path.
func (w *world) put(r *cache.Resource, obj resource.Object) *cache.Object {
	w.t.Helper()
	key := cache.KeyOf(obj.GetNamespace(), obj.GetName())
	value, err := cache.Encode(r.Kind(), obj)
	check(w.t, err)
	old := r.Latest(key)
	p := r.Expect(key, value, obj)
	var rev int64
	if old == nil {
		rev, err = w.s.Create(context.Background(), r.StoreKey(key), value)
	} else {
		rev, err = w.s.Update(context.Background(), r.StoreKey(key), value, int64(old.RV))
	}
	check(w.t, err)
	return p.Stored(rev)
}

func (w *world) del(r *cache.Resource, key string) {
	w.t.Helper()
	_, err := w.s.Delete(context.Background(), r.StoreKey(key), int64(r.Latest(key).RV))
	check(w.t, err)
}

func configMap(name string, l map[string]string, data string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: l}, Data: map[string]string{"data": data}}
}

func pod(name, node string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{NodeName: node}}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestReadYourWrites(t *testing.T) {
	w := newWorld(t, store.NewMemory(), cache.Config{})
	for i := range 500 {
		o := w.put(w.maps, configMap("a", nil, fmt.Sprint(i)))
		l, err := w.maps.List(t.Context(), cache.Query{})
		check(t, err)
		if len(l.Items) != 1 || l.Items[0].RV != o.RV || l.RV < o.RV {
			t.Fatalf("list at %d shows %v after writing %d", l.RV, l.Items, o.RV)
		}
		if l.Items[0] != o {
			t.Fatal("the written object was decoded again")
		}
	}
}

// TestPaging reads pages while everything changes, and gets the first state.
func TestPaging(t *testing.T) {
	w := newWorld(t, store.NewMemory(), cache.Config{HistoryEvents: 10})
	for i := range 100 {
		w.put(w.maps, configMap(fmt.Sprintf("a%03d", i), nil, "old"))
	}
	q := cache.Query{Namespace: "default", Limit: 7}
	seen := 0
	var rv uint64
	for {
		l, err := w.maps.List(t.Context(), q)
		check(t, err)
		if rv == 0 {
			rv = l.RV
		}
		for _, o := range l.Items {
			if want := fmt.Sprintf("default/a%03d", seen); o.Key != want || o.Obj.(*corev1.ConfigMap).Data["data"] != "old" {
				t.Fatalf("item %d is %s, %v", seen, o.Key, o.Obj)
			}
			seen++
		}
		if l.RV != rv {
			t.Fatalf("page at %d, the first at %d", l.RV, rv)
		}
		if l.Continue == "" {
			break
		}
		if int(*l.Remaining) != 100-seen {
			t.Fatalf("%d remain after %d", *l.Remaining, seen)
		}
		q.Continue = l.Continue
		w.put(w.maps, configMap(fmt.Sprintf("a%03d", (seen*37)%100), nil, "new"))
		w.put(w.maps, configMap(fmt.Sprintf("b%03d", seen), nil, "new"))
	}
	if seen != 100 {
		t.Fatalf("saw %d objects", seen)
	}
}

func TestPageExpires(t *testing.T) {
	w := newWorld(t, store.NewMemory(), cache.Config{PageAge: time.Nanosecond})
	for i := range 5 {
		w.put(w.maps, configMap(fmt.Sprint(i), nil, ""))
	}
	l, err := w.maps.List(t.Context(), cache.Query{Limit: 2})
	check(t, err)
	time.Sleep(1100 * time.Millisecond) // tokens count seconds
	_, err = w.maps.List(t.Context(), cache.Query{Limit: 2, Continue: l.Continue})
	var status apierrors.APIStatus
	if !apierrors.IsResourceExpired(err) || !errors.As(err, &status) || status.Status().Continue == "" {
		t.Fatalf("an expired token gives %v", err)
	}
	l, err = w.maps.List(t.Context(), cache.Query{Continue: status.Status().Continue})
	check(t, err)
	if len(l.Items) != 3 {
		t.Fatalf("the rest is %d objects, want 3", len(l.Items))
	}
}

func TestExactList(t *testing.T) {
	w := newWorld(t, store.NewMemory(), cache.Config{})
	a := w.put(w.maps, configMap("a", nil, "1"))
	b := w.put(w.maps, configMap("b", nil, "1"))
	w.put(w.maps, configMap("a", nil, "2"))
	w.del(w.maps, "default/b")
	c := w.put(w.maps, configMap("c", nil, "1"))
	check(t, w.hub.Wait(t.Context(), c.RV))
	l, err := w.maps.List(t.Context(), cache.Query{RV: b.RV, Match: cache.Exact})
	check(t, err)
	if len(l.Items) != 2 || l.Items[0] != a || l.Items[1] != b || l.RV != b.RV {
		t.Fatalf("at %d: %v", b.RV, l.Items)
	}
}

// TestWatch lets many writers work under watchers of all sorts. Each watcher
// must end in the state that a list shows, with revisions that only grow.
func TestWatch(t *testing.T) {
	w := newWorld(t, store.NewMemory(), cache.Config{})
	odd := labels.SelectorFromSet(labels.Set{"odd": "true"})
	node := fields.OneTermEqualSelector("spec.nodeName", "n1")
	name := fields.OneTermEqualSelector("metadata.name", "p3")
	watches := []struct {
		r *cache.Resource
		o cache.WatchOptions
	}{
		{w.maps, cache.WatchOptions{Initial: true}},
		{w.maps, cache.WatchOptions{Initial: true, Query: cache.Query{Labels: odd}}},
		{w.maps, cache.WatchOptions{Initial: true, Query: cache.Query{Namespace: "default", Labels: odd}}},
		{w.maps, cache.WatchOptions{Initial: true, Query: cache.Query{Namespace: "other"}}},
		{w.pods, cache.WatchOptions{Initial: true, Query: cache.Query{Fields: node}}},
		{w.pods, cache.WatchOptions{Initial: true, Query: cache.Query{Fields: name}}},
	}
	const writers, steps = 4, 800
	var wg, readers sync.WaitGroup
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	goal := make(chan uint64, 1)
	for i, spec := range watches {
		for copies := range 3 {
			readers.Go(func() {
				time.Sleep(time.Duration(copies) * 3 * time.Millisecond) // so that some start in the middle
				watcher, err := spec.r.Watch(ctx, spec.o)
				if err != nil {
					t.Error(err)
					return
				}
				defer watcher.Stop()
				got := follow(t, ctx, watcher, goal, spec.r)
				l, err := spec.r.List(ctx, cache.Query{Namespace: spec.o.Namespace, Labels: spec.o.Labels, Fields: spec.o.Fields})
				if err != nil || len(l.Items) != len(got) {
					t.Errorf("watch %d ends with %d objects, list with %d (%v)", i, len(got), len(l.Items), err)
					return
				}
				for _, o := range l.Items {
					if got[o.Key] != o.RV {
						t.Errorf("watch %d has %s at %d, list at %d", i, o.Key, got[o.Key], o.RV)
					}
				}
			})
		}
	}
	for wr := range writers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(wr)))
			for range steps {
				i := rnd.IntN(20)*writers + wr // each has its own names
				cm, p := configMap(fmt.Sprintf("c%d", i), map[string]string{"odd": fmt.Sprint(rnd.IntN(2) == 1)}, ""), pod(fmt.Sprintf("p%d", i), fmt.Sprintf("n%d", rnd.IntN(3)))
				switch {
				case rnd.IntN(3) > 0:
					w.put(w.maps, cm)
					w.put(w.pods, p)
				case w.maps.Latest("default/"+cm.Name) != nil && w.hub.Wait(ctx, w.maps.Latest("default/"+cm.Name).RV) == nil:
					w.del(w.maps, "default/"+cm.Name)
					now, _ := w.s.Current(ctx)
					_ = w.hub.Wait(ctx, uint64(now))
				}
			}
		})
	}
	wg.Wait()
	last := w.put(w.maps, configMap("last", nil, ""))
	goal <- last.RV
	readers.Wait()
}

// follow applies events until the watch has been silent after the goal.
func follow(t *testing.T, ctx context.Context, watcher *cache.Watcher, goal chan uint64, r *cache.Resource) map[string]uint64 {
	got := map[string]uint64{}
	rv, initial := uint64(0), true
	for {
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		events, err := watcher.Next(short)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			select {
			case g := <-goal:
				goal <- g
				return got
			default:
				continue
			}
		}
		if err != nil {
			t.Error(err)
			return got
		}
		for _, e := range events {
			_, known := got[e.Object.Key]
			switch {
			case e.Type == watch.Added && known, e.Type != watch.Added && !known:
				t.Errorf("%s of %s, known: %v", e.Type, e.Object.Key, known)
			case e.Object.RV <= rv && !initial:
				t.Errorf("event at %d after %d", e.Object.RV, rv)
			}
			if e.Type != watch.Added {
				initial = false
			}
			rv = max(rv, e.Object.RV)
			got[e.Object.Key] = e.Object.RV
			if e.Type == watch.Deleted {
				delete(got, e.Object.Key)
			}
		}
	}
}

func TestWatchFromRevision(t *testing.T) {
	w := newWorld(t, store.NewMemory(), cache.Config{HistoryEvents: 3})
	var rvs []uint64
	for i := range 6 {
		rvs = append(rvs, w.put(w.maps, configMap("a", nil, fmt.Sprint(i))).RV)
	}
	check(t, w.hub.Wait(t.Context(), rvs[5]))
	if _, err := w.maps.Watch(t.Context(), cache.WatchOptions{Query: cache.Query{RV: rvs[0], Match: cache.NotOlder}}); !apierrors.IsResourceExpired(err) {
		t.Fatalf("watch from long ago: %v", err)
	}
	watcher, err := w.maps.Watch(t.Context(), cache.WatchOptions{Query: cache.Query{RV: rvs[2], Match: cache.NotOlder}})
	check(t, err)
	events, err := watcher.Next(t.Context())
	check(t, err)
	if len(events) != 3 || events[0].Object.RV != rvs[3] || events[2].Object.RV != rvs[5] {
		t.Fatalf("events after %d: %v", rvs[2], events)
	}
}

// TestSlowWatcher: who does not read is cut off, and nobody else notices.
func TestSlowWatcher(t *testing.T) {
	w := newWorld(t, store.NewMemory(), cache.Config{HistoryEvents: 4})
	slow, err := w.maps.Watch(t.Context(), cache.WatchOptions{Initial: true})
	check(t, err)
	fast, err := w.maps.Watch(t.Context(), cache.WatchOptions{Initial: true})
	check(t, err)
	for i := range 20 {
		w.put(w.maps, configMap("a", nil, fmt.Sprint(i)))
		if events, err := fast.Next(t.Context()); err != nil || len(events) != 1 {
			t.Fatalf("fast watcher got %d events, %v", len(events), err)
		}
	}
	for err == nil {
		_, err = slow.Next(t.Context())
	}
	if !apierrors.IsResourceExpired(err) {
		t.Fatalf("slow watcher got %v", err)
	}
}

func TestSelectionChanges(t *testing.T) {
	w := newWorld(t, store.NewMemory(), cache.Config{})
	watcher, err := w.maps.Watch(t.Context(), cache.WatchOptions{Initial: true, Query: cache.Query{Labels: labels.SelectorFromSet(labels.Set{"in": "yes"})}})
	check(t, err)
	in, out := map[string]string{"in": "yes"}, map[string]string{"in": "no"}
	w.put(w.maps, configMap("a", out, "1"))
	w.put(w.maps, configMap("a", in, "2"))
	w.put(w.maps, configMap("a", in, "3"))
	left := w.put(w.maps, configMap("a", out, "4"))
	w.put(w.maps, configMap("a", in, "5"))
	w.del(w.maps, "default/a")
	var got []string
	for len(got) < 5 {
		events, err := watcher.Next(t.Context())
		check(t, err)
		for _, e := range events {
			got = append(got, fmt.Sprintf("%s %s", e.Type, e.Object.Obj.(*corev1.ConfigMap).Data["data"]))
			if e.Object.Obj.(*corev1.ConfigMap).Data["data"] == "3" && e.Type == watch.Deleted && e.Object.RV != left.RV {
				t.Errorf("left the selection at %d, said %d", left.RV, e.Object.RV)
			}
		}
	}
	if want := "[ADDED 2 MODIFIED 3 DELETED 3 ADDED 5 DELETED 5]"; fmt.Sprint(got) != want {
		t.Fatalf("got %v, want %s", got, want)
	}
}

func TestBookmarks(t *testing.T) {
	w := newWorld(t, store.NewMemory(), cache.Config{BookmarkEvery: 20 * time.Millisecond})
	w.put(w.maps, configMap("a", nil, ""))
	watcher, err := w.maps.Watch(t.Context(), cache.WatchOptions{Initial: true, Bookmarks: true, MarkInitial: true, Query: cache.Query{}})
	check(t, err)
	events, err := watcher.Next(t.Context())
	check(t, err)
	if len(events) != 2 || events[0].Type != watch.Added || events[1].Type != watch.Bookmark ||
		events[1].Object.Obj.GetAnnotations()[metav1.InitialEventsAnnotationKey] != "true" {
		t.Fatalf("initial events: %v", events)
	}
	p := w.put(w.pods, pod("p", "")) // another resource moves the revision on
	for {
		events, err = watcher.Next(t.Context())
		check(t, err)
		if events[0].Type != watch.Bookmark || len(events) != 1 {
			t.Fatalf("want a bookmark, got %v", events)
		}
		if events[0].Object.RV >= p.RV {
			return
		}
	}
}

// TestIndexes asks so often that an index is made, and compares with a scan.
func TestIndexes(t *testing.T) {
	w := newWorld(t, store.NewMemory(), cache.Config{})
	var last uint64
	for i := range 1000 {
		w.put(w.maps, configMap(fmt.Sprintf("c%d", i), map[string]string{"app": fmt.Sprint(i % 10)}, ""))
		last = w.put(w.pods, pod(fmt.Sprintf("p%d", i), fmt.Sprintf("n%d", i%100))).RV
	}
	check(t, w.hub.Wait(t.Context(), last))
	sel, err := labels.Parse("app in (3,4),app!=4")
	check(t, err)
	for i := range 6 {
		if i == 5 { // after the index exists
			for _, l := range []string{"3", "4"} {
				w.put(w.maps, configMap("c3", map[string]string{"app": l}, ""))
			}
			w.del(w.maps, "default/c13")
		}
		l, err := w.maps.List(t.Context(), cache.Query{Labels: sel})
		check(t, err)
		if want := 100 - 2*(i/5); len(l.Items) != want {
			t.Fatalf("round %d: %d objects, want %d", i, len(l.Items), want)
		}
	}
	l, err := w.pods.List(t.Context(), cache.Query{Fields: fields.OneTermEqualSelector("spec.nodeName", "n7")})
	check(t, err)
	if len(l.Items) != 10 {
		t.Fatalf("%d pods on the node, want 10", len(l.Items))
	}
}

// broken is a store whose stream ends when told to, with history forgotten.
type broken struct {
	*store.Memory
	cut chan struct{}
}

func (b *broken) Watch(ctx context.Context, prefix string, rev int64) *store.Stream {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-b.cut:
		case <-ctx.Done():
		}
		cancel()
	}()
	return b.Memory.Watch(ctx, prefix, rev)
}

func TestStreamLost(t *testing.T) {
	s := &broken{store.NewMemory(), make(chan struct{})}
	w := newWorld(t, s, cache.Config{})
	a := w.put(w.maps, configMap("a", nil, "1"))
	check(t, w.hub.Wait(t.Context(), a.RV))
	watcher, err := w.maps.Watch(t.Context(), cache.WatchOptions{Initial: true})
	check(t, err)
	_, err = watcher.Next(t.Context())
	check(t, err)
	s.cut <- struct{}{}
	b := w.put(w.maps, configMap("b", nil, "1"))
	check(t, s.Compact(t.Context(), int64(b.RV)))
	l, err := w.maps.List(t.Context(), cache.Query{})
	check(t, err)
	if len(l.Items) != 2 {
		t.Fatalf("after the stream was lost: %v", l.Items)
	}
	for err == nil {
		_, err = watcher.Next(t.Context())
	}
	if !apierrors.IsResourceExpired(err) {
		t.Fatalf("watch across a gap: %v", err)
	}
}
