package socket

import (
	"bufio"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// greeting is how long a connection may take to say what it speaks.
const greeting = 10 * time.Second

// preface begins every HTTP/2 connection (RFC 9113 section 3.4); the shortest
// HTTP/1 request is longer than what is compared of it.
const preface = "PRI * HTTP/2.0"

// server answers one pod's socket: gRPC, and HTTP/1 beside it.
type server struct {
	grpc *grpc.Server
	http *http.Server // nil: gRPC only
}

// serve accepts until stop.
func (s *server) serve(l net.Listener, log *slog.Logger) {
	if s.http == nil {
		report(log, s.grpc.Serve(l))
		return
	}
	one, two := branch(l), branch(l)
	go func() { report(log, s.http.Serve(one)) }()
	go func() { report(log, s.grpc.Serve(two)) }()
	for {
		c, err := l.Accept()
		if err != nil {
			one.Close()
			two.Close()
			return
		}
		go func() {
			p := &peeked{Conn: c, r: bufio.NewReaderSize(c, 512)}
			_ = c.SetReadDeadline(time.Now().Add(greeting))
			first, err := p.r.Peek(len(preface))
			_ = c.SetReadDeadline(time.Time{})
			switch {
			case err != nil:
				c.Close()
			case strings.HasPrefix(preface, string(first)):
				two.give(p)
			default:
				one.give(p)
			}
		}()
	}
}

func report(log *slog.Logger, err error) {
	if err != nil && !errors.Is(err, grpc.ErrServerStopped) && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		log.Error("serve pod socket", "err", err)
	}
}

func (s *server) stop() {
	if s.http != nil {
		_ = s.http.Close()
	}
	s.grpc.Stop()
}

// peeked is a connection of which the first bytes have been read.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// branched is a listener that is given its connections.
type branched struct {
	of    net.Listener
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func branch(of net.Listener) *branched {
	return &branched{of: of, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (b *branched) give(c net.Conn) {
	select {
	case b.conns <- c:
	case <-b.done:
		c.Close()
	}
}

// Accept waits for a connection.
func (b *branched) Accept() (net.Conn, error) {
	select {
	case c := <-b.conns:
		return c, nil
	case <-b.done:
		return nil, net.ErrClosed
	}
}

// Close ends both branches, since they stop together.
func (b *branched) Close() error {
	b.once.Do(func() { close(b.done) })
	return b.of.Close()
}

// Addr is the socket's.
func (b *branched) Addr() net.Addr { return b.of.Addr() }
