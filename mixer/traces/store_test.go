package traces

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-mesh/xebec/mixer/wire"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func traceID(n int) (id wire.TraceID) {
	binary.BigEndian.PutUint64(id[8:], uint64(n)+1)
	binary.BigEndian.PutUint64(id[:], uint64(n+1)*0x9E3779B97F4A7C15)
	return id
}

// one is a span of a trace: its number there, parent (-1 for none), start and duration in ms.
type one struct {
	trace, span, parent int
	at, ms              int
	name                string
	failed              bool
}

func frame(service string, spans ...one) []byte {
	r := &tracepb.ResourceSpans{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{
			Key: "service.name", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: service}}}}},
		ScopeSpans: []*tracepb.ScopeSpans{{}},
	}
	for _, s := range spans {
		id := traceID(s.trace)
		sp := &tracepb.Span{TraceId: id[:], SpanId: binary.BigEndian.AppendUint64(nil, uint64(s.span)+1), Name: s.name}
		if s.parent >= 0 {
			sp.ParentSpanId = binary.BigEndian.AppendUint64(nil, uint64(s.parent)+1)
		}
		sp.StartTimeUnixNano = uint64(epoch.Add(time.Duration(s.at) * time.Millisecond).UnixNano())
		sp.EndTimeUnixNano = sp.StartTimeUnixNano + uint64(s.ms)*1e6
		if s.failed {
			sp.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR}
		}
		r.ScopeSpans[0].Spans = append(r.ScopeSpans[0].Spans, sp)
	}
	data, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, Headroom), &tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{r}})
	if err != nil {
		panic(err)
	}
	return data
}

func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	if cfg.MinFree == 0 {
		cfg.MinFree = -1
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t testing.TB, s *Store, f []byte) {
	t.Helper()
	if n, why, err := s.Append(f); n != 0 || err != nil {
		t.Fatal(n, why, err)
	}
}

// table prints summaries, a line each.
func table(t *testing.T, s *Store, q Query) string {
	t.Helper()
	list, err := s.List(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, l := range list {
		fmt.Fprintf(&b, "%d: %s %s at %d for %s, %d spans, %d errors, %v\n", binary.BigEndian.Uint64(l.Trace[8:])-1,
			l.RootService, l.Root, l.Start.Sub(epoch).Milliseconds(), l.Duration, l.Spans, l.Errors, l.Services)
	}
	return b.String()
}

// TestForms runs the same queries over every form a segment has.
func TestForms(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	put(t, s, frame("web", one{1, 0, -1, 0, 50, "GET /", false}, one{2, 0, -1, 100, 5, "GET /x", false}))
	put(t, s, frame("db", one{1, 2, 1, 20, 10, "query", true}))
	put(t, s, frame("api", one{1, 1, 0, 10, 30, "call", false}, one{3, 1, 0, 200, 400, "orphan", false}))
	check := func(t *testing.T, s *Store) {
		for q, want := range map[Query]string{
			{}: "3: api orphan at 200 for 400ms, 1 spans, 0 errors, [api]\n" +
				"2: web GET /x at 100 for 5ms, 1 spans, 0 errors, [web]\n" +
				"1: web GET / at 0 for 50ms, 3 spans, 1 errors, [api db web]\n",
			{Limit: 1}:                           "3: api orphan at 200 for 400ms, 1 spans, 0 errors, [api]\n",
			{Service: "db"}:                      "1: web GET / at 0 for 50ms, 3 spans, 1 errors, [api db web]\n",
			{Error: true}:                        "1: web GET / at 0 for 50ms, 3 spans, 1 errors, [api db web]\n",
			{MinDuration: 60 * time.Millisecond}: "3: api orphan at 200 for 400ms, 1 spans, 0 errors, [api]\n",
			{Since: epoch.Add(90 * time.Millisecond), Until: epoch.Add(110 * time.Millisecond)}: "2: web GET /x at 100 for 5ms, 1 spans, 0 errors, [web]\n",
			{Service: "nobody"}: "",
		} {
			if got := table(t, s, q); got != want {
				t.Errorf("%+v:\n%swant\n%s", q, got, want)
			}
		}
		spans, err := s.Get(t.Context(), traceID(1))
		if err != nil || len(spans) != 3 || spans[0].Name != "GET /" || spans[2].Name != "query" || spans[2].Service != "db" {
			t.Errorf("get: %v, %v", spans, err)
		}
		if _, err := s.Get(t.Context(), traceID(9)); err != ErrNotFound {
			t.Errorf("a trace that is not there: %v", err)
		}
		if names, err := s.Services(t.Context(), time.Time{}); err != nil || fmt.Sprint(names) != "[api db web]" {
			t.Errorf("services %v, %v", names, err)
		}
	}
	t.Run("active", func(t *testing.T) { check(t, s) })
	t.Run("killed", func(t *testing.T) { check(t, open(t, Config{Dir: dir})) })
	s.close()
	t.Run("frozen", func(t *testing.T) { check(t, s) })
	t.Run("reopened", func(t *testing.T) {
		s := open(t, Config{Dir: dir})
		if s.segments[0].frozen == nil {
			t.Error("the index file is not used")
		}
		check(t, s)
	})
}

func TestTraceAcrossSegments(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir(), SegmentBytes: 200})
	put(t, s, frame("db", one{1, 2, 1, 20, 10, "query", true}))
	put(t, s, frame("api", one{1, 1, 0, 10, 30, "call", false}))
	put(t, s, frame("web", one{1, 0, -1, 0, 50, "GET /", false}))
	s.tend()
	if len(s.segments) != 3 {
		t.Fatalf("%d segments", len(s.segments))
	}
	want := "1: web GET / at 0 for 50ms, 3 spans, 1 errors, [api db web]\n"
	if got := table(t, s, Query{}); got != want {
		t.Fatalf("got %s", got)
	}
	if spans, err := s.Get(t.Context(), traceID(1)); err != nil || len(spans) != 3 {
		t.Fatal(spans, err)
	}
}

func TestSameRequestTwiceIsOneInTheTrace(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	for range 2 {
		put(t, s, frame("web", one{1, 0, -1, 0, 50, "GET /", false}))
	}
	if spans, err := s.Get(t.Context(), traceID(1)); err != nil || len(spans) != 1 {
		t.Fatal(spans, err)
	}
}

func TestRetention(t *testing.T) {
	now := epoch
	s := open(t, Config{Dir: t.TempDir(), SegmentBytes: 1000, MaxBytes: 10000, MaxAge: time.Hour, Now: func() time.Time { return now }})
	for i := range 200 {
		put(t, s, frame("web", one{i, 0, -1, i, 50, "GET /", false}))
		s.tend()
	}
	if st := s.Stats(); st.Bytes > 10000 || st.Bytes < 8000 || st.Evicted == 0 {
		t.Fatalf("by size: %+v", st)
	}
	files, _ := filepath.Glob(filepath.Join(s.cfg.Dir, "*.seg"))
	if len(files) != s.Stats().Segments {
		t.Fatalf("%d files for %d segments", len(files), s.Stats().Segments)
	}
	now = now.Add(2 * time.Hour)
	put(t, s, frame("web", one{1000, 0, -1, 0, 50, "GET /", false}))
	s.tend()
	now = now.Add(time.Hour + time.Second)
	s.tend()
	put(t, s, frame("web", one{1001, 0, -1, 0, 50, "GET /", false}))
	s.tend()
	now = now.Add(time.Hour + time.Second)
	s.tend()
	if st := s.Stats(); st.Segments != 1 {
		t.Fatalf("by age: %+v", st)
	}
}

func TestInvalidAndMalformed(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	f := frame("web", one{1, 0, -1, 0, 50, "GET /", false})
	f = append(f, proto2(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{TraceId: []byte{1}}}}}}}})...)
	if n, why, err := s.Append(f); n != 1 || why == "" || err != nil {
		t.Fatal(n, why, err)
	}
	if _, _, err := s.Append(append(make([]byte, Headroom), 0x0a, 0xff)); err == nil {
		t.Fatal("a malformed request was accepted")
	}
	if n := s.Stats().Spans; n != 1 {
		t.Fatalf("%d spans", n)
	}
}

func proto2(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// TestKill has another process append and report what was accepted, and kills it.
func TestKill(t *testing.T) {
	if dir := os.Getenv("TRACES_KILL_DIR"); dir != "" {
		s := open(t, Config{Dir: dir, SegmentBytes: 100 << 10})
		for i := 0; ; i++ {
			put(t, s, frame("web", one{i, 0, -1, i, 50, "GET /", false}))
			fmt.Println("accepted", i)
		}
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), "TRACES_KILL_DIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	accepted := -1
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "accepted %d", &accepted); err != nil {
			t.Fatal(lines.Text())
		}
		if accepted == 3000 {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
	s := open(t, Config{Dir: dir})
	for i := 0; i <= accepted; i++ {
		if _, err := s.Get(t.Context(), traceID(i)); err != nil {
			t.Fatalf("trace %d of %d: %v", i, accepted, err)
		}
	}
	put(t, s, frame("web", one{1 << 20, 0, -1, 0, 50, "GET /", false}))
}

func TestTornEnd(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	put(t, s, frame("web", one{1, 0, -1, 0, 50, "GET /", false}))
	put(t, s, frame("web", one{2, 0, -1, 1, 50, "GET /", false}))
	path := s.segments[0].path
	whole, _ := os.ReadFile(path)
	for cut := range whole {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, Config{Dir: dir})
		list, err := s.List(t.Context(), Query{})
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if len(list) > 1 {
			t.Fatalf("cut at %d: %d traces", cut, len(list))
		}
	}
}

// TestDiskFull fills a small file system: the oldest make room, and where that is
// not enough spans are dropped, counted and shown, until there is room again.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	s := open(t, Config{Dir: dir, SegmentBytes: 100 << 10, MaxBytes: 1 << 30})
	big := frame("web", one{0, 0, -1, 0, 50, strings.Repeat("x", 4000), false})
	for range 1000 {
		put(t, s, append([]byte(nil), big...))
	}
	if s.Stats().Evicted == 0 {
		t.Fatal("4 MB fit into 1 MB")
	}
	ballast := filepath.Join(dir, "ballast")
	for s.evict("test") {
	}
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	n := 0
	for range 30 {
		k, why, err := s.Append(append([]byte(nil), big...))
		if err != nil || k > 0 && why == "" {
			t.Fatal(k, why, err)
		}
		n += k
	}
	if n == 0 || s.Stats().Dropped != uint64(n) || s.Health() == nil {
		t.Fatalf("%d dropped, stats %+v, health %v", n, s.Stats(), s.Health())
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	put(t, s, append([]byte(nil), big...))
	if s.Health() != nil {
		t.Fatal("still ill")
	}
}

func TestLeavesTheDiskToOthers(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir(), MinFree: 1 << 60})
	s.written = lookEvery
	if n, _, err := s.Append(frame("web", one{1, 0, -1, 0, 50, "GET /", false})); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if s.Health() == nil {
		t.Fatal("health is silent")
	}
}

func TestConcurrently(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir(), SegmentBytes: 20 << 10, MaxBytes: 200 << 10})
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error)
	go func() { ran <- s.Run(ctx) }()
	var group sync.WaitGroup
	for g := range 4 {
		group.Go(func() {
			for i := range 500 {
				put(t, s, frame("web", one{g*1000 + i, 0, -1, i, 50, "GET /", false}))
				if i%50 == 0 {
					if _, err := s.List(ctx, Query{}); err != nil {
						t.Error(err)
					}
					if _, err := s.Get(ctx, traceID(g*1000+i)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	group.Wait()
	cancel()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
}

func FuzzFrames(f *testing.F) {
	dir := f.TempDir()
	s := open(f, Config{Dir: dir})
	put(f, s, frame("web", one{1, 0, -1, 0, 50, "GET /", false}))
	whole, _ := os.ReadFile(s.segments[0].path)
	f.Add(whole)
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(segmentPath(dir, 1), data, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, Config{Dir: dir})
		_, _ = s.List(t.Context(), Query{})
		_, _ = s.Get(t.Context(), traceID(1))
	})
}

func FuzzIndexFile(f *testing.F) {
	ix := newIndex()
	ix.Resource([]byte("web"))
	ix.Span(&wire.Span{Trace: traceID(1), ID: wire.SpanID{1}, Start: 1, End: 2, Name: []byte("x")})
	f.Add(ix.encode()[headerBytes:], uint32(1), uint32(1), uint32(1), uint32(3), uint32(4))
	f.Fuzz(func(t *testing.T, body []byte, rows, refs, uses, strs, text uint32) {
		b := append([]byte(indexMagic), make([]byte, headerBytes-8)...)
		for i, n := range []uint32{rows, refs, uses, strs, text} {
			le.PutUint32(b[8+4*i:], n)
		}
		le.PutUint32(b[52:], crc(body))
		path := filepath.Join(t.TempDir(), "x.idx")
		if err := os.WriteFile(path, append(b, body...), 0o600); err != nil {
			t.Fatal(err)
		}
		x, err := openFrozen(path)
		if err != nil {
			return
		}
		_ = x.each(func(part) bool { return true })
		_, _, _ = x.lookup(traceID(1))
	})
}
