package reconcile

import (
	"fmt"
	"io"
	"time"
)

// Stats is what a queue has done since it was made.
type Stats struct {
	Name    string
	Depth   int           // keys that are due
	Delayed int           // keys that will be
	Running int           // keys being reconciled
	Adds    uint64        // calls of Add
	Runs    uint64        // calls of Reconcile
	Retries uint64        // of those, that returned an error
	Waited  time.Duration // sum over Runs, from due to started
	Worked  time.Duration // sum over Runs, from started to returned
}

type stats struct {
	adds, retries  uint64
	waited, worked total
}

type total struct {
	n   uint64
	sum time.Duration
}

func (t *total) add(d time.Duration) {
	t.n++
	t.sum += d
}

// Stats returns the queue's counters.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	running := 0
	for _, e := range q.keys {
		if e.running {
			running++
		}
	}
	return Stats{
		Name: q.cfg.Name, Depth: q.ready.len(), Delayed: len(q.delayed), Running: running,
		Adds: q.stats.adds, Runs: q.stats.worked.n, Retries: q.stats.retries,
		Waited: q.stats.waited.sum, Worked: q.stats.worked.sum,
	}
}

// WriteMetrics writes queues' counters in the Prometheus text format, under the
// names that dashboards for Kubernetes controllers already use.
func WriteMetrics(w io.Writer, all []Stats) error {
	for _, m := range []struct {
		name, kind string
		value      func(Stats) any
	}{
		{"workqueue_depth", "gauge", func(s Stats) any { return s.Depth }},
		{"workqueue_adds_total", "counter", func(s Stats) any { return s.Adds }},
		{"workqueue_retries_total", "counter", func(s Stats) any { return s.Retries }},
		{"workqueue_queue_duration_seconds_sum", "counter", func(s Stats) any { return s.Waited.Seconds() }},
		{"workqueue_queue_duration_seconds_count", "counter", func(s Stats) any { return s.Runs }},
		{"workqueue_work_duration_seconds_sum", "counter", func(s Stats) any { return s.Worked.Seconds() }},
		{"workqueue_work_duration_seconds_count", "counter", func(s Stats) any { return s.Runs }},
	} {
		if _, err := fmt.Fprintf(w, "# TYPE %s %s\n", m.name, m.kind); err != nil {
			return err
		}
		for _, s := range all {
			if _, err := fmt.Fprintf(w, "%s{name=%q} %v\n", m.name, s.Name, m.value(s)); err != nil {
				return err
			}
		}
	}
	return nil
}
