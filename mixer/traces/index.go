package traces

import (
	"slices"

	"github.com/xebec-mesh/xebec/mixer/wire"
)

// index is what a segment knows of its traces. It is built span by span and then
// frozen; whoever holds it guards it.
type index struct {
	rows    []row
	byTrace map[wire.TraceID]int32
	refs    []ref // linked lists of frames, by row
	uses    []ref // linked lists of service names, by row
	strings []string
	byText  map[string]uint32
	spans   uint64
	start   uint64 // of the earliest span, ns since 1970
	end     uint64 // of the latest

	// While a frame is added: most spans follow one of the same trace.
	offset  uint32
	service uint32
	last    int32
}

// row is one trace's part in one segment.
type row struct {
	Trace       wire.TraceID
	Start, End  uint64 // ns since 1970, of the earliest and the latest
	Spans       uint32
	Errors      uint32
	Root        uint32 // name of the root span; of the earliest if the root is elsewhere
	RootService uint32
	rootStart   uint64
	HasRoot     bool
	refs, uses  int32 // heads; -1 is the end
	lastOffset  uint32
}

// ref is an element of a linked list: a frame's offset or a string's number.
type ref struct {
	value uint32
	next  int32
}

func newIndex() *index {
	ix := &index{byTrace: map[wire.TraceID]int32{}, byText: map[string]uint32{}, last: -1}
	ix.text(nil)
	return ix
}

// frame begins the frame at offset.
func (ix *index) frame(offset uint32) { ix.offset, ix.last = offset, -1 }

// Resource is part of wire.Visitor.
func (ix *index) Resource(service []byte) {
	ix.service, ix.last = ix.text(service), -1
}

// Span is part of wire.Visitor.
func (ix *index) Span(s *wire.Span) {
	ix.spans++
	r := ix.row(s)
	r.Spans++
	if s.Error {
		r.Errors++
	}
	if r.Start == 0 || s.Start < r.Start && s.Start != 0 {
		r.Start = s.Start
	}
	r.End = max(r.End, s.End)
	if ix.start == 0 || s.Start < ix.start && s.Start != 0 {
		ix.start = s.Start
	}
	ix.end = max(ix.end, s.End)
	root := s.Parent == wire.SpanID{}
	if root && !r.HasRoot || root == r.HasRoot && (r.Spans == 1 || s.Start < r.rootStart) {
		r.Root, r.RootService, r.rootStart, r.HasRoot = ix.rootName(s), ix.service, s.Start, root
	}
}

func (ix *index) rootName(s *wire.Span) uint32 {
	if name := wire.RequestName(s.Raw); name != "" {
		return ix.text([]byte(name))
	}
	return ix.text(s.Name)
}

// row finds or makes the span's row and notes frame and service in it.
func (ix *index) row(s *wire.Span) *row {
	if ix.last >= 0 && ix.rows[ix.last].Trace == s.Trace {
		return &ix.rows[ix.last]
	}
	n, ok := ix.byTrace[s.Trace]
	if !ok {
		n = int32(len(ix.rows))
		ix.byTrace[s.Trace] = n
		ix.rows = append(ix.rows, row{Trace: s.Trace, refs: -1, uses: -1})
	}
	ix.last = n
	r := &ix.rows[n]
	if r.refs < 0 || r.lastOffset != ix.offset {
		ix.refs = append(ix.refs, ref{ix.offset, r.refs})
		r.refs, r.lastOffset = int32(len(ix.refs)-1), ix.offset
	}
	for at := r.uses; at >= 0; at = ix.uses[at].next {
		if ix.uses[at].value == ix.service {
			return r
		}
	}
	ix.uses = append(ix.uses, ref{ix.service, r.uses})
	r.uses = int32(len(ix.uses) - 1)
	return r
}

// text numbers a string.
func (ix *index) text(b []byte) uint32 {
	if n, ok := ix.byText[string(b)]; ok {
		return n
	}
	if len(b) > maxText {
		b = b[:maxText]
	}
	s := string(b)
	if n, ok := ix.byText[s]; ok {
		return n
	}
	n := uint32(len(ix.strings))
	ix.strings = append(ix.strings, s)
	ix.byText[s] = n
	return n
}

// maxText is how much of a name an index keeps.
const maxText = 256

// lookup returns a trace's part and the frames that hold its spans.
func (ix *index) lookup(id wire.TraceID) (part, []uint32, bool) {
	n, ok := ix.byTrace[id]
	if !ok {
		return part{}, nil, false
	}
	var offsets []uint32
	for at := ix.rows[n].refs; at >= 0; at = ix.refs[at].next {
		offsets = append(offsets, ix.refs[at].value)
	}
	slices.Reverse(offsets)
	return ix.part(&ix.rows[n]), offsets, true
}

// part is a row with its strings.
type part struct {
	Trace       wire.TraceID
	Start, End  uint64
	Spans       uint32
	Errors      uint32
	Root        string
	RootService string
	HasRoot     bool
	Services    []string
}

func (ix *index) part(r *row) part {
	p := part{
		Trace: r.Trace, Start: r.Start, End: r.End, Spans: r.Spans, Errors: r.Errors,
		Root: ix.strings[r.Root], RootService: ix.strings[r.RootService], HasRoot: r.HasRoot,
	}
	for at := r.uses; at >= 0; at = ix.uses[at].next {
		if s := ix.strings[ix.uses[at].value]; s != "" {
			p.Services = append(p.Services, s)
		}
	}
	slices.Sort(p.Services)
	return p
}

// newest returns the rows' numbers, latest start first.
func (ix *index) newest() []int32 {
	order := make([]int32, len(ix.rows))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int {
		switch x, y := ix.rows[a].Start, ix.rows[b].Start; {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return int(a - b)
	})
	return order
}
