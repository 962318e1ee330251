package logs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func writer(t testing.TB, cfg WriterConfig) *Writer {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "0.log")
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	cfg.Now = func() time.Time { at = at.Add(time.Second); return at }
	w, err := NewWriter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func read(t testing.TB, path string, q Query) string {
	t.Helper()
	var b bytes.Buffer
	if err := Read(t.Context(), path, q, &b, nil); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestFormat(t *testing.T) {
	w := writer(t, WriterConfig{})
	w.Copy("stdout", strings.NewReader("one\ntwo\nno newline"), nil)
	w.Copy("stderr", strings.NewReader("bad\n"), nil)
	b, err := os.ReadFile(w.cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	const want = "2026-01-02T03:04:06.000000000Z stdout F one\n" +
		"2026-01-02T03:04:06.000000000Z stdout F two\n" +
		"2026-01-02T03:04:07.000000000Z stdout F no newline\n" +
		"2026-01-02T03:04:08.000000000Z stderr F bad\n"
	if string(b) != want {
		t.Errorf("log =\n%s\nwant\n%s", b, want)
	}
}

func TestLongLines(t *testing.T) {
	w := writer(t, WriterConfig{})
	long := strings.Repeat("x", 3*MaxLine+5)
	w.Copy("stdout", strings.NewReader(long+"\nnext\n"), nil)
	if got := read(t, w.cfg.Path, Query{Tail: -1}); got != long+"\nnext\n" {
		t.Errorf("read %d bytes, want %d", len(got), len(long)+6)
	}
	if got := read(t, w.cfg.Path, Query{Tail: 1}); got != "next\n" {
		t.Errorf("last line = %.20q", got)
	}
	if got := read(t, w.cfg.Path, Query{Tail: 2}); got != long+"\nnext\n" {
		t.Errorf("last two lines have %d bytes, want %d", len(got), len(long)+6)
	}
}

func TestQueries(t *testing.T) {
	w := writer(t, WriterConfig{})
	for i := range 5 {
		w.Copy("stdout", strings.NewReader(fmt.Sprintf("line %d\n", i)), nil)
	}
	at := func(sec int) time.Time { return time.Date(2026, 1, 2, 3, 4, 5+sec, 0, time.UTC) }
	for _, c := range []struct {
		q    Query
		want string
	}{
		{Query{Tail: 2}, "line 3\nline 4\n"},
		{Query{Tail: 0}, ""},
		{Query{Tail: 99, Since: at(5)}, "line 4\n"},
		{Query{Tail: -1, LimitBytes: 9}, "line 0\nli"},
		{Query{Tail: 1, Timestamps: true}, "2026-01-02T03:04:10.000000000Z line 4\n"},
		{Query{Tail: -1, Stream: "stderr"}, ""},
	} {
		if got := read(t, w.cfg.Path, c.q); got != c.want {
			t.Errorf("%+v = %q, want %q", c.q, got, c.want)
		}
	}
}

// Nothing is lost or repeated when a follower reads over rotations.
func TestFollowRotation(t *testing.T) {
	w := writer(t, WriterConfig{MaxSize: 2000, MaxFiles: 1000})
	ended := make(chan struct{})
	out, in := io.Pipe()
	go func() {
		in.CloseWithError(Read(context.Background(), w.cfg.Path, Query{Tail: -1, Follow: true, Ended: ended}, in, nil))
	}()
	r, pw := io.Pipe()
	var want strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	go func() { w.Copy("stdout", r, nil); close(ended) }()
	go func() { io.Copy(pw, strings.NewReader(want.String())); pw.Close() }()
	got, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(Rotated(w.cfg.Path)); n == 0 {
		t.Error("the log did not rotate")
	}
	if string(got) != want.String() {
		t.Errorf("followed %d bytes, want %d", len(got), want.Len())
	}
	if got := read(t, w.cfg.Path, Query{Tail: 1000}); strings.Count(got, "\n") != 1000 || !strings.HasSuffix(got, "line 1999\n") {
		t.Errorf("the last 1000 lines over rotated files: %d lines", strings.Count(got, "\n"))
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("2026-01-02T03:04:06.000000000Z stdout F one\n"))
	f.Add([]byte("2026-01-02T03:04:06Z stderr P \n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if e, err := Parse(line); err == nil && len(e.Text) > len(line) {
			t.Errorf("%q has the text %q", line, e.Text)
		}
	})
}

func BenchmarkCopy(b *testing.B) {
	for _, size := range []int{80, 1000} {
		b.Run(fmt.Sprintf("line=%d", size), func(b *testing.B) {
			w := writer(b, WriterConfig{MaxSize: 10 << 20})
			w.cfg.Now = time.Now
			lines := bytes.Repeat(append(bytes.Repeat([]byte{'x'}, size), '\n'), 1000)
			b.SetBytes(int64(len(lines)))
			for b.Loop() {
				w.Copy("stdout", bytes.NewReader(lines), nil)
			}
		})
	}
}
