// Package traces keeps spans on disk and finds them again.
//
//	in:   OTLP traces requests, as bytes
//	out:  the spans of one trace; summaries of the newest traces that a query selects
//
// A request is appended as it came to the active segment with one write; when
// Append returns, the spans are in the operating system's hands and survive kill
// -9 of this process (a power failure may cost the segments that were not complete).
// A segment that is full or old is complete: its index goes to a file beside it,
// and out of memory. Memory grows with the active segment, not with what is kept.
//
// Retention removes whole segments, the oldest first, by age, by total size, and
// when the disk runs short. A full disk costs spans, which are counted and shown
// in Health, and nothing else: the oldest segments make room first.
package traces

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xebec-mesh/xebec/mixer/wire"
)

// Config says how much a Store keeps.
type Config struct {
	Dir          string        // required
	MaxAge       time.Duration // default 72 h
	MaxBytes     int64         // of all segments; default 1 GiB
	SegmentBytes int64         // default a sixteenth of MaxBytes, at most 64 MiB
	MinFree      int64         // bytes of the disk left to others; default 256 MiB, negative for none
	Now          func() time.Time
	Log          *slog.Logger
}

// Store is one directory of segments. Append and the queries may be called from
// any goroutine.
type Store struct {
	cfg Config

	appending sync.Mutex // one append at a time; also guards seq
	seq       uint64
	written   int64 // since the disk was last looked at

	mu       sync.RWMutex // guards the list and active
	segments []*segment   // oldest first; the active one is the last
	active   *segment

	complete chan struct{} // there is a segment to freeze

	spans, invalid, dropped atomic.Uint64
	evicted                 atomic.Uint64
	trouble                 atomic.Pointer[string]
}

// New opens the directory. It starts nothing; segments of a process that was
// killed are indexed by Run, or by the first query.
func New(cfg Config) (*Store, error) {
	if cfg.Dir == "" {
		return nil, errors.New("trace store: Dir is required")
	}
	cfg.defaults()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open trace store: %w", err)
	}
	s := &Store{cfg: cfg, complete: make(chan struct{}, 1)}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open trace store: %w", err)
	}
	return s, nil
}

func (c *Config) defaults() {
	if c.MaxAge == 0 {
		c.MaxAge = 72 * time.Hour
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 1 << 30
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = c.MaxBytes / 16
	}
	c.SegmentBytes = min(c.SegmentBytes, 64<<20)
	if c.MinFree == 0 {
		c.MinFree = 256 << 20
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

func (s *Store) open() error {
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasSuffix(name, ".tmp") {
			_ = os.Remove(filepath.Join(s.cfg.Dir, name))
			continue
		}
		hex, ok := strings.CutSuffix(name, ".seg")
		seq, err := strconv.ParseUint(hex, 16, 64)
		if !ok || err != nil {
			continue
		}
		seg, err := openSegment(filepath.Join(s.cfg.Dir, name), seq)
		if err != nil {
			return err
		}
		s.segments = append(s.segments, seg)
		s.seq = max(s.seq, seq)
	}
	slices.SortFunc(s.segments, func(a, b *segment) int { return int(int64(a.seq) - int64(b.seq)) })
	return nil
}

// Headroom is how many bytes Append wants free before a request.
const Headroom = frameHeader

// Append stores a traces request that lies behind Headroom bytes of room. It
// returns how many spans were not stored, and why. Only a malformed request is an
// error: a full disk is not the sender's mistake.
func (s *Store) Append(frame []byte) (rejected int, why string, err error) {
	if len(frame)-Headroom > maxFrame {
		return 0, "", fmt.Errorf("append spans: a request of %d bytes; at most %d are accepted", len(frame)-Headroom, maxFrame)
	}
	f := foundPool.Get().(*found)
	defer func() { f.reset(); foundPool.Put(f) }()
	invalid, err := wire.ScanSpans(frame[Headroom:], f)
	if err != nil {
		return 0, "", fmt.Errorf("append spans: %w", err)
	}
	s.invalid.Add(uint64(invalid))
	if invalid > 0 {
		rejected, why = invalid, "trace_id must be 16 bytes and span_id 8, and neither all zero"
	}
	if len(f.spans) == 0 {
		return rejected, why, nil
	}
	if err := s.write(frame, f); err != nil {
		s.dropped.Add(uint64(len(f.spans)))
		s.setTrouble(fmt.Sprintf("spans are dropped: %v", err))
		return rejected + len(f.spans), "the trace store cannot write: " + err.Error(), nil
	}
	s.setTrouble("")
	s.spans.Add(uint64(len(f.spans)))
	return rejected, why, nil
}

var foundPool = sync.Pool{New: func() any { return new(found) }}

// write appends to the active segment, making room where it must.
func (s *Store) write(frame []byte, f *found) error {
	s.appending.Lock()
	defer s.appending.Unlock()
	if err := s.room(int64(len(frame))); err != nil {
		return err
	}
	for {
		seg, err := s.segmentFor(int64(len(frame)))
		if err == nil {
			err = seg.append(frame, f)
		}
		if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
			return err
		}
		if !s.evict("disk full") {
			return err
		}
	}
}

// lookEvery is how many bytes are written between looks at the disk.
const lookEvery = 4 << 20

// room keeps MinFree bytes of the disk for others.
func (s *Store) room(n int64) error {
	if s.written += n; s.written < lookEvery && s.trouble.Load() == nil || s.cfg.MinFree < 0 {
		return nil
	}
	s.written = 0
	for {
		var st unix.Statfs_t
		if err := unix.Statfs(s.cfg.Dir, &st); err != nil {
			return fmt.Errorf("look at the disk: %w", err)
		}
		if int64(st.Bavail)*st.Bsize >= s.cfg.MinFree {
			return nil
		}
		if !s.evict("disk short") {
			return fmt.Errorf("less than %d MiB of the disk are free", s.cfg.MinFree>>20)
		}
	}
}

// segmentFor is the active segment, a new one if the former is full or old.
func (s *Store) segmentFor(n int64) (*segment, error) {
	now := s.cfg.Now()
	if a := s.active; a != nil && a.size+n <= s.cfg.SegmentBytes && now.Sub(a.created) < s.cfg.MaxAge/16 {
		return a, nil
	}
	s.seq++
	seg, err := createSegment(s.cfg.Dir, s.seq, now)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	old := s.active
	s.active = seg
	s.segments = append(s.segments, seg)
	s.mu.Unlock()
	if old != nil {
		_ = old.file.Close()
	}
	select {
	case s.complete <- struct{}{}:
	default:
	}
	return seg, nil
}

// evict removes the oldest segment that is not active.
func (s *Store) evict(why string) bool {
	s.mu.Lock()
	if len(s.segments) == 0 || s.segments[0] == s.active {
		s.mu.Unlock()
		return false
	}
	old := s.segments[0]
	s.segments = slices.Clone(s.segments[1:])
	s.mu.Unlock()
	s.evicted.Add(1)
	if err := old.remove(); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.cfg.Log.Warn("remove trace segment", "segment", old.path, "err", err)
		return false
	}
	s.cfg.Log.Info("trace segment removed", "segment", old.path, "why", why)
	return true
}

// Run indexes what a killed process left, freezes complete segments and applies
// retention, until ctx ends. Then it freezes the active one.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		s.tend()
		select {
		case <-s.complete:
		case <-tick.C:
		case <-ctx.Done():
			s.close()
			return nil
		}
	}
}

// tend brings every complete segment to its frozen form and removes what is too much.
func (s *Store) tend() {
	s.retain()
	s.mu.RLock()
	segments, active := s.segments, s.active
	s.mu.RUnlock()
	for _, seg := range segments {
		if seg == active {
			continue
		}
		if err := errors.Join(seg.recover(), seg.freeze()); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.cfg.Log.Warn("index trace segment", "segment", seg.path, "err", err)
		}
	}
}

// retain applies MaxAge and MaxBytes.
func (s *Store) retain() {
	for {
		s.mu.RLock()
		why := overdue(s.views(), s.cfg, s.cfg.Now())
		s.mu.RUnlock()
		if why == "" || !s.evict(why) {
			return
		}
	}
}

// extent is what retention needs to know of a segment.
type extent struct {
	last time.Time // nothing in it is younger
	size int64
}

func (s *Store) views() []extent {
	out := make([]extent, len(s.segments))
	for i, seg := range s.segments {
		seg.mu.RLock()
		out[i] = extent{last: s.cfg.Now(), size: seg.size}
		seg.mu.RUnlock()
		if i+1 < len(s.segments) {
			out[i].last = s.segments[i+1].created
		}
	}
	return out
}

// overdue says why the first segment must go; "" if it may stay.
func overdue(all []extent, cfg Config, now time.Time) string {
	if len(all) < 2 {
		return ""
	}
	var total int64
	for _, e := range all {
		total += e.size
	}
	switch {
	case now.Sub(all[0].last) > cfg.MaxAge:
		return "older than " + cfg.MaxAge.String()
	case total > cfg.MaxBytes:
		return fmt.Sprintf("more than %d MiB", cfg.MaxBytes>>20)
	}
	return ""
}

// close freezes the active segment.
func (s *Store) close() {
	s.appending.Lock()
	defer s.appending.Unlock()
	s.mu.Lock()
	old := s.active
	s.active = nil
	s.mu.Unlock()
	if old == nil {
		return
	}
	if err := errors.Join(old.file.Close(), old.freeze()); err != nil {
		s.cfg.Log.Warn("index trace segment", "segment", old.path, "err", err)
	}
}

func (s *Store) setTrouble(what string) {
	was := s.trouble.Load()
	switch {
	case what == "" && was != nil:
		s.trouble.Store(nil)
		s.cfg.Log.Info("trace store writes again")
	case what != "" && was == nil:
		s.trouble.Store(&what)
		s.cfg.Log.Error("trace store cannot write: make room on its disk", "dir", s.cfg.Dir, "err", what)
	}
}

// Health is what a person should know; nil if all is well.
func (s *Store) Health() error {
	if t := s.trouble.Load(); t != nil {
		return errors.New(*t)
	}
	return nil
}

// Stats is what the store holds and has done since it was opened.
type Stats struct {
	Segments                int
	Bytes                   int64
	Spans, Invalid, Dropped uint64
	Evicted                 uint64
}

// Stats returns the counters.
func (s *Store) Stats() Stats {
	st := Stats{Spans: s.spans.Load(), Invalid: s.invalid.Load(), Dropped: s.dropped.Load(), Evicted: s.evicted.Load()}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, e := range s.views() {
		st.Segments++
		st.Bytes += e.size
	}
	return st
}

// WriteMetrics writes the counters in the Prometheus text format.
func (s *Store) WriteMetrics(w io.Writer) error {
	st := s.Stats()
	_, err := fmt.Fprintf(w, `# HELP mixer_traces_spans_total Spans by what became of them.
# TYPE mixer_traces_spans_total counter
mixer_traces_spans_total{outcome="stored"} %d
mixer_traces_spans_total{outcome="invalid"} %d
mixer_traces_spans_total{outcome="dropped"} %d
# HELP mixer_traces_bytes Size of the trace store on disk, without indexes.
# TYPE mixer_traces_bytes gauge
mixer_traces_bytes %d
# HELP mixer_traces_segments Segments on disk.
# TYPE mixer_traces_segments gauge
mixer_traces_segments %d
# HELP mixer_traces_evicted_total Segments that retention removed.
# TYPE mixer_traces_evicted_total counter
mixer_traces_evicted_total %d
`, st.Spans, st.Invalid, st.Dropped, st.Bytes, st.Segments, st.Evicted)
	return err
}
