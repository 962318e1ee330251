package apiserver

import (
	"context"
	"testing"
	"testing/synctest"
)

// A user with many requests waits behind himself only.
func TestFlowGoesRoundUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlow("test", 1, 10)
		if !f.enter(t.Context(), "busy") {
			t.Fatal("the first request found no seat")
		}
		var order []string
		wait := func(who string) {
			go func() {
				if f.enter(t.Context(), who) {
					order = append(order, who)
					f.leave()
				}
			}()
			synctest.Wait()
		}
		for range 3 {
			wait("busy")
		}
		wait("quiet")
		f.leave()
		synctest.Wait()
		if len(order) != 4 || order[1] != "quiet" {
			t.Errorf("served in order %v, want quiet second", order)
		}
		if f.running != 0 || f.waiting != 0 || len(f.queues) != 0 {
			t.Errorf("left behind: %+v", f)
		}
	})
}

func TestFlowRefusesAndForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlow("test", 1, 1)
		f.enter(t.Context(), "a")
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan bool, 1)
		go func() { left <- f.enter(ctx, "a") }()
		synctest.Wait()
		if f.enter(t.Context(), "a") {
			t.Error("a full queue took one more")
		}
		cancel()
		if <-left {
			t.Error("a client that left got a seat")
		}
		f.leave()
		if f.running != 0 || f.waiting != 0 {
			t.Errorf("left behind: %+v", f)
		}
	})
}
