package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// followed is how many CNAMEs lead on from one question.
const followed = 8

// server answers queries.
type server struct {
	zone    zone
	forward *forwarder
	log     *slog.Logger
}

// listen opens UDP and TCP on every address. SO_REUSEPORT lets the next program
// open them before this one closes them; IP_FREEBIND lets it come before the
// interface.
func listen(ctx context.Context, addrs []netip.AddrPort) (udp []net.PacketConn, tcp []net.Listener, err error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1))
		})
		return errors.Join(err, failed)
	}}
	for _, a := range addrs {
		p, err := lc.ListenPacket(ctx, "udp", a.String())
		if err != nil {
			return nil, nil, fmt.Errorf("listen on %s: %w", a, err)
		}
		udp = append(udp, p)
		l, err := lc.Listen(ctx, "tcp", a.String())
		if err != nil {
			return nil, nil, fmt.Errorf("listen on %s: %w", a, err)
		}
		tcp = append(tcp, l)
	}
	return udp, tcp, nil
}

// run serves until ctx ends.
func (s *server) run(ctx context.Context, udp []net.PacketConn, tcp []net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	var servers []*dns.Server
	for _, p := range udp {
		servers = append(servers, &dns.Server{PacketConn: p, Handler: s, UDPSize: ednsSize})
	}
	for _, l := range tcp {
		servers = append(servers, &dns.Server{Listener: l, Handler: s, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, MaxTCPQueries: 1024})
	}
	for _, d := range servers {
		g.Go(d.ActivateAndServe)
	}
	g.Go(func() error {
		<-ctx.Done()
		for _, d := range servers {
			_ = d.Shutdown()
		}
		return ctx.Err()
	})
	return g.Wait()
}

// ServeDNS answers one message.
func (s *server) ServeDNS(w dns.ResponseWriter, m *dns.Msg) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*askTimeout)
	defer cancel()
	r := s.respond(ctx, m)
	size := dns.MinMsgSize
	if opt := m.IsEdns0(); opt != nil {
		size = max(int(opt.UDPSize()), size)
		r.SetEdns0(ednsSize, opt.Do())
	}
	if _, tcp := w.RemoteAddr().(*net.TCPAddr); tcp {
		size = dns.MaxMsgSize
	}
	r.Compress = true
	r.Truncate(min(size, dns.MaxMsgSize))
	if err := w.WriteMsg(r); err != nil {
		s.log.Debug("answer not sent", "client", w.RemoteAddr().String(), "err", err)
	}
}

func (s *server) respond(ctx context.Context, m *dns.Msg) *dns.Msg {
	r := new(dns.Msg)
	r.SetReply(m)
	r.RecursionAvailable = true
	switch {
	case m.Opcode != dns.OpcodeQuery:
		r.Rcode = dns.RcodeNotImplemented
		return r
	case len(m.Question) != 1:
		r.Rcode = dns.RcodeFormatError
		return r
	case m.Question[0].Qclass != dns.ClassINET || m.Question[0].Qtype == dns.TypeAXFR || m.Question[0].Qtype == dns.TypeIXFR:
		r.Rcode = dns.RcodeRefused
		return r
	}
	s.resolve(ctx, r, m.Question[0], followed)
	return r
}

// resolve fills r with what is known of q, following CNAMEs.
func (s *server) resolve(ctx context.Context, r *dns.Msg, q dns.Question, hops int) {
	a := s.zone.answer(q)
	if a.forward {
		s.pass(ctx, r, q)
		return
	}
	if len(r.Answer) == 0 {
		r.Authoritative = true
	}
	r.Answer = append(r.Answer, a.answers...)
	r.Extra = append(r.Extra, a.extra...)
	switch {
	case a.follow != "" && hops > 0:
		s.resolve(ctx, r, dns.Question{Name: a.follow, Qtype: q.Qtype, Qclass: q.Qclass}, hops-1)
	case !a.exists:
		r.Rcode = dns.RcodeNameError
		r.Ns = []dns.RR{s.soa()}
	case len(a.answers) == 0:
		r.Ns = []dns.RR{s.soa()}
	}
}

func (s *server) soa() dns.RR {
	s.zone.table.mu.RLock()
	defer s.zone.table.mu.RUnlock()
	return s.zone.soa()
}

// pass asks upstream. A CNAME that leads out of the cluster is an answer even if
// its target cannot be found now.
func (s *server) pass(ctx context.Context, r *dns.Msg, q dns.Question) {
	m, err := s.forward.ask(ctx, q)
	if err != nil {
		if !errors.Is(err, errNoUpstream) {
			s.log.Debug("upstream", "name", q.Name, "err", err)
		}
		if len(r.Answer) == 0 {
			r.Rcode = dns.RcodeServerFailure
		}
		return
	}
	r.Rcode = m.Rcode
	r.Answer = append(r.Answer, m.Answer...)
	r.Ns = m.Ns
}
