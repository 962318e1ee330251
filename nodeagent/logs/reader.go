package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Query says which part of a log is wanted. The zero value is all of it.
type Query struct {
	Follow     bool
	Tail       int64 // the last lines only; -1 is all
	Since      time.Time
	Timestamps bool
	LimitBytes int64  // 0 is no limit
	Stream     string // "stdout", "stderr", or "" for both

	// Ended is closed when nothing more will be written: Follow returns after the
	// rest. With nil, Follow ends with its context only.
	Ended <-chan struct{}
}

// Entry is one line, or a part of one, of a log.
type Entry struct {
	Time    time.Time
	Stream  string
	Partial bool
	Text    []byte // without the newline
}

var errFormat = errors.New("not a log entry")

// Parse decodes a line of a log file. Text shares its memory.
func Parse(line []byte) (Entry, error) {
	line = bytes.TrimSuffix(line, []byte{'\n'})
	stamp, rest, ok1 := bytes.Cut(line, []byte{' '})
	stream, rest, ok2 := bytes.Cut(rest, []byte{' '})
	tag, text, _ := bytes.Cut(rest, []byte{' '}) // an empty text may lack its blank
	if !ok1 || !ok2 || len(tag) == 0 {
		return Entry{}, errFormat
	}
	t, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return Entry{}, fmt.Errorf("%w: %w", errFormat, err)
	}
	return Entry{Time: t, Stream: string(stream), Partial: tag[0] == 'P', Text: text}, nil
}

// Read copies the entries that q selects to out. It returns nil at the end of the
// log, or when ctx ends while following.
func Read(ctx context.Context, path string, q Query, out, errOut io.Writer) error {
	p := &printer{q: q, out: out, err: errOut, left: q.LimitBytes, newLine: map[string]bool{}}
	files := append(Rotated(path), path)
	start, offset, err := seekTail(files, q)
	if err != nil {
		return err
	}
	for _, name := range files[start : len(files)-1] {
		if err := readRotated(name, offset, p); err != nil {
			return ended(err)
		}
		offset = 0
	}
	return ended(readCurrent(ctx, path, offset, p))
}

var errEnough = errors.New("enough")

func ended(err error) error {
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func readRotated(name string, offset int64, p *printer) error {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil // removed since
	}
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer f.Close()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return fmt.Errorf("seek log: %w", err)
	}
	_, err = p.copy(bufio.NewReader(f), nil)
	return err
}

// readCurrent reads the file that is being written, and with Follow what comes,
// over rotations.
func readCurrent(ctx context.Context, path string, offset int64, p *printer) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer func() { f.Close() }()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return fmt.Errorf("seek log: %w", err)
	}
	var changes <-chan struct{}
	if p.q.Follow {
		c, stop, err := watch(path)
		if err != nil {
			return err
		}
		defer stop()
		changes = c
	}
	r := bufio.NewReaderSize(f, MaxLine*2)
	var rest []byte // an entry that is written in part
	for last := !p.q.Follow; ; {
		if rest, err = p.copy(r, rest); err != nil {
			return err
		}
		if next := following(f, path); next != nil {
			rest, err = p.copy(r, rest) // what was written before the move
			f.Close()
			f = next
			r.Reset(f)
			if err != nil {
				return err
			}
			continue
		}
		if last {
			return nil
		}
		select {
		case <-changes:
		case <-p.q.Ended:
			last = true
		case <-ctx.Done():
			return nil
		}
	}
}

// following opens the file that came after f, if the log has been rotated since f
// was the current one; else it returns nil.
func following(f *os.File, path string) *os.File {
	here, err := f.Stat()
	if err != nil {
		return nil
	}
	if st, err := os.Stat(path); err != nil || os.SameFile(here, st) {
		return nil
	}
	files := append(Rotated(path), path)
	next := 0 // of a file that has been removed: the oldest there is
	for i, name := range files {
		if st, err := os.Stat(name); err == nil && os.SameFile(here, st) {
			next = i + 1
		}
	}
	if next == len(files) {
		return nil
	}
	g, err := os.Open(files[next])
	if err != nil {
		return nil
	}
	return g
}

type printer struct {
	q        Query
	out, err io.Writer
	left     int64
	newLine  map[string]bool // stream → the last entry was partial
}

// copy prints the whole entries that r gives, the first continuing rest. It
// returns what remains of an unfinished one.
func (p *printer) copy(r *bufio.Reader, rest []byte) ([]byte, error) {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			rest = append(rest, line...)
			if errors.Is(err, io.EOF) {
				return rest, nil
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			return rest, fmt.Errorf("read log: %w", err)
		}
		if len(rest) > 0 {
			rest = append(rest, line...)
			line, rest = rest, nil
		}
		if err := p.print(line); err != nil {
			return rest, err
		}
	}
}

func (p *printer) print(line []byte) error {
	e, err := Parse(line)
	if err != nil {
		return nil // a line torn by a crash
	}
	if e.Time.Before(p.q.Since) || (p.q.Stream != "" && p.q.Stream != e.Stream) {
		return nil
	}
	var b []byte
	if p.q.Timestamps && !p.newLine[e.Stream] {
		b = append(e.Time.AppendFormat(b, timeFormat), ' ')
	}
	b = append(b, e.Text...)
	if !e.Partial {
		b = append(b, '\n')
	}
	p.newLine[e.Stream] = e.Partial
	if p.q.LimitBytes > 0 && int64(len(b)) > p.left {
		b = b[:p.left]
	}
	p.left -= int64(len(b))
	w := p.out
	if e.Stream == "stderr" && p.err != nil {
		w = p.err
	}
	if _, err := w.Write(b); err != nil {
		return errEnough // the reader left
	}
	if p.q.LimitBytes > 0 && p.left <= 0 {
		return errEnough
	}
	return nil
}
