package metrics

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestQuantilesAreNear(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, spread := range []time.Duration{time.Millisecond, 100 * time.Millisecond, 10 * time.Second} {
		var h Histogram
		var all []time.Duration
		for range 10000 {
			d := time.Duration(r.ExpFloat64() * float64(spread))
			h.Add(d)
			all = append(all, d)
		}
		slices.Sort(all)
		for _, q := range []float64{0.5, 0.9, 0.99} {
			want, got := all[int(q*10000)], h.Quantile(q)
			if float64(got) < 0.8*float64(want) || float64(got) > 1.25*float64(want) {
				t.Errorf("p%.0f of about %s: %s, want %s", q*100, spread, got, want)
			}
		}
	}
}

func TestStepsAndBoundsAgree(t *testing.T) {
	for at := range 190 { // the next ends beyond what a Duration holds
		b := bound(uint8(at))
		if stepOf(b-1) != uint8(at) || stepOf(b) != uint8(at)+1 {
			t.Fatalf("step %d ends at %s, but %s is step %d and %s step %d", at, b, b-1, stepOf(b-1), b, stepOf(b))
		}
	}
	if stepOf(-1) != 0 || stepOf(1<<63-1) < 190 {
		t.Fatal("the ends")
	}
}

func TestWindowForgets(t *testing.T) {
	now := time.Unix(1000000, 0)
	s := New(Config{Now: func() time.Time { return now }, Keep: time.Minute})
	l := Labels{Reporter: "source", Code: "200"}
	s.Observe(l, Observation{Duration: time.Millisecond, DurationKnown: true})
	now = now.Add(30 * time.Second)
	s.Observe(l, Observation{Duration: time.Millisecond, DurationKnown: true})
	count := func(d time.Duration) uint64 {
		var n uint64
		for _, w := range s.Window(now.Add(-d), now) {
			n += w.Count
		}
		return n
	}
	if count(time.Minute) != 2 || count(10*time.Second) != 1 {
		t.Fatal(count(time.Minute), count(10*time.Second))
	}
	now = now.Add(2 * time.Minute)
	s.Tend()
	if len(s.series) != 0 {
		t.Fatal("a silent series is kept")
	}
}

func TestSeriesAreBounded(t *testing.T) {
	s := New(Config{MaxSeries: 10})
	for i := range 100 {
		s.Observe(Labels{Code: fmt.Sprint(i)}, Observation{})
	}
	if len(s.series) != 10 || s.dropped.Load() != 90 {
		t.Fatal(len(s.series), s.dropped.Load())
	}
}

func TestText(t *testing.T) {
	s := New(Config{})
	s.Observe(Labels{Reporter: "source", SourceApp: "a\"b\\c\nd", Protocol: "http", Code: "200", Flags: "-"}, Observation{Duration: 7 * time.Millisecond, DurationKnown: true})
	var b bytes.Buffer
	if err := s.WriteMetrics(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`source_app="a\"b\\c\nd"`, `le="5"} 0`, `le="10"} 1`, `le="+Inf"} 1`,
		`istio_request_duration_milliseconds_sum{reporter="source"`, "# TYPE istio_requests_total counter\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("lacks %s", want)
		}
	}
}

func TestFailed(t *testing.T) {
	for l, want := range map[Labels]bool{
		{Protocol: "http", Code: "200"}: false, {Protocol: "http", Code: "404"}: false, {Protocol: "http", Code: "503"}: true,
		{Protocol: "http", Code: "0"}: true, {Protocol: "grpc", Code: "200", GRPC: "0"}: false, {Protocol: "grpc", Code: "200", GRPC: "14"}: true,
		{Protocol: "grpc", Code: "200", GRPC: "5"}: false, {Protocol: "tcp", Flags: "-"}: false, {Protocol: "tcp", Flags: "UF"}: true,
	} {
		if l.Failed() != want {
			t.Errorf("%+v: %t", l, !want)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	for _, n := range []int{10, 10000} {
		b.Run(fmt.Sprintf("series=%d", n), func(b *testing.B) {
			s := New(Config{})
			labels := make([]Labels, n)
			for i := range labels {
				labels[i] = Labels{Reporter: "source", SourceWorkload: "web", SourceNamespace: "default", DestinationWorkload: fmt.Sprint("w", i), Code: "200", Protocol: "http"}
			}
			i := 0
			for b.Loop() {
				s.Observe(labels[i%n], Observation{Duration: time.Duration(i%100) * time.Millisecond, DurationKnown: true})
				i++
			}
		})
	}
}
