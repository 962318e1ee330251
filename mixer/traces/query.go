package traces

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-mesh/xebec/mixer/wire"
)

// Query selects traces. The zero value selects the newest.
type Query struct {
	Service     string        // one of the trace's services; "" is any
	MinDuration time.Duration // from the first span's start to the last one's end
	Error       bool          // only traces with a span that failed
	Since       time.Time     // only traces that began then or later
	Until       time.Time     // only traces that began before
	Limit       int           // default 20, at most 1000
}

// Summary is one trace in a list.
type Summary struct {
	Trace       wire.TraceID
	Start       time.Time
	Duration    time.Duration
	Root        string // name of the root span; of the earliest if the root is missing
	RootService string
	Spans       int
	Errors      int
	Services    []string
}

// maxTrace is how long a trace is believed to last at most: its parts are looked
// for in segments that begin or end that near to it.
const maxTrace = 5 * time.Minute

// List returns the traces that q selects, the newest first.
func (s *Store) List(ctx context.Context, q Query) ([]Summary, error) {
	if q.Limit <= 0 {
		q.Limit = 20
	}
	q.Limit = min(q.Limit, 1000)
	s.mu.RLock()
	segments := slices.Clone(s.segments)
	s.mu.RUnlock()
	slices.Reverse(segments)
	var out []Summary
	seen := map[wire.TraceID]bool{}
	for i, seg := range segments {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if skip, err := q.skips(seg); err != nil {
			return nil, fmt.Errorf("list traces: %w", err)
		} else if skip {
			continue
		}
		var failed error
		err := seg.each(func(p part) bool {
			if !q.Since.IsZero() && p.Start < uint64(q.Since.UnixNano()) {
				return false // all that follow began earlier
			}
			if seen[p.Trace] {
				return true
			}
			seen[p.Trace] = true
			p, failed = s.whole(p, segments, i)
			if failed == nil && q.selects(p) {
				out = append(out, p.summary())
			}
			// Parts of one segment come newest first; a few more than wanted are
			// read because a part in an older segment moves a trace back.
			return failed == nil && len(out) < 2*q.Limit
		})
		if err = errors.Join(err, failed); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("list traces: %w", err)
		}
		if len(out) >= 2*q.Limit {
			break
		}
	}
	slices.SortFunc(out, func(a, b Summary) int {
		return cmp.Or(b.Start.Compare(a.Start), slices.Compare(a.Trace[:], b.Trace[:]))
	})
	return out[:min(len(out), q.Limit)], nil
}

// skips reports whether a frozen segment can hold nothing that is wanted.
func (q Query) skips(seg *segment) (bool, error) {
	seg.mu.RLock()
	f := seg.frozen
	seg.mu.RUnlock()
	if f == nil {
		return false, nil
	}
	if !q.Since.IsZero() && f.end < uint64(q.Since.UnixNano()) {
		return true, nil
	}
	if q.Service == "" {
		return false, nil
	}
	names, err := seg.services()
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	_, found := slices.BinarySearch(names, q.Service)
	return !found, err
}

func (q Query) selects(p part) bool {
	return (q.Service == "" || slices.Contains(p.Services, q.Service)) &&
		(!q.Error || p.Errors > 0) &&
		(q.Until.IsZero() || p.Start < uint64(q.Until.UnixNano())) &&
		p.duration() >= q.MinDuration
}

func (p part) duration() time.Duration {
	if p.End < p.Start {
		return 0
	}
	return time.Duration(p.End - p.Start)
}

func (p part) summary() Summary {
	return Summary{
		Trace: p.Trace, Start: time.Unix(0, int64(p.Start)), Duration: p.duration(), Root: p.Root,
		RootService: p.RootService, Spans: int(p.Spans), Errors: int(p.Errors), Services: p.Services,
	}
}

// whole adds to a part what segments near it in time know of the same trace.
func (s *Store) whole(p part, segments []*segment, own int) (part, error) {
	for i, seg := range segments {
		if err := seg.recover(); err != nil && !errors.Is(err, os.ErrNotExist) {
			return p, err
		}
		start, end := seg.bounds()
		near := start <= p.End+uint64(maxTrace) && p.Start <= end+uint64(maxTrace)
		if i == own || !near {
			continue
		}
		offsets, err := seg.lookup(p.Trace)
		if errors.Is(err, os.ErrNotExist) {
			continue // retention was faster
		}
		if err != nil {
			return p, err
		}
		if len(offsets) == 0 {
			continue
		}
		more, err := seg.part(p.Trace, offsets)
		if err != nil {
			return p, err
		}
		p = p.merge(more)
	}
	return p, nil
}

func (p part) merge(o part) part {
	if o.HasRoot && !p.HasRoot || o.HasRoot == p.HasRoot && o.Start < p.Start {
		p.Root, p.RootService, p.HasRoot = o.Root, o.RootService, o.HasRoot
	}
	p.Start, p.End = min(p.Start, o.Start), max(p.End, o.End)
	p.Spans += o.Spans
	p.Errors += o.Errors
	p.Services = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(p.Services), o.Services...))))
	return p
}

// part computes a trace's part from its frames.
func (s *segment) part(id wire.TraceID, offsets []uint32) (part, error) {
	ix := newIndex()
	err := s.read(offsets, func(payload []byte) error {
		_, err := wire.ScanSpans(payload, &only{ix, id})
		return err
	})
	p, _, _ := ix.lookup(id)
	return p, err
}

// only passes one trace's spans on.
type only struct {
	*index
	id wire.TraceID
}

func (o *only) Span(s *wire.Span) {
	if s.Trace == o.id {
		o.index.Span(s)
	}
}

// Span is a span with what it came with.
type Span struct {
	*tracepb.Span
	Resource *resourcepb.Resource
	Scope    *commonpb.InstrumentationScope
	Service  string
}

// ErrNotFound says that no span of a trace is stored.
var ErrNotFound = errors.New("no span of this trace is stored: it may be too old, still on its way, or not sampled")

// maxSpans is how many spans of one trace Get returns.
const maxSpans = 20000

// Get returns the spans of a trace, each once, the earliest first.
func (s *Store) Get(ctx context.Context, id wire.TraceID) ([]Span, error) {
	s.mu.RLock()
	segments := slices.Clone(s.segments)
	s.mu.RUnlock()
	var out []Span
	seen := map[string]bool{}
	for _, seg := range segments {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		offsets, err := seg.lookup(id)
		if err == nil && len(offsets) > 0 {
			err = seg.read(offsets, func(payload []byte) error {
				if len(out) >= maxSpans {
					return nil
				}
				found, err := decode(payload, id)
				for _, sp := range found {
					// A client that got no answer sends again.
					if key := string(sp.SpanId) + sp.Service + sp.Kind.String(); !seen[key] {
						seen[key] = true
						out = append(out, sp)
					}
				}
				return err
			})
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("get trace %s: %w", hex.EncodeToString(id[:]), err)
		}
	}
	if len(out) == 0 {
		return nil, ErrNotFound
	}
	slices.SortStableFunc(out, func(a, b Span) int { return cmp.Compare(a.StartTimeUnixNano, b.StartTimeUnixNano) })
	return out, nil
}

// decode returns the spans of one trace in a request.
func decode(payload []byte, id wire.TraceID) ([]Span, error) {
	var data tracepb.TracesData
	if err := proto.Unmarshal(payload, &data); err != nil {
		return nil, err
	}
	var out []Span
	for _, r := range data.ResourceSpans {
		service := ""
		for _, kv := range r.GetResource().GetAttributes() {
			if kv.GetKey() == "service.name" {
				service = kv.GetValue().GetStringValue()
			}
		}
		for _, sc := range r.ScopeSpans {
			for _, sp := range sc.Spans {
				if string(sp.TraceId) == string(id[:]) && len(sp.SpanId) == 8 {
					out = append(out, Span{Span: sp, Resource: r.Resource, Scope: sc.Scope, Service: service})
				}
			}
		}
	}
	return out, nil
}

// Services returns the names of the services whose spans were stored since a time.
func (s *Store) Services(ctx context.Context, since time.Time) ([]string, error) {
	s.mu.RLock()
	segments := slices.Clone(s.segments)
	s.mu.RUnlock()
	names := map[string]bool{}
	for _, seg := range segments {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := seg.recover(); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		if _, end := seg.bounds(); !since.IsZero() && end < uint64(since.UnixNano()) {
			continue
		}
		here, err := seg.services()
		for _, n := range here {
			names[n] = true
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("list services: %w", err)
		}
	}
	out := make([]string, 0, len(names))
	for n := range names {
		out = append(out, n)
	}
	slices.Sort(out)
	return out, nil
}
