package traces

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/xebec-mesh/xebec/mixer/wire"
)

// A segment is a file of frames, each a traces request as it came:
//
//	magic 8, created 8 (ns since 1970)
//	frame: length 4, checksum 4 (of length and payload), payload
//
// Frames are only ever appended, each by one write. After a crash, what follows
// the last whole frame is ignored.
const (
	segmentMagic  = "XBCTSEG1"
	segmentHeader = 16
	frameHeader   = 8
	maxFrame      = 64 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segment is one file and its index, in one of the forms:
//
//	active ──full or old──▶ complete (index in memory) ──written──▶ frozen (index in a file)
//	found without an index file ──scanned──▶ complete
type segment struct {
	path    string
	created time.Time
	seq     uint64

	file *os.File // for appending; nil unless active

	mu     sync.RWMutex
	size   int64
	live   *index   // active and complete
	frozen *frozen  // frozen
	scan   bool     // neither yet: must be scanned
	names  []string // of services; nil until somebody asks for those of a frozen segment
}

func segmentPath(dir string, seq uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x.seg", seq))
}

func (s *segment) indexPath() string { return s.path[:len(s.path)-len(".seg")] + ".idx" }

// createSegment begins a new active segment.
func createSegment(dir string, seq uint64, now time.Time) (*segment, error) {
	path := segmentPath(dir, seq)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	b := le.AppendUint64([]byte(segmentMagic), uint64(now.UnixNano()))
	if _, err := f.WriteAt(b, 0); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return &segment{path: path, seq: seq, created: now, file: f, size: segmentHeader, live: newIndex()}, nil
}

// openSegment finds what a former process left.
func openSegment(path string, seq uint64) (*segment, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	s := &segment{path: path, seq: seq, created: info.ModTime(), size: info.Size()}
	f, err := openFrozen(s.indexPath())
	if err != nil {
		s.scan = true
		return s, nil
	}
	s.frozen = f
	return s, nil
}

// append writes one frame and then indexes what a scan of it found. The first
// frameHeader bytes of frame are room for the header. After an error nothing of
// it remains.
func (s *segment) append(frame []byte, found *found) error {
	payload := frame[frameHeader:]
	le.PutUint32(frame, uint32(len(payload)))
	le.PutUint32(frame[4:], checksum(frame[:4], payload))
	if _, err := s.file.WriteAt(frame, s.size); err != nil {
		return errors.Join(err, s.file.Truncate(s.size))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live.frame(uint32(s.size))
	s.size += int64(len(frame))
	found.replay(s.live)
	return nil
}

// found is what a scan of a request found, kept until the request is on disk.
type found struct {
	spans    []wire.Span
	services []service
}

// service is the service of the spans from a number on.
type service struct {
	from int
	name []byte
}

// Resource is part of wire.Visitor.
func (f *found) Resource(name []byte) { f.services = append(f.services, service{len(f.spans), name}) }

// Span is part of wire.Visitor.
func (f *found) Span(s *wire.Span) { f.spans = append(f.spans, *s) }

func (f *found) reset() {
	clear(f.spans)
	clear(f.services)
	f.spans, f.services = f.spans[:0], f.services[:0]
}

func (f *found) replay(v wire.Visitor) {
	for i, s := range f.services {
		to := len(f.spans)
		if i+1 < len(f.services) {
			to = f.services[i+1].from
		}
		v.Resource(s.name)
		for n := s.from; n < to; n++ {
			v.Span(&f.spans[n])
		}
	}
}

func checksum(length, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli), castagnoli, payload)
}

// recover scans a segment that has no index file.
func (s *segment) recover() error {
	s.mu.RLock()
	scan := s.scan
	s.mu.RUnlock()
	if !scan {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.scan {
		return nil
	}
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	ix := newIndex()
	if err := scanFrames(f, func(offset int64, payload []byte) error {
		ix.frame(uint32(offset))
		_, err := wire.ScanSpans(payload, ix)
		return err
	}); err != nil {
		return fmt.Errorf("scan %s: %w", s.path, err)
	}
	s.live, s.scan = ix, false
	return nil
}

// scanFrames calls each with every whole frame.
func scanFrames(f *os.File, each func(offset int64, payload []byte) error) error {
	head := make([]byte, segmentHeader)
	if _, err := io.ReadFull(f, head); err != nil || string(head[:8]) != segmentMagic {
		return nil // it was created and nothing more
	}
	var buf []byte
	for offset := int64(segmentHeader); ; {
		payload, err := readFrame(f, offset, buf)
		if err != nil {
			return nil // the torn end
		}
		if err := each(offset, payload); err != nil {
			return err
		}
		offset += frameHeader + int64(len(payload))
		buf = payload[:0]
	}
}

// readFrame reads and checks the frame at offset, into buf if it fits.
func readFrame(f io.ReaderAt, offset int64, buf []byte) ([]byte, error) {
	var head [frameHeader]byte
	if _, err := f.ReadAt(head[:], offset); err != nil {
		return nil, err
	}
	size := le.Uint32(head[:])
	if size > maxFrame {
		return nil, errDamaged
	}
	if int(size) > cap(buf) {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	if _, err := f.ReadAt(buf, offset+frameHeader); err != nil {
		return nil, err
	}
	if checksum(head[:4], buf) != le.Uint32(head[4:]) {
		return nil, errDamaged
	}
	return buf, nil
}

// freeze writes the index of a complete segment to its file and lets go of memory.
func (s *segment) freeze() error {
	s.mu.RLock()
	ix := s.live
	s.mu.RUnlock()
	if ix == nil {
		return nil
	}
	tmp := s.indexPath() + ".tmp"
	if err := os.WriteFile(tmp, ix.encode(), 0o600); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := os.Rename(tmp, s.indexPath()); err != nil {
		return err
	}
	f, err := openFrozen(s.indexPath())
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen, s.live = f, nil
	return nil
}

// remove deletes the files.
func (s *segment) remove() error {
	err := os.Remove(s.indexPath())
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.Remove(s.path))
}

// bounds are the earliest start and the latest end of the segment's traces.
func (s *segment) bounds() (start, end uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.frozen != nil {
		return s.frozen.start, s.frozen.end
	}
	if s.live == nil {
		return 0, 0
	}
	return s.live.start, s.live.end
}

// each calls yield with the traces, latest start first, until it returns false.
func (s *segment) each(yield func(part) bool) error {
	if err := s.recover(); err != nil {
		return err
	}
	s.mu.RLock()
	if f := s.frozen; f != nil {
		s.mu.RUnlock()
		return f.each(yield)
	}
	live := s.live
	order := live.newest()
	s.mu.RUnlock()
	for _, n := range order {
		s.mu.RLock()
		p := live.part(&live.rows[n])
		s.mu.RUnlock()
		if !yield(p) {
			return nil
		}
	}
	return nil
}

// services are the names of the services that have spans here, sorted. Of a frozen
// segment they are read once.
func (s *segment) services() ([]string, error) {
	s.mu.RLock()
	known, frozen := s.names, s.frozen != nil
	s.mu.RUnlock()
	if known != nil {
		return known, nil
	}
	seen := map[string]bool{}
	if err := s.each(func(p part) bool {
		for _, n := range p.Services {
			seen[n] = true
		}
		return true
	}); err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(seen))
	if frozen && names != nil {
		s.mu.Lock()
		s.names = names
		s.mu.Unlock()
	}
	return names, nil
}

// lookup returns where the frames with spans of a trace are.
func (s *segment) lookup(id wire.TraceID) ([]uint32, error) {
	if err := s.recover(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.frozen != nil {
		offsets, _, err := s.frozen.lookup(id)
		return offsets, err
	}
	_, offsets, _ := s.live.lookup(id)
	return offsets, nil
}

// read calls each with the frames at offsets. A frame that a power failure has
// damaged is passed over.
func (s *segment) read(offsets []uint32, each func(payload []byte) error) error {
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, o := range offsets {
		payload, err := readFrame(f, int64(o), nil)
		if errors.Is(err, errDamaged) || errors.Is(err, io.EOF) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read %s at %d: %w", s.path, o, err)
		}
		if err := each(payload); err != nil {
			return err
		}
	}
	return nil
}
