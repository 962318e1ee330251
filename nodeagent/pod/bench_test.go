package pod_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The time from a Pod bound to this node to its status Running, and from its
// deletion to its end, over an API in memory.
func BenchmarkPodStart(b *testing.B) {
	m := newMachine(b)
	i := 0
	var start, stop time.Duration
	for b.Loop() {
		name := fmt.Sprintf("p%d", i)
		i++
		begin := time.Now()
		m.create(newPod(name, "sleep=1h"))
		m.until(name, "running", ready)
		start += time.Since(begin)
		if i == 1 {
			b.Log(shims(m.node.Dir))
		}
		begin = time.Now()
		m.delete(name)
		stop += time.Since(begin)
	}
	b.ReportMetric(float64(start.Microseconds())/float64(b.N)/1000, "ms/start")
	b.ReportMetric(float64(stop.Microseconds())/float64(b.N)/1000, "ms/stop")
}

// shims says how much memory the shims of a node hold.
func shims(dir string) string {
	var out strings.Builder
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		b, _ := os.ReadFile(p)
		if !strings.Contains(string(b), "containerd-shim-xebec-v2") || !strings.Contains(string(b), dir) {
			continue
		}
		roll, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "smaps_rollup"))
		for line := range strings.Lines(string(roll)) {
			if strings.HasPrefix(line, "Rss:") || strings.HasPrefix(line, "Anonymous:") || strings.HasPrefix(line, "Pss:") {
				out.WriteString(strings.Join(strings.Fields(line), " ") + "; ")
			}
		}
	}
	return "shim " + out.String()
}
