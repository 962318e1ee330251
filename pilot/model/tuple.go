package model

import (
	"iter"
	"unique"
)

// Tuple is an immutable list that can be compared with ==: two Tuples are equal
// exactly if their elements are. That makes a struct with lists in it usable as a
// map key, which is how generators' inputs become cache keys. The zero Tuple is empty.
//
// It is a chain of hash-consed cells; the unique package lets go of those that
// nobody holds any more.
type Tuple[T comparable] struct {
	h unique.Handle[cell[T]]
	n int
}

type cell[T comparable] struct {
	head T
	tail unique.Handle[cell[T]]
}

// TupleOf returns the Tuple of the elements in their order.
func TupleOf[T comparable](elems ...T) Tuple[T] {
	var t Tuple[T]
	for i := len(elems) - 1; i >= 0; i-- {
		t.h = unique.Make(cell[T]{head: elems[i], tail: t.h})
		t.n++
	}
	return t
}

// Len is the number of elements.
func (t Tuple[T]) Len() int { return t.n }

// All yields the elements in order.
func (t Tuple[T]) All() iter.Seq2[int, T] {
	return func(yield func(int, T) bool) {
		h := t.h
		for i := range t.n {
			c := h.Value()
			if !yield(i, c.head) {
				return
			}
			h = c.tail
		}
	}
}

// Slice returns the elements as a new slice.
func (t Tuple[T]) Slice() []T {
	out := make([]T, 0, t.n)
	for _, e := range t.All() {
		out = append(out, e)
	}
	return out
}

// Labels is an immutable set of labels that can be compared with ==.
type Labels struct{ t Tuple[label] }

type label struct{ key, value string }
