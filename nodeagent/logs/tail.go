package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// seekTail finds where the last q.Tail lines begin: a file and an offset in it.
func seekTail(files []string, q Query) (file int, offset int64, err error) {
	if q.Tail < 0 {
		return 0, 0, nil
	}
	if q.Tail == 0 {
		last := len(files) - 1
		st, err := os.Stat(files[last])
		if err != nil {
			return 0, 0, fmt.Errorf("open log: %w", err)
		}
		return last, st.Size(), nil
	}
	want := q.Tail
	for i := len(files) - 1; i >= 0; i-- {
		off, missing, err := lastLines(files[i], want)
		if errors.Is(err, os.ErrNotExist) && i < len(files)-1 {
			continue
		}
		if err != nil {
			return 0, 0, fmt.Errorf("open log: %w", err)
		}
		if missing == 0 {
			return i, off, nil
		}
		want = missing
	}
	return 0, 0, nil
}

// lastLines returns the offset of the last want whole entries of a file, and how
// many are missing because it has fewer. Parts of one line count as one.
func lastLines(name string, want int64) (offset, missing int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	const block = 32 << 10
	buf := make([]byte, block)
	var tail []byte // bytes of the entry whose start is not found yet
	for end := st.Size(); end > 0; {
		n := min(end, block)
		end -= n
		if _, err := f.ReadAt(buf[:n], end); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, err
		}
		data := append(bytes.Clone(buf[:n]), tail...)
		for {
			trimmed := bytes.TrimSuffix(data, []byte{'\n'})
			i := bytes.LastIndexByte(trimmed, '\n')
			if i < 0 {
				tail = data
				break
			}
			if e, err := Parse(data[i+1:]); err == nil && !e.Partial {
				if want == 0 {
					return end + int64(len(data)), 0, nil
				}
				want--
			}
			data = data[:i+1]
		}
	}
	if e, err := Parse(tail); err == nil && !e.Partial {
		if want == 0 {
			return int64(len(tail)), 0, nil
		}
		want--
	}
	return 0, want, nil
}
