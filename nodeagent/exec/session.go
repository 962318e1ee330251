package exec

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	utilexec "k8s.io/client-go/util/exec"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/xebec-mesh/xebec/nodeagent/container"
	"github.com/xebec-mesh/xebec/nodeagent/logs"
	"github.com/xebec-mesh/xebec/nodeagent/pod"
	"github.com/xebec-mesh/xebec/nodeagent/probe"
)

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// session connects a client's streams to a container.
type session struct{ c pod.ContainerView }

// ExecInContainer runs a command.
func (s session) ExecInContainer(ctx context.Context, _, _, _ string, cmd []string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	st := container.Streams{In: in, TTY: tty}
	if out != nil {
		st.Out = out
	}
	if errOut != nil {
		st.Err = errOut
	}
	if tty {
		sizes := make(chan container.Size)
		st.Resize = sizes
		go relay(ctx, resize, func(z container.Size) {
			select {
			case sizes <- z:
			case <-ctx.Done():
			}
		})
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	code, err := s.c.Container.Exec(ctx, cmd, st)
	if err != nil {
		return err
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: code}
	}
	return nil
}

func relay(ctx context.Context, from <-chan remotecommand.TerminalSize, to func(container.Size)) {
	for {
		select {
		case z, ok := <-from:
			if !ok {
				return
			}
			to(container.Size{Width: z.Width, Height: z.Height})
		case <-ctx.Done():
			return
		}
	}
}

// AttachContainer joins a container's own streams, by the socket of its shim.
func (s session) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", s.c.Attach)
	if err != nil {
		return fmt.Errorf("attach to container %s: %w", s.c.Container.ID, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if tty {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go relay(ctx, resize, func(z container.Size) { _ = s.c.Container.Resize(ctx, z) })
	}
	if in != nil {
		go func() {
			_, _ = io.Copy(conn, in)
			if u, ok := conn.(*net.UnixConn); ok {
				_ = u.CloseWrite()
			}
		}()
	}
	if err := logs.ReadFrames(conn, writer(out), writer(errOut)); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

func writer(w io.WriteCloser) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// forward connects streams to a pod's ports, inside its network.
type forward struct{ v *pod.View }

// PortForward copies between a stream and a port.
func (f forward) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	conn, err := f.dial(ctx, uint16(port))
	if err != nil {
		return fmt.Errorf("forward to port %d of pod %s: %w", port, f.v.Pod.Name, err)
	}
	defer conn.Close()
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(stream, conn)
		stream.Close()
	})
	both.Go(func() {
		_, _ = io.Copy(conn, stream)
		if t, ok := conn.(*net.TCPConn); ok {
			_ = t.CloseWrite()
		}
	})
	both.Wait()
	return nil
}

// dial tries the pod's loopback, where applications that shun the world listen, and
// then its address.
func (f forward) dial(ctx context.Context, port uint16) (net.Conn, error) {
	var last error
	for _, ip := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), f.v.IP, netip.IPv6Loopback()} {
		if !ip.IsValid() {
			continue
		}
		c, err := probe.Dial(ctx, f.v.NetNS, netip.AddrPortFrom(ip, port))
		if err == nil {
			return c, nil
		}
		last = err
	}
	return nil, last
}
