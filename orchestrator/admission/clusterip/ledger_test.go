package clusterip

import (
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

// What a watch tells may come before the writer says how its write ended.
func TestWatchBeforeFinish(t *testing.T) {
	key := types.NamespacedName{Namespace: "default", Name: "a"}
	t.Run("created and deleted", func(t *testing.T) {
		l, write := newLedger[int](), new(int)
		l.take(1, key, write)
		l.observe(1, key, "u1")
		l.release(1, key, "u1")
		l.settle(1, write, "u1", true)
		if !l.free(1) {
			t.Error("leaked")
		}
	})
	t.Run("deleted and made anew", func(t *testing.T) {
		l, write := newLedger[int](), new(int)
		l.observe(1, key, "u1")
		l.take(1, key, write)
		l.observe(1, key, "u2")
		l.release(1, key, "u1")
		l.settle(1, write, "u2", true)
		if l.free(1) {
			t.Error("lost")
		}
	})
	t.Run("deleted, and the successor failed", func(t *testing.T) {
		l, write := newLedger[int](), new(int)
		l.observe(1, key, "u1")
		l.take(1, key, write)
		l.release(1, key, "u1")
		l.settle(1, write, "", false)
		if !l.free(1) {
			t.Error("leaked")
		}
	})
	t.Run("an update failed", func(t *testing.T) {
		l, write := newLedger[int](), new(int)
		l.observe(1, key, "u1")
		l.take(1, key, write)
		l.settle(1, write, "u1", false)
		if l.free(1) {
			t.Error("lost")
		}
	})
	t.Run("updated and deleted", func(t *testing.T) {
		l, write := newLedger[int](), new(int)
		l.observe(1, key, "u1")
		l.take(1, key, write)
		l.release(1, key, "u1")
		l.settle(1, write, "u1", true)
		if !l.free(1) {
			t.Error("leaked")
		}
	})
}
