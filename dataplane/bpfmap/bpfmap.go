// Package bpfmap is a typed view of BPF maps, and a twin in memory.
//
//	in:   keys and values without pointers and padding
//	out:  the same in the kernel, or in a Go map
//
// Both implementations pass one suite, so what is written for maps can be
// tested without root and run in the kernel unchanged.
package bpfmap

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Map is a table of K to V.
type Map[K comparable, V any] interface {
	// Get returns the value of a key, and whether there is one.
	Get(K) (V, bool, error)
	// Put adds or replaces an entry.
	Put(K, V) error
	// Delete removes an entry; that it is absent is not an error.
	Delete(K) error
	// Range calls f for every entry until it returns false. Entries that
	// change meanwhile may be seen or not, and any may be seen twice.
	Range(f func(K, V) bool) error
}

// Kernel is a Map in the kernel.
type Kernel[K comparable, V any] struct{ m *ebpf.Map }

// NewKernel wraps a hash map whose keys and values have the sizes of K and V.
func NewKernel[K comparable, V any](m *ebpf.Map) Kernel[K, V] { return Kernel[K, V]{m} }

func (m Kernel[K, V]) Get(k K) (V, bool, error) {
	var v V
	err := m.m.Lookup(&k, &v)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return v, false, nil
	}
	return v, err == nil, m.wrap("look up", err)
}

func (m Kernel[K, V]) Put(k K, v V) error {
	return m.wrap("update", m.m.Update(&k, &v, ebpf.UpdateAny))
}

func (m Kernel[K, V]) Delete(k K) error {
	err := m.m.Delete(&k)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return m.wrap("delete from", err)
}

func (m Kernel[K, V]) Range(f func(K, V) bool) error {
	const batch = 1024
	keys, values := make([]K, batch), make([]V, batch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.m.BatchLookup(&cursor, keys, values, nil)
		if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.ENOSPC) { // or a bucket larger than a batch
			return m.rangeOneByOne(f)
		}
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return m.wrap("iterate", err)
		}
		for i := range n {
			if !f(keys[i], values[i]) {
				return nil
			}
		}
		if err != nil { // that was the end
			return nil
		}
	}
}

// rangeOneByOne may begin again, so f may see entries twice.
func (m Kernel[K, V]) rangeOneByOne(f func(K, V) bool) error {
	var k K
	var v V
	it := m.m.Iterate()
	for it.Next(&k, &v) {
		if !f(k, v) {
			return nil
		}
	}
	return m.wrap("iterate", it.Err())
}

func (m Kernel[K, V]) wrap(verb string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s BPF map %s: %w", verb, m.m, err)
}

// Memory is a Map in this process. It is not safe for concurrent writers.
type Memory[K comparable, V any] struct {
	entries map[K]V
	max     int
}

// NewMemory returns an empty Map of at most max entries; 0 is no limit.
func NewMemory[K comparable, V any](max int) *Memory[K, V] {
	return &Memory[K, V]{entries: map[K]V{}, max: max}
}

func (m *Memory[K, V]) Get(k K) (V, bool, error) {
	v, ok := m.entries[k]
	return v, ok, nil
}

func (m *Memory[K, V]) Put(k K, v V) error {
	if _, ok := m.entries[k]; !ok && m.max > 0 && len(m.entries) >= m.max {
		return fmt.Errorf("update map in memory: %d entries: argument list too long", m.max)
	}
	m.entries[k] = v
	return nil
}

func (m *Memory[K, V]) Delete(k K) error {
	delete(m.entries, k)
	return nil
}

func (m *Memory[K, V]) Range(f func(K, V) bool) error {
	for k, v := range m.entries {
		if !f(k, v) {
			break
		}
	}
	return nil
}
