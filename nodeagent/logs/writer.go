// Package logs writes and reads what containers print, in the CRI log format:
//
//	2026-01-02T15:04:05.123456789Z stdout F a whole line
//	2026-01-02T15:04:05.123456790Z stderr P the first part of a long one
//
//	in:   the output streams of one container (in its shim); a query (in the agent)
//	out:  a file that rotates by size; lines in order
//
// The writer runs in the container's shim, so that nothing blocks or is lost while
// the agent is away. The package imports the standard library only: a shim stands
// beside every pod and must stay small.
//
// The format: https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
package logs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// MaxLine is the longest run of bytes that one entry holds; longer lines are split
// into partial entries.
const MaxLine = 16 << 10

const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"

// WriterConfig says where entries go.
type WriterConfig struct {
	Path     string           // the current file; rotated ones stand beside it
	MaxSize  int64            // bytes after which the file rotates; 0 never
	MaxFiles int              // files kept, the current one included; default 5
	Now      func() time.Time // default time.Now
}

// Writer appends entries to one container's log. Its streams may write at once.
type Writer struct {
	cfg  WriterConfig
	mu   sync.Mutex
	file *os.File
	size int64
	out  []byte
}

// NewWriter opens the log, which may exist.
func NewWriter(cfg WriterConfig) (*Writer, error) {
	if cfg.MaxFiles <= 0 {
		cfg.MaxFiles = 5
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	w := &Writer{cfg: cfg}
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o755); err != nil {
		return nil, fmt.Errorf("create log directory: %w", err)
	}
	return w, w.open()
}

func (w *Writer) open() error {
	f, err := os.OpenFile(w.cfg.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open log: %w", err)
	}
	w.file, w.size = f, st.Size()
	return nil
}

// Close closes the file.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.file.Close()
}

// Copy writes what r gives as entries of a stream until r ends. Each chunk is
// shown to tee first, as it came, if tee is not nil. A full disk loses entries
// rather than blocking the container.
func (w *Writer) Copy(stream string, r io.Reader, tee func([]byte)) {
	buf := make([]byte, MaxLine)
	n := 0 // bytes of an unfinished line in buf
	for {
		m, err := r.Read(buf[n:])
		if m > 0 && tee != nil {
			tee(buf[n : n+m])
		}
		n += m
		used := w.append(stream, buf[:n], err != nil)
		n = copy(buf, buf[used:n])
		if err != nil {
			return
		}
	}
}

// append writes the whole lines of data; a line that fills the buffer as a partial
// entry; and with end, what remains as a line. It returns how many bytes it consumed.
func (w *Writer) append(stream string, data []byte, end bool) int {
	if len(data) == 0 {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = w.out[:0]
	now := w.cfg.Now().UTC()
	used := 0
	for {
		i := bytes.IndexByte(data[used:], '\n')
		if i < 0 {
			break
		}
		w.entry(now, stream, 'F', data[used:used+i])
		used += i + 1
	}
	switch rest := data[used:]; {
	case len(rest) == 0:
	case end:
		w.entry(now, stream, 'F', rest)
		used = len(data)
	case len(rest) == MaxLine:
		w.entry(now, stream, 'P', rest)
		used = len(data)
	}
	if len(w.out) > 0 {
		n, _ := w.file.Write(w.out)
		w.size += int64(n)
		w.rotate(now)
	}
	if cap(w.out) > 4*MaxLine {
		w.out = nil
	}
	return used
}

func (w *Writer) entry(now time.Time, stream string, tag byte, line []byte) {
	w.out = now.AppendFormat(w.out, timeFormat)
	w.out = append(w.out, ' ')
	w.out = append(w.out, stream...)
	w.out = append(w.out, ' ', tag, ' ')
	w.out = append(w.out, line...)
	w.out = append(w.out, '\n')
}

// rotate moves a file that is full aside and opens a new one. Followers notice
// that the path has another file.
func (w *Writer) rotate(now time.Time) {
	if w.cfg.MaxSize <= 0 || w.size < w.cfg.MaxSize {
		return
	}
	aside := w.cfg.Path + "." + now.Format("20060102-150405.000000000")
	if os.Rename(w.cfg.Path, aside) != nil {
		return
	}
	old := w.file
	if w.open() == nil {
		old.Close()
	}
	rotated := Rotated(w.cfg.Path)
	for len(rotated) > w.cfg.MaxFiles-1 {
		os.Remove(rotated[0])
		rotated = rotated[1:]
	}
}

// Rotated lists the files that a log has rotated to, oldest first.
func Rotated(path string) []string {
	names, _ := filepath.Glob(path + ".*")
	slices.Sort(names)
	return names
}
