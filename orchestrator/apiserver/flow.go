package apiserver

import (
	"context"
	"sync"

	"k8s.io/apiserver/pkg/authentication/user"
)

// flow shares the server's seats. Who belongs to the system (nodes, system:
// users) and everybody else have seats of their own, so that neither can starve
// the other; within one share each user has a queue, and freed seats go round the
// users. A request that finds its queue full is refused with 429.
//
//	          seats free              seat freed, its user's turn
//	arrive ───────────────► running ◄──────────────────────────── queued
//	   │ seats taken                                                ▲
//	   ├────────────────────────────────────────────────────────────┘
//	   └─ queue full, or the client leaves ─► refused
type flow struct {
	name  string
	seats int // that may run at once
	depth int // that may wait, for each user

	mu      sync.Mutex
	running int
	queues  map[string][]chan struct{}
	turns   []string // users with a queue, in the order of their turns
	refused int64
	waiting int
}

func newFlow(name string, seats, depth int) *flow {
	return &flow{name: name, seats: seats, depth: depth, queues: map[string][]chan struct{}{}}
}

// enter takes a seat, or waits for one. It returns false if the user's queue is
// full or ctx ends first.
func (f *flow) enter(ctx context.Context, who string) bool {
	f.mu.Lock()
	if f.running < f.seats && f.waiting == 0 {
		f.running++
		f.mu.Unlock()
		return true
	}
	queue := f.queues[who]
	if len(queue) >= f.depth {
		f.refused++
		f.mu.Unlock()
		return false
	}
	seat := make(chan struct{})
	if len(queue) == 0 {
		f.turns = append(f.turns, who)
	}
	f.queues[who] = append(queue, seat)
	f.waiting++
	f.mu.Unlock()
	select {
	case <-seat:
		return true
	case <-ctx.Done():
		f.abandon(who, seat)
		return false
	}
}

// leave gives the seat to the next user in turn.
func (f *flow) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.turns) == 0 {
		f.running--
		return
	}
	who := f.turns[0]
	queue := f.queues[who]
	close(queue[0])
	f.waiting--
	f.turns = f.turns[1:]
	if len(queue) == 1 {
		delete(f.queues, who)
		return
	}
	f.queues[who] = queue[1:]
	f.turns = append(f.turns, who)
}

// abandon takes a waiter out. If it was given a seat meanwhile, it passes it on.
func (f *flow) abandon(who string, seat chan struct{}) {
	f.mu.Lock()
	queue := f.queues[who]
	for i, s := range queue {
		if s != seat {
			continue
		}
		f.waiting--
		f.queues[who] = append(queue[:i:i], queue[i+1:]...)
		if len(f.queues[who]) == 0 {
			delete(f.queues, who)
			f.turns = without(f.turns, who)
		}
		f.mu.Unlock()
		return
	}
	f.mu.Unlock()
	f.leave()
}

func without(list []string, drop string) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		if s != drop {
			out = append(out, s)
		}
	}
	return out
}

// flowOf picks the share that a user's requests run in. system:masters never waits: nil.
func (s *Server) flowOf(u user.Info) *flow {
	system := false
	for _, g := range u.GetGroups() {
		switch g {
		case "system:masters":
			return nil
		case "system:nodes", "system:serviceaccounts:kube-system":
			system = true
		}
	}
	if system {
		return s.system
	}
	return s.users
}
