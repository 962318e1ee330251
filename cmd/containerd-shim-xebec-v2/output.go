package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/xebec-mesh/xebec/nodeagent/logs"
)

// output carries what one container prints to its log and to whoever attached.
//
//	runc's pipe → containerd's copier → FIFO → output → log
//	                                              └──→ attached connections
//
// The FIFOs are there because that is what containerd's task service writes to;
// both of their ends are in this process.
type output struct {
	log       *logs.Writer
	streams   []*stream
	stdin     string // FIFO, or ""
	stdinOnce bool
	hold      *os.File // keeps stdin open between those who attach
	attach    net.Listener
	copies    sync.WaitGroup
	drained   chan struct{} // closed when the streams have ended

	exit, name string // where to record the exit, and whose it is
	attempt    int

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

type stream struct {
	name, path string
	r, w       *os.File // w keeps r from ending before containerd has opened its end
}

func newOutput(u *url.URL, bundle string, terminal bool) (_ *output, err error) {
	q := u.Query()
	size, _ := strconv.ParseInt(q.Get("max-size"), 10, 64)
	files, _ := strconv.Atoi(q.Get("max-files"))
	o := &output{conns: map[net.Conn]struct{}{}, drained: make(chan struct{}), stdinOnce: q.Get("stdin") == "once"}
	o.exit, o.name = q.Get("exit"), q.Get("name")
	o.attempt, _ = strconv.Atoi(q.Get("attempt"))
	defer func() {
		if err != nil {
			o.abandon()
		}
	}()
	if o.log, err = logs.NewWriter(logs.WriterConfig{Path: u.Path, MaxSize: size, MaxFiles: files}); err != nil {
		return nil, err
	}
	names := []string{"stdout", "stderr"}
	if terminal {
		names = names[:1]
	}
	for _, name := range names {
		s, err := openStream(name, filepath.Join(bundle, name))
		if err != nil {
			return nil, err
		}
		o.streams = append(o.streams, s)
	}
	if q.Has("stdin") {
		o.stdin = filepath.Join(bundle, "stdin")
		if err := mkfifo(o.stdin); err != nil {
			return nil, err
		}
		if o.hold, err = os.OpenFile(o.stdin, os.O_RDWR|syscall.O_NONBLOCK, 0); err != nil {
			return nil, err
		}
	}
	if path := q.Get("attach"); path != "" {
		_ = os.Remove(path)
		if o.attach, err = net.Listen("unix", path); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func mkfifo(path string) error {
	if err := syscall.Mkfifo(path, 0o600); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make FIFO %s: %w", path, err)
	}
	return nil
}

func openStream(name, path string) (*stream, error) {
	if err := mkfifo(path); err != nil {
		return nil, err
	}
	r, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	w, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		r.Close()
		return nil, err
	}
	return &stream{name: name, path: path, r: r, w: w}, nil
}

// paths are the FIFOs to hand to containerd's task service.
func (o *output) paths() (stdin, stdout, stderr string) {
	stdin, stdout = o.stdin, o.streams[0].path
	if len(o.streams) > 1 {
		stderr = o.streams[1].path
	}
	return stdin, stdout, stderr
}

// start begins to copy. From here on the streams end when the container's
// processes have closed theirs.
func (o *output) start() {
	for _, s := range o.streams {
		s.w.Close()
		o.copies.Go(func() {
			o.log.Copy(s.name, s.r, func(b []byte) { o.show(s.name, b) })
			s.r.Close()
		})
	}
	go func() {
		o.copies.Wait()
		o.log.Close()
		close(o.drained)
		o.closeConns()
	}()
	if o.attach != nil {
		go o.accept()
	}
}

// abandon closes what was opened for a container that was not created.
func (o *output) abandon() {
	for _, s := range o.streams {
		s.w.Close()
		s.r.Close()
	}
	if o.log != nil {
		o.log.Close()
	}
	o.close()
}

// drain waits until the log is complete, unless a process that the container left
// behind holds its output open.
func (o *output) drain() {
	select {
	case <-o.drained:
	case <-time.After(time.Second):
	}
}

func (o *output) close() {
	if o.attach != nil {
		o.attach.Close()
	}
	if o.hold != nil {
		o.hold.Close()
	}
	o.closeConns()
}

func (o *output) closeConns() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.conns {
		c.Close()
	}
	clear(o.conns)
}

func (o *output) accept() {
	for {
		c, err := o.attach.Accept()
		if err != nil {
			return
		}
		o.mu.Lock()
		o.conns[c] = struct{}{}
		o.mu.Unlock()
		go o.input(c)
	}
}

// input copies what an attached client types to the container. Its end of input is
// the container's only if the container asked for that (stdinOnce).
func (o *output) input(c net.Conn) {
	if o.stdin == "" {
		_, _ = io.Copy(io.Discard, c)
		return
	}
	w, err := os.OpenFile(o.stdin, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	_, _ = io.Copy(w, c)
	w.Close()
	if o.stdinOnce {
		o.hold.Close()
	}
}

// show sends a chunk to all who are attached: one byte for the stream, two for the
// length, the bytes. Who does not read fast enough is detached, so that it cannot
// hold up the container.
func (o *output) show(name string, b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.conns {
		if err := logs.WriteFrame(c, name, b); err != nil {
			c.Close()
			delete(o.conns, c)
		}
	}
}
