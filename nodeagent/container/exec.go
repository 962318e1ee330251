package container

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"
)

// Streams are a process's. Those that are nil are not connected.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	TTY      bool
	Resize   <-chan Size // with TTY
}

// Size is a terminal's.
type Size struct{ Width, Height uint16 }

// Exec runs a command in the container until it ends. When ctx ends, it is killed.
func (c *Container) Exec(ctx context.Context, command []string, s Streams) (code int, err error) {
	spec, err := c.processSpec(ctx, command, s.TTY)
	if err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", c.ID, err)
	}
	dir, err := os.MkdirTemp("", "exec-")
	if err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", c.ID, err)
	}
	defer os.RemoveAll(dir)
	p := &process{c: c, id: randomID(), spec: spec, s: s}
	in := s.In
	if in != nil {
		in = &ending{r: in, end: func() { p.closeInput(c.r.Context(context.WithoutCancel(ctx))) }}
	}
	opts := []cio.Opt{cio.WithStreams(in, s.Out, s.Err), cio.WithFIFODir(dir)}
	if s.TTY {
		opts = append(opts, cio.WithTerminal)
	}
	if p.io, err = cio.NewCreator(opts...)(p.id); err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", c.ID, err)
	}
	defer p.io.Close()
	if code, err = p.run(c.r.Context(ctx)); err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", c.ID, errgrpc.ToNative(err))
	}
	return code, nil
}

func randomID() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// process is one more process in a container.
type process struct {
	c    *Container
	id   string
	spec *anypb.Any
	io   cio.IO
	s    Streams
}

// run begins the process in any case, so that the shim never waits for streams that
// nobody will open; then ctx may end it.
func (p *process) run(ctx context.Context) (int, error) {
	if ctx.Err() != nil {
		p.io.Cancel()
		return 0, ctx.Err()
	}
	svc := p.c.r.cfg.Client.TaskService()
	clean := context.WithoutCancel(ctx)
	cfg := p.io.Config()
	_, err := svc.Exec(clean, &tasks.ExecProcessRequest{
		ContainerID: p.c.ID, ExecID: p.id, Spec: p.spec,
		Terminal: cfg.Terminal, Stdin: cfg.Stdin, Stdout: cfg.Stdout, Stderr: cfg.Stderr,
	})
	if err != nil {
		p.io.Cancel()
		return 0, err
	}
	defer func() {
		_, _ = svc.DeleteProcess(clean, &tasks.DeleteProcessRequest{ContainerID: p.c.ID, ExecID: p.id})
	}()
	if _, err := svc.Start(clean, &tasks.StartRequest{ContainerID: p.c.ID, ExecID: p.id}); err != nil {
		p.io.Cancel()
		return 0, err
	}
	ended := make(chan struct{})
	defer close(ended)
	go p.serve(ctx, clean, ended)
	resp, err := svc.Wait(clean, &tasks.WaitRequest{ContainerID: p.c.ID, ExecID: p.id})
	if err != nil {
		return 0, err
	}
	p.drain()
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	return int(resp.ExitStatus), nil
}

// drainTime is for output that is still under way when the process has ended. A
// child that it left behind may keep it open for ever.
const drainTime = 10 * time.Second

func (p *process) drain() {
	stop := time.AfterFunc(drainTime, p.io.Cancel)
	defer stop.Stop()
	p.io.Wait()
}

// closeInput tells the shim, which holds its own end of the FIFO, that no more comes.
func (p *process) closeInput(ctx context.Context) {
	_, _ = p.c.r.cfg.Client.TaskService().CloseIO(ctx, &tasks.CloseIORequest{ContainerID: p.c.ID, ExecID: p.id, Stdin: true})
}

// ending calls end when r has ended.
type ending struct {
	r   io.Reader
	end func()
}

func (e *ending) Read(b []byte) (int, error) {
	n, err := e.r.Read(b)
	if err != nil && e.end != nil {
		go e.end()
		e.end = nil
	}
	return n, err
}

// serve passes on the terminal's sizes, and kills the process when ctx ends.
func (p *process) serve(ctx, clean context.Context, ended <-chan struct{}) {
	svc := p.c.r.cfg.Client.TaskService()
	resize := p.s.Resize
	for {
		select {
		case <-ended:
			return
		case <-ctx.Done():
			_, _ = svc.Kill(clean, &tasks.KillRequest{ContainerID: p.c.ID, ExecID: p.id, Signal: uint32(syscall.SIGKILL)})
			return
		case size, ok := <-resize:
			if !ok {
				resize = nil
				continue
			}
			_, _ = svc.ResizePty(ctx, &tasks.ResizePtyRequest{
				ContainerID: p.c.ID, ExecID: p.id, Width: uint32(size.Width), Height: uint32(size.Height),
			})
		}
	}
}

// Resize sets the size of the container's own terminal.
func (c *Container) Resize(ctx context.Context, size Size) error {
	_, err := c.r.cfg.Client.TaskService().ResizePty(c.r.Context(ctx), &tasks.ResizePtyRequest{
		ContainerID: c.ID, Width: uint32(size.Width), Height: uint32(size.Height),
	})
	if err != nil {
		return fmt.Errorf("resize terminal of container %s: %w", c.ID, errgrpc.ToNative(err))
	}
	return nil
}

// processSpec is the container's own process with another command.
func (c *Container) processSpec(ctx context.Context, command []string, tty bool) (*anypb.Any, error) {
	record, err := c.r.cfg.Client.ContainerService().Get(c.r.Context(ctx), c.ID)
	if err != nil {
		return nil, err
	}
	var spec specs.Spec
	if err := json.Unmarshal(record.Spec.GetValue(), &spec); err != nil {
		return nil, err
	}
	p := spec.Process
	p.Args, p.Terminal = command, tty
	if tty {
		p.Env = append(p.Env, "TERM=xterm")
	}
	return typeurl.MarshalAnyToProto(p)
}

// maxOutput is how much of a probe's or hook's output is kept.
const maxOutput = 10 << 10

// ExecOutput runs a command and returns what it printed, shortened.
func (c *Container) ExecOutput(ctx context.Context, command []string) (code int, output string, err error) {
	var b limited
	code, err = c.Exec(ctx, command, Streams{Out: &b, Err: &b})
	return code, b.buf.String(), err
}

type limited struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if room := maxOutput - l.buf.Len(); room > 0 {
		l.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
