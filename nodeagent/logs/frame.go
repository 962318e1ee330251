package logs

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// slowReader is how long an attached client may keep a container's output waiting.
const slowReader = 2 * time.Second

// WriteFrame sends a chunk of at most 64 KiB of a stream to an attached client.
func WriteFrame(c net.Conn, stream string, b []byte) error {
	frame := make([]byte, 3, 3+len(b))
	if stream == "stderr" {
		frame[0] = 2
	} else {
		frame[0] = 1
	}
	binary.BigEndian.PutUint16(frame[1:], uint16(len(b)))
	if err := c.SetWriteDeadline(time.Now().Add(slowReader)); err != nil {
		return err
	}
	_, err := c.Write(append(frame, b...))
	return err
}

// ReadFrames copies the frames that r gives to the writers of their streams, until
// r ends. errOut may be nil: both streams then go to out.
func ReadFrames(r io.Reader, out, errOut io.Writer) error {
	if errOut == nil {
		errOut = out
	}
	var head [3]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if err == io.EOF {
				return nil
			}
			return fmt.Errorf("read attached output: %w", err)
		}
		w := out
		if head[0] == 2 {
			w = errOut
		}
		if _, err := io.CopyN(w, r, int64(binary.BigEndian.Uint16(head[1:]))); err != nil {
			return fmt.Errorf("copy attached output: %w", err)
		}
	}
}
