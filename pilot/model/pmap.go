package model

import (
	"hash/maphash"
	"iter"
	"maps"
	"slices"
	"strings"
)

const shards = 128

var seed = maphash.MakeSeed()

// Map is a persistent map from strings. The zero Map is empty. With and Without
// return a new Map that shares all shards but one with the old, so that old
// snapshots stay valid and Diff looks only at what differs.
type Map[V comparable] struct {
	root *[shards]map[string]V
	size int
}

func shardOf(k string) int { return int(maphash.String(seed, k) % shards) }

// Len is the number of keys.
func (m Map[V]) Len() int { return m.size }

// Get returns the value of a key and whether it is there.
func (m Map[V]) Get(k string) (V, bool) {
	if m.root == nil {
		var none V
		return none, false
	}
	v, ok := m.root[shardOf(k)][k]
	return v, ok
}

// With returns a map in which k has the value v.
func (m Map[V]) With(k string, v V) Map[V] {
	old, had := m.Get(k)
	if had && old == v {
		return m
	}
	out := m.fork(k)
	out.root[shardOf(k)][k] = v
	if !had {
		out.size++
	}
	return out
}

// Without returns a map in which k is absent.
func (m Map[V]) Without(k string) Map[V] {
	if _, had := m.Get(k); !had {
		return m
	}
	out := m.fork(k)
	delete(out.root[shardOf(k)], k)
	out.size--
	return out
}

func (m Map[V]) fork(k string) Map[V] {
	root := new([shards]map[string]V)
	if m.root != nil {
		*root = *m.root
	}
	i := shardOf(k)
	if root[i] = maps.Clone(root[i]); root[i] == nil {
		root[i] = map[string]V{}
	}
	return Map[V]{root: root, size: m.size}
}

// Same says whether both are one and the same version, without looking inside.
func (m Map[V]) Same(o Map[V]) bool { return m.root == o.root }

// All yields every key and value in no particular order.
func (m Map[V]) All() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		if m.root == nil {
			return
		}
		for _, s := range m.root {
			for k, v := range s {
				if !yield(k, v) {
					return
				}
			}
		}
	}
}

// Keys returns all keys in order.
func (m Map[V]) Keys() []string {
	out := make([]string, 0, m.size)
	for k := range m.All() {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Diff calls changed for each key whose value is new or different in next, and
// removed for each that next lacks. Shards that both share are skipped unread.
func (m Map[V]) Diff(next Map[V], changed func(k string, v V), removed func(k string, v V)) {
	if m.root == next.root {
		return
	}
	var empty [shards]map[string]V
	a, b := m.root, next.root
	if a == nil {
		a = &empty
	}
	if b == nil {
		b = &empty
	}
	for i := range a {
		if sameMap(a[i], b[i]) {
			continue
		}
		for k, v := range b[i] {
			if old, ok := a[i][k]; !ok || old != v {
				changed(k, v)
			}
		}
		for k, v := range a[i] {
			if _, ok := b[i][k]; !ok {
				removed(k, v)
			}
		}
	}
}

// Builder collects many edits without copying a shard for each.
type Builder[V comparable] struct {
	m     Map[V]
	owned [shards]bool
}

// Edit begins a batch of edits on a copy of m.
func (m Map[V]) Edit() *Builder[V] {
	root := new([shards]map[string]V)
	if m.root != nil {
		*root = *m.root
	}
	return &Builder[V]{m: Map[V]{root: root, size: m.size}}
}

func (b *Builder[V]) shard(k string) map[string]V {
	i := shardOf(k)
	if !b.owned[i] {
		if b.m.root[i] = maps.Clone(b.m.root[i]); b.m.root[i] == nil {
			b.m.root[i] = map[string]V{}
		}
		b.owned[i] = true
	}
	return b.m.root[i]
}

// Get reads what has been edited so far.
func (b *Builder[V]) Get(k string) (V, bool) { return b.m.Get(k) }

// Set gives k the value v.
func (b *Builder[V]) Set(k string, v V) {
	old, had := b.m.Get(k)
	if had && old == v {
		return
	}
	b.shard(k)[k] = v
	if !had {
		b.m.size++
	}
}

// Delete removes k.
func (b *Builder[V]) Delete(k string) {
	if _, had := b.m.Get(k); !had {
		return
	}
	delete(b.shard(k), k)
	b.m.size--
}

// Map ends the batch. The Builder must not be used afterwards.
func (b *Builder[V]) Map() Map[V] { return b.m }

// Join and Split put several words into one comparable string and back.
func Join(words ...string) string { return strings.Join(words, "\x00") }

// Split undoes Join.
func Split(s string) []string { return strings.Split(s, "\x00") }
