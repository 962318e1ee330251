package model

import (
	"maps"
	"slices"
	"strings"
)

// LabelsOf returns the comparable form of m.
func LabelsOf(m map[string]string) Labels {
	pairs := make([]label, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		pairs = append(pairs, label{k, m[k]})
	}
	return Labels{TupleOf(pairs...)}
}

// Len is the number of labels.
func (l Labels) Len() int { return l.t.Len() }

// Get returns the value of a label, "" if absent.
func (l Labels) Get(key string) string {
	for _, p := range l.t.All() {
		if p.key == key {
			return p.value
		}
	}
	return ""
}

// Map returns the labels as a new map.
func (l Labels) Map() map[string]string {
	out := make(map[string]string, l.Len())
	for _, p := range l.t.All() {
		out[p.key] = p.value
	}
	return out
}

// Contain says whether every label of want is among l. Everything contains the empty set.
func (l Labels) Contain(want map[string]string) bool {
	if len(want) == 0 {
		return true
	}
	found := 0
	for _, p := range l.t.All() {
		if v, ok := want[p.key]; ok {
			if v != p.value {
				return false
			}
			found++
		}
	}
	return found == len(want)
}

// covers says whether every label of want is among l.
func (l Labels) covers(want Labels) bool {
	found := 0
	for _, w := range want.t.All() {
		for _, p := range l.t.All() {
			if p == w {
				found++
			}
		}
	}
	return found == want.Len()
}

// Project keeps the labels whose key is in keys.
func (l Labels) Project(keys map[string]bool) Labels {
	if len(keys) == 0 || l.Len() == 0 {
		return Labels{}
	}
	var kept []label
	for _, p := range l.t.All() {
		if keys[p.key] {
			kept = append(kept, p)
		}
	}
	return Labels{TupleOf(kept...)}
}

// String is k=v,k=v in the order of the keys.
func (l Labels) String() string {
	var parts []string
	for _, p := range l.t.All() {
		parts = append(parts, p.key+"="+p.value)
	}
	return strings.Join(parts, ",")
}
