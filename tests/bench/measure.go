package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// concurrently calls do with 0..n-1 from some workers; it returns the rate per
// second and how long each call took.
func concurrently(ctx context.Context, workers, n int, do func(i int) error) (rate float64, times []time.Duration, err error) {
	var (
		next  atomic.Int64
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error
	)
	times = make([]time.Duration, n)
	begun := time.Now()
	for range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				at := time.Now()
				if err := do(i); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
					return
				}
				times[i] = time.Since(at)
			}
		})
	}
	wg.Wait()
	if first == nil {
		first = ctx.Err()
	}
	return float64(n) / time.Since(begun).Seconds(), times, first
}

// quantile sorts times.
func quantile(times []time.Duration, q float64) time.Duration {
	slices.Sort(times)
	return times[min(int(q*float64(len(times))), len(times)-1)]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// memory prints the resident memory of the process, which is the whole control
// plane: API, etcd, controllers, containerd, xDS, certificate authority,
// telemetry; and of the helpers beside it.
func (b *bench) memory(what string) error {
	data, err := os.ReadFile(filepath.Join(b.state, "xebec.pid"))
	if err != nil {
		return err
	}
	pid := strings.TrimSpace(string(data))
	all, anonymous, err := resident(pid)
	if err != nil {
		return err
	}
	row(what, "%.0f MB, of it anonymous %.0f MB", all, anonymous)
	var helpers float64
	n := 0
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		exe, err := os.Readlink(filepath.Join("/proc", e.Name(), "exe"))
		if err != nil {
			continue
		}
		switch filepath.Base(exe) {
		case "xebec-dns", "containerd-shim-xebec-v2":
			if r, _, err := resident(e.Name()); err == nil {
				helpers += r
				n++
			}
		}
	}
	row(what+", DNS and shims beside it", "%.0f MB in %d processes", helpers, n)
	return nil
}

// resident reads RssAnon and VmRSS of proc_pid_status(5) in MB of 10^6 bytes.
func resident(pid string) (all, anonymous float64, err error) {
	status, err := os.ReadFile(filepath.Join("/proc", pid, "status"))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, _ := strconv.ParseFloat(f[1], 64)
		switch f[0] {
		case "VmRSS:":
			all = kib * 1024 / 1e6
		case "RssAnon:":
			anonymous = kib * 1024 / 1e6
		}
	}
	if all == 0 {
		return 0, 0, fmt.Errorf("process %s has no VmRSS", pid)
	}
	return all, anonymous, nil
}
