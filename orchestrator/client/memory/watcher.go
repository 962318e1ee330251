package memory

import (
	"sync"

	"k8s.io/apimachinery/pkg/watch"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// watcher is one Watch: an unbounded queue and a goroutine that empties it.
type watcher struct {
	match  func(client.Object) bool
	onStop func()
	out    chan watch.Event
	done   chan struct{}
	wake   chan struct{}

	mu     sync.Mutex
	queue  []watch.Event
	closed bool
}

func newWatcher(match func(client.Object) bool) *watcher {
	w := &watcher{
		match: match,
		out:   make(chan watch.Event),
		done:  make(chan struct{}),
		wake:  make(chan struct{}, 1),
	}
	go w.run()
	return w
}

// ResultChan is closed when the watch has ended.
func (w *watcher) ResultChan() <-chan watch.Event { return w.out }

// Stop ends the watch.
func (w *watcher) Stop() { w.onStop() }

// send queues what a change means for this selection: an object that leaves it
// is deleted as far as the watcher knows.
func (w *watcher) send(ch change) {
	was := ch.old != nil && w.match(ch.old)
	is := ch.new != nil && w.match(ch.new)
	switch {
	case is && was:
		w.put(watch.Event{Type: watch.Modified, Object: ch.new})
	case is:
		w.put(watch.Event{Type: watch.Added, Object: ch.new})
	case was && ch.new == nil:
		w.put(watch.Event{Type: watch.Deleted, Object: ch.old})
	case was:
		gone := ch.old.DeepCopyObject().(client.Object)
		gone.SetResourceVersion(ch.new.GetResourceVersion())
		w.put(watch.Event{Type: watch.Deleted, Object: gone})
	}
}

func (w *watcher) put(e watch.Event) {
	w.mu.Lock()
	w.queue = append(w.queue, e)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watcher) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.closed = true
		close(w.done)
	}
}

func (w *watcher) run() {
	defer close(w.out)
	for {
		select {
		case <-w.done:
			return
		case <-w.wake:
		}
		w.mu.Lock()
		batch := w.queue
		w.queue = nil
		w.mu.Unlock()
		for _, e := range batch {
			select {
			case w.out <- e:
			case <-w.done:
				return
			}
		}
	}
}
