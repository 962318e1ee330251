package dns

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

const (
	askTimeout  = 2 * time.Second
	askedAtOnce = 512
	cacheSize   = 8192
	cacheMost   = 5 * time.Minute
	ednsSize    = 1232 // https://www.dnsflagday.net/2020/
)

// errNoUpstream says that nobody can be asked about names outside the cluster.
var errNoUpstream = errors.New("no upstream DNS server")

// forwarder asks the upstream servers, each question once at a time, and keeps
// answers as long as they may be kept.
type forwarder struct {
	servers []netip.AddrPort
	asked   singleflight.Group
	slots   chan struct{}

	mu    sync.Mutex
	cache map[dns.Question]kept
}

type kept struct {
	msg   *dns.Msg
	at    time.Time
	until time.Time
}

func newForwarder(servers []netip.AddrPort) *forwarder {
	return &forwarder{servers: servers, slots: make(chan struct{}, askedAtOnce), cache: map[dns.Question]kept{}}
}

// ask returns an answer that belongs to the caller.
func (f *forwarder) ask(ctx context.Context, q dns.Question) (*dns.Msg, error) {
	q.Name = strings.ToLower(q.Name)
	if m := f.remembered(q, time.Now()); m != nil {
		return m, nil
	}
	if len(f.servers) == 0 {
		return nil, errNoUpstream
	}
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	default:
		return nil, errors.New("too many questions are under way")
	}
	v, err, _ := f.asked.Do(q.String(), func() (any, error) { return f.exchange(ctx, q) })
	if err != nil {
		return nil, err
	}
	m := v.(*dns.Msg)
	f.remember(q, m, time.Now())
	return m.Copy(), nil
}

// exchange tries each server in turn; the first that answers counts.
func (f *forwarder) exchange(ctx context.Context, q dns.Question) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(q.Name, q.Qtype)
	m.SetEdns0(ednsSize, false)
	var errs []error
	for _, server := range f.servers {
		udp := dns.Client{Timeout: askTimeout, UDPSize: ednsSize}
		r, _, err := udp.ExchangeContext(ctx, m, server.String())
		if err == nil && r.Truncated {
			tcp := dns.Client{Net: "tcp", Timeout: askTimeout}
			r, _, err = tcp.ExchangeContext(ctx, m, server.String())
		}
		if err == nil && r.Rcode != dns.RcodeServerFailure && r.Rcode != dns.RcodeRefused {
			return r, nil
		}
		if err == nil {
			err = errors.New(dns.RcodeToString[r.Rcode])
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// remembered is a kept answer with the rest of its lifetime.
func (f *forwarder) remembered(q dns.Question, now time.Time) *dns.Msg {
	f.mu.Lock()
	k, ok := f.cache[q]
	if ok && now.After(k.until) {
		delete(f.cache, q)
		ok = false
	}
	f.mu.Unlock()
	if !ok {
		return nil
	}
	m := k.msg.Copy()
	age := uint32(now.Sub(k.at).Seconds())
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if h := rr.Header(); h.Rrtype != dns.TypeOPT {
				h.Ttl -= min(age, h.Ttl)
			}
		}
	}
	return m
}

func (f *forwarder) remember(q dns.Question, m *dns.Msg, now time.Time) {
	keep := lifetime(m)
	if keep == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.cache) >= cacheSize {
		f.evict(now)
	}
	f.cache[q] = kept{msg: m.Copy(), at: now, until: now.Add(keep)}
}

// evict makes room: what has expired, and otherwise any eighth of the cache.
func (f *forwarder) evict(now time.Time) {
	n := 0
	for q, k := range f.cache {
		if now.After(k.until) || n < cacheSize/8 {
			delete(f.cache, q)
			n++
		}
	}
}

// lifetime is the smallest TTL of an answer, of the SOA for a negative one.
func lifetime(m *dns.Msg) time.Duration {
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return 0
	}
	least := cacheMost
	rrs := m.Answer
	if len(rrs) == 0 {
		if rrs = m.Ns; len(rrs) == 0 {
			return 0
		}
	}
	for _, rr := range rrs {
		d := time.Duration(rr.Header().Ttl) * time.Second
		if soa, ok := rr.(*dns.SOA); ok {
			d = min(d, time.Duration(soa.Minttl)*time.Second)
		}
		least = min(least, d)
	}
	return least
}

// upstreams reads the name servers of a resolv.conf(5), without our own addresses.
func upstreams(file string, own []netip.AddrPort) ([]netip.AddrPort, error) {
	c, err := dns.ClientConfigFromFile(file)
	if err != nil {
		return nil, err
	}
	var out []netip.AddrPort
servers:
	for _, s := range c.Servers {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			continue
		}
		for _, o := range own {
			if o.Addr() == addr {
				continue servers
			}
		}
		out = append(out, netip.AddrPortFrom(addr, 53))
	}
	return out, nil
}
