package traces

import (
	"fmt"
	"hash/crc32"
	"testing"
)

func crc(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// load is a request of n spans, some to a trace, with names as HTTP servers have them.
func load(first, n, per int) []byte {
	spans := make([]one, n)
	for i := range spans {
		spans[i] = one{trace: first + i/per, span: i % per, parent: i%per - 1, at: first + i, ms: 5, name: "GET /api/v1/things/{id}"}
	}
	return frame("web", spans...)
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("spans=%d", n), func(b *testing.B) {
			s := open(b, Config{Dir: b.TempDir(), MaxBytes: 512 << 20})
			var frames [][]byte
			for i := range 64 {
				frames = append(frames, load(i*n, n, 8))
			}
			b.SetBytes(int64(len(frames[0])))
			i := 0
			for b.Loop() {
				put(b, s, frames[i%len(frames)])
				if i++; i%1000 == 0 {
					s.tend()
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "spans/s")
		})
	}
}

func BenchmarkGet(b *testing.B) {
	for _, n := range []int{1000, 100000} {
		b.Run(fmt.Sprintf("traces=%d", n), func(b *testing.B) {
			s := open(b, Config{Dir: b.TempDir(), SegmentBytes: 4 << 20})
			for i := 0; i < n; i += 20 {
				put(b, s, load(i, 160, 8))
			}
			s.tend()
			i := 0
			for b.Loop() {
				if _, err := s.Get(b.Context(), traceID(i%n)); err != nil {
					b.Fatal(err)
				}
				i += 7919
			}
		})
	}
}

func BenchmarkList(b *testing.B) {
	for _, n := range []int{1000, 100000} {
		b.Run(fmt.Sprintf("traces=%d", n), func(b *testing.B) {
			s := open(b, Config{Dir: b.TempDir(), SegmentBytes: 4 << 20})
			for i := 0; i < n; i += 20 {
				put(b, s, load(i, 160, 8))
			}
			s.tend()
			for b.Loop() {
				if _, err := s.List(b.Context(), Query{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
