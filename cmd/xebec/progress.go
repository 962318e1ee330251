package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress tells a person what has been reached, a line each, with the time
// since the start.
type progress struct {
	mu    sync.Mutex
	out   io.Writer
	start time.Time
	pause time.Duration // after which waiting is worth a line
}

func newProgress(out io.Writer) *progress {
	return &progress{out: out, start: time.Now(), pause: time.Second}
}

// done prints that something has been reached.
func (p *progress) done(what, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "%7.2fs  %-11s %s\n", time.Since(p.start).Seconds(), what, fmt.Sprintf(format, args...))
}

// waiting prints what is being waited for if it takes longer than a second, until
// the returned function is called.
func (p *progress) waiting(what, format string, args ...any) (reached func()) {
	timer := time.AfterFunc(p.pause, func() { p.done(what, format+" ...", args...) })
	return func() { timer.Stop() }
}
