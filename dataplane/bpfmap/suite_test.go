package bpfmap_test

import (
	"encoding/binary"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/xebec-mesh/xebec/dataplane/bpfmap"
	"github.com/xebec-mesh/xebec/dataplane/kernel/kerneltest"
)

type key struct{ A, B uint32 }

// suite is what every Map does; limit is the number of entries that m takes.
func suite(t *testing.T, m bpfmap.Map[key, uint64], limit int) {
	contents := func() map[key]uint64 {
		out := map[key]uint64{}
		if err := m.Range(func(k key, v uint64) bool { out[k] = v; return true }); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if _, ok, err := m.Get(key{1, 2}); ok || err != nil {
		t.Errorf("an empty map has an entry (%v)", err)
	}
	if len(contents()) != 0 {
		t.Error("an empty map has contents")
	}
	want := map[key]uint64{}
	for i := range uint32(limit) {
		k := key{i, i * 7}
		want[k] = uint64(i) << 32
		if err := m.Put(k, want[k]); err != nil {
			t.Fatal(err)
		}
	}
	if got := contents(); !maps.Equal(got, want) {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
	if err := m.Put(key{1 << 31, 0}, 1); err == nil || !strings.Contains(err.Error(), "argument list too long") {
		t.Errorf("one entry too many: %v", err)
	}
	if err := m.Put(key{1, 7}, 99); err != nil {
		t.Errorf("replace in a full map: %v", err)
	}
	if v, ok, err := m.Get(key{1, 7}); v != 99 || !ok || err != nil {
		t.Errorf("replaced: %d, %v, %v", v, ok, err)
	}
	if err := errors.Join(m.Delete(key{1, 7}), m.Delete(key{1, 7})); err != nil {
		t.Errorf("delete twice: %v", err)
	}
	delete(want, key{1, 7})
	if got := contents(); !maps.Equal(got, want) {
		t.Errorf("after a deletion: %d entries, want %d", len(got), len(want))
	}
	seen := 0
	if err := m.Range(func(key, uint64) bool { seen++; return seen < 3 }); err != nil || seen != 3 {
		t.Errorf("a range that stops saw %d entries (%v)", seen, err)
	}
}

func TestMemory(t *testing.T) { suite(t, bpfmap.NewMemory[key, uint64](3000), 3000) }

func TestKernel(t *testing.T) {
	kerneltest.Root(t)
	for _, flags := range []uint32{0, 1} { // 1: BPF_F_NO_PREALLOC
		m := kernelMap(t, flags, 3000)
		suite(t, bpfmap.NewKernel[key, uint64](m), 3000)
	}
}

func kernelMap(tb testing.TB, flags uint32, entries int) *ebpf.Map {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Type: ebpf.Hash, KeySize: uint32(binary.Size(key{})), ValueSize: 8, MaxEntries: uint32(entries), Flags: flags,
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { m.Close() })
	return m
}

func BenchmarkPut(b *testing.B) {
	kerneltest.Root(b)
	m := bpfmap.NewKernel[key, uint64](kernelMap(b, 1, 10000))
	for i := 0; b.Loop(); i++ {
		if err := m.Put(key{uint32(i % 10000), 0}, uint64(i)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRange(b *testing.B) {
	kerneltest.Root(b)
	m := bpfmap.NewKernel[key, uint64](kernelMap(b, 1, 10000))
	for i := range uint32(10000) {
		if err := m.Put(key{i, 0}, 1); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("entries=10000", func(b *testing.B) {
		for b.Loop() {
			if err := m.Range(func(key, uint64) bool { return true }); err != nil {
				b.Fatal(err)
			}
		}
	})
}
