package pod_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/xebec-mesh/xebec/nodeagent/nodetest"
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

// What `ctr run` does with the same image, through the socket as it does it: the
// measure for BenchmarkPodStart.
func BenchmarkPlainContainer(b *testing.B) {
	n := nodetest.Start(b)
	c, err := containerd.New(n.Daemon.Socket(), containerd.WithDefaultNamespace("k8s.io"), containerd.WithDefaultRuntime(n.Daemon.Shim()))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	ctx := nodetest.Context(b.Context())
	img, err := c.GetImage(ctx, nodetest.Ref)
	if err != nil {
		b.Fatal(err)
	}
	var start time.Duration
	for i := 0; b.Loop(); i++ {
		begin := time.Now()
		id := fmt.Sprintf("plain%d", i)
		cont, err := c.NewContainer(ctx, id, containerd.WithNewSnapshot(id, img), containerd.WithNewSpec(oci.WithImageConfig(img), oci.WithProcessArgs("/app", "sleep=1h")))
		if err != nil {
			b.Fatal(err)
		}
		task, err := cont.NewTask(ctx, cio.NewCreator(cio.WithStreams(nil, io.Discard, io.Discard)))
		if err != nil {
			b.Fatal(err)
		}
		if err := task.Start(ctx); err != nil {
			b.Fatal(err)
		}
		start += time.Since(begin)
		if _, err := task.Delete(ctx, containerd.WithProcessKill); err != nil {
			b.Fatal(err)
		}
		if err := cont.Delete(ctx, containerd.WithSnapshotCleanup); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(start.Microseconds())/float64(b.N)/1000, "ms/start")
}

// Many pods at once, from the first's creation to the last's readiness.
func BenchmarkPodsAtOnce(b *testing.B) {
	for _, count := range []int{10, 30} {
		b.Run(fmt.Sprintf("pods=%d", count), func(b *testing.B) {
			m := newMachine(b)
			for round := 0; b.Loop(); round++ {
				for i := range count {
					m.create(newPod(fmt.Sprintf("p%d-%d", round, i), "sleep=1h"))
				}
				for i := range count {
					m.until(fmt.Sprintf("p%d-%d", round, i), "running", ready)
				}
				b.StopTimer()
				for i := range count {
					m.delete(fmt.Sprintf("p%d-%d", round, i))
				}
				m.empty()
				b.StartTimer()
			}
		})
	}
}
