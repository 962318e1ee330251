package cache

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestTree does random things to a tree and to a map, and keeps old trees to see
// that they never change.
func TestTree(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	want := map[string]*Object{}
	var tr tree
	type past struct {
		tr   tree
		keys []string
	}
	var pasts []past
	for i := range 40000 {
		key := fmt.Sprintf("k%04d", rnd.IntN(3000))
		if grow := i%8000 < 5000; rnd.IntN(4) == 0 == grow {
			var old *Object
			tr, old = tr.del(key)
			if old != want[key] {
				t.Fatalf("delete %s gave %v", key, old)
			}
			delete(want, key)
		} else {
			o := &Object{Key: key}
			var old *Object
			tr, old = tr.set(key, o)
			if old != want[key] {
				t.Fatalf("set %s gave %v", key, old)
			}
			want[key] = o
		}
		if tr.len() != len(want) || tr.get(key) != want[key] {
			t.Fatalf("after %d steps: %d items, want %d", i, tr.len(), len(want))
		}
		if i%1000 == 0 {
			pasts = append(pasts, past{tr, keysOf(tr, "")})
			checkTree(t, tr, want)
		}
	}
	for i, p := range pasts {
		if !slices.Equal(keysOf(p.tr, ""), p.keys) {
			t.Fatalf("past %d has changed", i)
		}
	}
}

func checkTree(t *testing.T, tr tree, want map[string]*Object) {
	t.Helper()
	var keys []string
	for k := range want {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	if !slices.Equal(keysOf(tr, ""), keys) {
		t.Fatal("keys differ")
	}
	for i := 0; i < len(keys); i += 97 {
		if !slices.Equal(keysOf(tr, keys[i]), keys[i:]) || tr.rank(keys[i]) != i || tr.rank(keys[i]+"\x00") != i+1 {
			t.Fatalf("from %s: wrong keys or rank", keys[i])
		}
	}
	var items []item
	for _, k := range keys {
		items = append(items, item{k, want[k]})
	}
	if b := buildTree(items); !slices.Equal(keysOf(b, ""), keys) || b.len() != len(keys) {
		t.Fatal("built tree differs")
	}
}

func keysOf(tr tree, from string) (keys []string) {
	tr.ascend(from, func(it item) bool { keys = append(keys, it.key); return true })
	return keys
}

func BenchmarkTreeSet(b *testing.B) {
	for _, n := range []int{100, 10_000, 1_000_000} {
		b.Run(fmt.Sprintf("objects=%d", n), func(b *testing.B) {
			items := make([]item, n)
			for i := range items {
				items[i] = item{fmt.Sprintf("default/object-%07d", i), &Object{}}
			}
			tr := buildTree(items)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				tr, _ = tr.set(items[(i*7919)%n].key, items[0].obj)
				i++
			}
		})
	}
}
