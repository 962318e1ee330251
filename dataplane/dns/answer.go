package dns

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// reply is what the table has to say of one question.
type reply struct {
	answers []dns.RR
	extra   []dns.RR
	exists  bool   // the name is there, if perhaps not with this type
	forward bool   // not a name of the cluster
	follow  string // a CNAME's target, to be asked for
}

// zone answers questions about names at and below domain, which ends with a dot.
type zone struct {
	domain string
	table  *table
}

// answer looks a question up. It only reads.
func (z *zone) answer(q dns.Question) reply {
	name := strings.ToLower(q.Name)
	z.table.mu.RLock()
	defer z.table.mu.RUnlock()
	if strings.HasSuffix(name, ".in-addr.arpa.") || strings.HasSuffix(name, ".ip6.arpa.") {
		return z.pointer(q, name)
	}
	below, ok := strings.CutSuffix(name, z.domain)
	if !ok || (below != "" && !strings.HasSuffix(below, ".")) {
		return reply{forward: true}
	}
	labels := strings.Split(strings.TrimSuffix(below, "."), ".")
	slices.Reverse(labels)
	switch {
	case below == "":
		return z.apex(q)
	case below == "dns-version.":
		return only(q, dns.TypeTXT, &dns.TXT{Txt: []string{schema}})
	case labels[0] == "svc":
		return z.below(q, labels[1:])
	case labels[0] == "pod":
		return z.pod(q, labels[1:])
	}
	return reply{}
}

func (z *zone) apex(q dns.Question) reply {
	switch q.Qtype {
	case dns.TypeSOA:
		return reply{exists: true, answers: []dns.RR{z.soa()}}
	case dns.TypeNS:
		return only(q, dns.TypeNS, &dns.NS{Ns: "ns.dns." + z.domain})
	}
	return reply{exists: true}
}

// below answers for namespaces, services, their endpoints and ports; labels come
// the outermost first: ns, service, then endpoint or _protocol, _port.
func (z *zone) below(q dns.Question, labels []string) reply {
	if len(labels) == 0 {
		return reply{exists: true}
	}
	if len(labels) == 1 {
		return reply{exists: z.table.namespaces[labels[0]] > 0}
	}
	s := z.table.services[Key{labels[0], labels[1]}]
	if s == nil {
		return reply{}
	}
	at := labels[1] + "." + labels[0] + ".svc." + z.domain
	switch {
	case s.ExternalName != "":
		if len(labels) > 2 {
			return reply{}
		}
		return external(q, s)
	case len(labels) == 2:
		return z.service(q, s, at)
	case len(labels) == 3 && !strings.HasPrefix(labels[2], "_"):
		return z.endpoint(q, s, labels[2])
	case strings.HasPrefix(labels[2], "_") && len(labels) <= 4:
		port := ""
		if len(labels) == 4 {
			port = labels[3]
		}
		return z.ports(q, s, at, labels[2], port)
	}
	return reply{}
}

func external(q dns.Question, s *Service) reply {
	target := dns.Fqdn(s.ExternalName)
	r := reply{exists: true, answers: []dns.RR{head(&dns.CNAME{Target: target}, q.Name, dns.TypeCNAME)}}
	if q.Qtype != dns.TypeCNAME {
		r.follow = target
	}
	return r
}

func (z *zone) service(q dns.Question, s *Service, at string) reply {
	r := reply{exists: true}
	switch q.Qtype {
	case dns.TypeA, dns.TypeAAAA, dns.TypeANY:
		for _, a := range addresses(s) {
			r.answers = appendAddress(r.answers, q, q.Name, a)
		}
		rand.Shuffle(len(r.answers), func(i, j int) { r.answers[i], r.answers[j] = r.answers[j], r.answers[i] })
	case dns.TypeSRV:
		return z.ports(q, s, at, "", "")
	}
	return r
}

func addresses(s *Service) []netip.Addr {
	if len(s.Addrs) > 0 {
		return s.Addrs
	}
	out := make([]netip.Addr, 0, len(s.Endpoints))
	for i := range s.Endpoints {
		out = append(out, s.Endpoints[i].Addr)
	}
	return out
}

func (z *zone) endpoint(q dns.Question, s *Service, name string) reply {
	var r reply
	for i := range s.Endpoints {
		if e := &s.Endpoints[i]; label(e) == name {
			r.exists = true
			r.answers = appendAddress(r.answers, q, q.Name, e.Addr)
		}
	}
	return r
}

// ports answers SRV: of one named port, or of all where proto is "".
func (z *zone) ports(q dns.Question, s *Service, at, proto, port string) reply {
	var r reply
	add := func(p *Port, target string, addr netip.Addr) {
		if p.Name == "" || (proto != "" && "_"+strings.ToLower(p.Protocol) != proto) || (port != "" && "_"+strings.ToLower(p.Name) != port) {
			return
		}
		r.exists = true
		if q.Qtype != dns.TypeSRV || (proto != "" && port == "") {
			return
		}
		r.answers = append(r.answers, head(&dns.SRV{Weight: 100, Port: p.Port, Target: target}, q.Name, dns.TypeSRV))
		r.extra = appendAddress(r.extra, dns.Question{Qtype: dns.TypeANY}, target, addr)
	}
	if len(s.Addrs) > 0 {
		for i := range s.Ports {
			add(&s.Ports[i], at, s.Addrs[0])
		}
	} else {
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			for j := range e.Ports {
				add(&e.Ports[j], label(e)+"."+at, e.Addr)
			}
		}
	}
	if proto == "" {
		r.exists = true
	}
	for i := range r.answers {
		r.answers[i].(*dns.SRV).Weight = uint16(100 / len(r.answers))
	}
	return r
}

// pod answers for an address that is written as a name: 10-244-0-7.default.pod.
func (z *zone) pod(q dns.Question, labels []string) reply {
	switch {
	case len(labels) == 0:
		return reply{exists: true}
	case z.table.namespaces[labels[0]] == 0:
		return reply{}
	case len(labels) == 1:
		return reply{exists: true}
	case len(labels) > 2:
		return reply{}
	}
	addr, err := netip.ParseAddr(strings.ReplaceAll(labels[1], "-", "."))
	if err != nil {
		addr, err = netip.ParseAddr(strings.ReplaceAll(labels[1], "-", ":"))
	}
	if err != nil {
		return reply{}
	}
	return reply{exists: true, answers: appendAddress(nil, q, q.Name, addr)}
}

// pointer answers a reverse query for an address of the cluster.
func (z *zone) pointer(q dns.Question, name string) reply {
	addr, ok := reverseAddr(name)
	if !ok || len(z.table.reverse[addr]) == 0 {
		return reply{forward: true}
	}
	r := reply{exists: true}
	if q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY {
		for _, target := range z.table.reverse[addr] {
			r.answers = append(r.answers, head(&dns.PTR{Ptr: target + z.domain}, q.Name, dns.TypePTR))
		}
	}
	return r
}

// reverseAddr parses a name of RFC 1035 section 3.5 or RFC 3596 section 2.5.
func reverseAddr(name string) (netip.Addr, bool) {
	if text, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		parts := strings.Split(text, ".")
		slices.Reverse(parts)
		addr, err := netip.ParseAddr(strings.Join(parts, "."))
		return addr, err == nil && addr.Is4()
	}
	nibbles := strings.Split(strings.TrimSuffix(name, ".ip6.arpa."), ".")
	if len(nibbles) != 32 {
		return netip.Addr{}, false
	}
	slices.Reverse(nibbles)
	var b strings.Builder
	for i, n := range nibbles {
		if len(n) != 1 {
			return netip.Addr{}, false
		}
		if i > 0 && i%4 == 0 {
			b.WriteByte(':')
		}
		b.WriteString(n)
	}
	addr, err := netip.ParseAddr(b.String())
	return addr, err == nil
}

// soa is the zone's, and goes along with every negative answer (RFC 2308).
func (z *zone) soa() dns.RR {
	return head(&dns.SOA{
		Ns: "ns.dns." + z.domain, Mbox: "hostmaster." + z.domain,
		Serial: uint32(z.table.generation), Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
	}, z.domain, dns.TypeSOA)
}

func only(q dns.Question, t uint16, rr dns.RR) reply {
	r := reply{exists: true}
	if q.Qtype == t || q.Qtype == dns.TypeANY {
		r.answers = []dns.RR{head(rr, q.Name, t)}
	}
	return r
}

func head(rr dns.RR, name string, t uint16) dns.RR {
	*rr.Header() = dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: ttl}
	return rr
}

func appendAddress(rrs []dns.RR, q dns.Question, name string, a netip.Addr) []dns.RR {
	a = a.Unmap()
	switch {
	case a.Is4() && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY):
		return append(rrs, head(&dns.A{A: net.IP(a.AsSlice())}, name, dns.TypeA))
	case a.Is6() && (q.Qtype == dns.TypeAAAA || q.Qtype == dns.TypeANY):
		return append(rrs, head(&dns.AAAA{AAAA: net.IP(a.AsSlice())}, name, dns.TypeAAAA))
	}
	return rrs
}
