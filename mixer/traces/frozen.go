package traces

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"

	"github.com/xebec-mesh/xebec/mixer/wire"
)

// An index file lies beside a segment that is complete:
//
//	header   magic 8, rows 4, refs 4, uses 4, strings 4, text bytes 4, spans 8, start 8, end 8, checksum of the rest 4
//	rows     64 bytes each, by trace id
//	order    4 bytes a row: rows, latest start first
//	refs     4 bytes each: frame offsets; a row has a run of them
//	uses     4 bytes each: string numbers; a row has a run of them
//	ends     4 bytes a string: where it ends in text
//	text
//
// All numbers are little-endian. A lookup reads some rows, a list the whole file.
const (
	indexMagic  = "XBCTIDX1"
	headerBytes = 8 + 5*4 + 3*8 + 4
	rowBytes    = 64
)

type header struct {
	rows, refs, uses, strings, text uint32
	spans, start, end               uint64
	sum                             uint32
}

func (h header) orderAt() int64   { return headerBytes + int64(h.rows)*rowBytes }
func (h header) refsAt() int64    { return h.orderAt() + int64(h.rows)*4 }
func (h header) usesAt() int64    { return h.refsAt() + int64(h.refs)*4 }
func (h header) stringsAt() int64 { return h.usesAt() + int64(h.uses)*4 }
func (h header) textAt() int64    { return h.stringsAt() + int64(h.strings)*4 }
func (h header) size() int64      { return h.textAt() + int64(h.text) }

var le = binary.LittleEndian

// encode writes a frozen index.
func (ix *index) encode() []byte {
	byID := make([]int32, len(ix.rows))
	for i := range byID {
		byID[i] = int32(i)
	}
	slices.SortFunc(byID, func(a, b int32) int { return bytes.Compare(ix.rows[a].Trace[:], ix.rows[b].Trace[:]) })
	place := make([]uint32, len(ix.rows))
	for at, n := range byID {
		place[n] = uint32(at)
	}
	var rows, order, refs, uses, ends, text []byte
	for _, n := range byID {
		r := &ix.rows[n]
		refAt, useAt := len(refs)/4, len(uses)/4
		_, offsets, _ := ix.lookup(r.Trace)
		for _, o := range offsets {
			refs = le.AppendUint32(refs, o)
		}
		for at := r.uses; at >= 0; at = ix.uses[at].next {
			uses = le.AppendUint32(uses, ix.uses[at].value)
		}
		rows = appendRow(rows, r, refAt, len(refs)/4-refAt, useAt, len(uses)/4-useAt)
	}
	for _, n := range ix.newest() {
		order = le.AppendUint32(order, place[n])
	}
	for _, s := range ix.strings {
		text = append(text, s...)
		ends = le.AppendUint32(ends, uint32(len(text)))
	}
	body := slices.Concat(rows, order, refs, uses, ends, text)
	out := make([]byte, 0, headerBytes+len(body))
	out = append(out, indexMagic...)
	for _, n := range []int{len(ix.rows), len(refs) / 4, len(uses) / 4, len(ix.strings), len(text)} {
		out = le.AppendUint32(out, uint32(n))
	}
	for _, n := range []uint64{ix.spans, ix.start, ix.end} {
		out = le.AppendUint64(out, n)
	}
	out = le.AppendUint32(out, crc32.Checksum(body, castagnoli))
	return append(out, body...)
}

func appendRow(b []byte, r *row, refAt, refs, useAt, uses int) []byte {
	b = append(b, r.Trace[:]...)
	b = le.AppendUint64(le.AppendUint64(b, r.Start), r.End)
	root := r.Root
	if r.HasRoot {
		root |= 1 << 31
	}
	for _, n := range []uint32{r.Spans, r.Errors, root, r.RootService, uint32(refAt), uint32(refs), uint32(useAt), uint32(uses)} {
		b = le.AppendUint32(b, n)
	}
	return b
}

// frozen is an index file. Only its header is kept in memory.
type frozen struct {
	header
	path string
}

var errDamaged = errors.New("index is damaged")

// openFrozen reads and checks an index file.
func openFrozen(path string) (*frozen, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	h, err := parseHeader(b)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if int64(len(b)) != h.size() || crc32.Checksum(b[headerBytes:], castagnoli) != h.sum {
		return nil, fmt.Errorf("open %s: %w", path, errDamaged)
	}
	return &frozen{header: h, path: path}, nil
}

func parseHeader(b []byte) (h header, err error) {
	if len(b) < headerBytes || string(b[:8]) != indexMagic {
		return h, errDamaged
	}
	for i, n := range []*uint32{&h.rows, &h.refs, &h.uses, &h.strings, &h.text} {
		*n = le.Uint32(b[8+4*i:])
	}
	for i, n := range []*uint64{&h.spans, &h.start, &h.end} {
		*n = le.Uint64(b[28+8*i:])
	}
	h.sum = le.Uint32(b[52:])
	return h, nil
}

// lookup finds a trace by a binary search in the file.
func (f *frozen) lookup(id wire.TraceID) (offsets []uint32, ok bool, err error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, false, err
	}
	defer file.Close()
	var buf [rowBytes]byte
	low, high := 0, int(f.rows)
	for low < high {
		mid := (low + high) / 2
		if _, err := file.ReadAt(buf[:], headerBytes+int64(mid)*rowBytes); err != nil {
			return nil, false, fmt.Errorf("read %s: %w", f.path, err)
		}
		switch c := bytes.Compare(buf[:16], id[:]); {
		case c == 0:
			offsets, err := f.runAt(file, f.refsAt(), le.Uint32(buf[48:]), le.Uint32(buf[52:]), f.refs)
			return offsets, err == nil, err
		case c < 0:
			low = mid + 1
		default:
			high = mid
		}
	}
	return nil, false, nil
}

// runAt reads n numbers of a section that has limit of them.
func (f *frozen) runAt(r io.ReaderAt, section int64, at, n, limit uint32) ([]uint32, error) {
	if uint64(at)+uint64(n) > uint64(limit) {
		return nil, fmt.Errorf("read %s: %w", f.path, errDamaged)
	}
	b := make([]byte, 4*n)
	if _, err := r.ReadAt(b, section+4*int64(at)); err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path, err)
	}
	out := make([]uint32, n)
	for i := range out {
		out[i] = le.Uint32(b[4*i:])
	}
	return out, nil
}

// each calls yield with the traces, latest start first, until it returns false.
func (f *frozen) each(yield func(part) bool) error {
	b, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	if int64(len(b)) != f.size() {
		return fmt.Errorf("read %s: %w", f.path, errDamaged)
	}
	r := bytes.NewReader(b)
	for i := range int64(f.rows) {
		n := le.Uint32(b[f.orderAt()+4*i:])
		if n >= f.rows {
			return fmt.Errorf("read %s: %w", f.path, errDamaged)
		}
		p, err := f.part(r, b, b[headerBytes+int64(n)*rowBytes:][:rowBytes])
		if err != nil {
			return err
		}
		if !yield(p) {
			return nil
		}
	}
	return nil
}

func (f *frozen) part(r io.ReaderAt, b, row []byte) (part, error) {
	num := func(at int) uint32 { return le.Uint32(row[at:]) }
	p := part{
		Trace: wire.TraceID(row[:16]), Start: le.Uint64(row[16:]), End: le.Uint64(row[24:]),
		Spans: num(32), Errors: num(36), HasRoot: num(40)>>31 == 1,
		Root: f.text(b, num(40)&^(1<<31)), RootService: f.text(b, num(44)),
	}
	uses, err := f.runAt(r, f.usesAt(), num(56), num(60), f.uses)
	if err != nil {
		return part{}, err
	}
	for _, u := range uses {
		if s := f.text(b, u); s != "" {
			p.Services = append(p.Services, s)
		}
	}
	slices.Sort(p.Services)
	return p, nil
}

// text is a string by number; a number that does not exist is the empty string.
func (f *frozen) text(b []byte, n uint32) string {
	if n >= f.strings {
		return ""
	}
	var from uint32
	if n > 0 {
		from = le.Uint32(b[f.stringsAt()+4*int64(n-1):])
	}
	to := le.Uint32(b[f.stringsAt()+4*int64(n):])
	if from > to || to > f.header.text {
		return ""
	}
	return string(b[f.textAt()+int64(from) : f.textAt()+int64(to)])
}
