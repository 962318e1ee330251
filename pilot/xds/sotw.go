package xds

import (
	"encoding/hex"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-mesh/xebec/pilot/envoy"
)

// StreamAggregatedResources serves one stream in the state-of-the-world variant: each
// response holds everything of its type that the client asked for. Virtual hosts
// have no variant of their own there; they come within their tables.
func (p *podServer) StreamAggregatedResources(g discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	px, leave, err := p.enter()
	if err != nil {
		return err
	}
	defer leave()
	st := &worldStream{s: p.s, p: px, send: g.Send}
	for i := range st.watches {
		st.watches[i].kind = i
	}
	requests := receive(g.Context(), g.Recv)
	for {
		select {
		case <-p.s.done:
			return status.Error(codes.Unavailable, errStopped.Error())
		case r, ok := <-requests:
			if !ok {
				return nil
			}
			if r.err != nil {
				return r.err
			}
			st.take(r.msg)
		case <-px.wake:
		}
		if err := st.advance(); err != nil {
			return err
		}
	}
}

// worldWatch is what a stream knows about one type.
type worldWatch struct {
	kind    int
	open    bool
	names   []string // empty: all
	again   bool     // send whether it changed or not
	version string   // of what was sent last
	sent    []*envoy.Resource
	nonce   string // sent and not yet answered
}

type worldStream struct {
	s       *Server
	p       *proxy
	send    func(*discovery.DiscoveryResponse) error
	watches [hosts]worldWatch // all but virtual hosts
	count   uint64
}

func (st *worldStream) take(r *discovery.DiscoveryRequest) {
	kind := envoy.TypeIndex(r.GetTypeUrl())
	if kind < 0 || kind >= hosts {
		return
	}
	w := &st.watches[kind]
	if w.nonce != "" && r.GetResponseNonce() == w.nonce {
		w.nonce = ""
		st.answer(w, r)
	} else if r.GetResponseNonce() != "" && w.open {
		return // to a response that has been overtaken
	}
	names := slices.Sorted(slices.Values(r.GetResourceNames()))
	if !w.open || !slices.Equal(names, w.names) {
		w.again = true
	}
	w.open, w.names = true, names
}

// answer notes a yes; a no is reported for all that the response may have failed by.
func (st *worldStream) answer(w *worldWatch, r *discovery.DiscoveryRequest) {
	if r.GetErrorDetail() == nil {
		for _, res := range w.sent {
			res.Accept()
		}
		return
	}
	detail := r.GetErrorDetail().GetMessage()
	for _, res := range w.sent {
		if len(w.sent) == 1 || strings.Contains(detail, res.Name) {
			_ = st.s.call(func(e *engine) { e.report(st.p.key, res, detail) })
		}
	}
}

func (st *worldStream) advance() error {
	t := st.p.target.Load()
	if t == nil {
		return nil
	}
	for kind := range st.watches {
		w := &st.watches[kind]
		if !w.open || w.nonce != "" || kind >= listeners && !st.foundation(t) {
			continue
		}
		list := st.list(w, t)
		if kind == clusters && !st.referring(t) {
			list = st.lingering(w, list)
		}
		if v := versionOf(list); w.again || v != w.version {
			if err := st.respond(w, list, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// foundation says whether clusters and endpoints are in force. Clients that ask for
// clusters by name, as gRPC does, ask from the listener down and need no such order.
func (st *worldStream) foundation(t *target) bool {
	c := &st.watches[clusters]
	return !c.open || len(c.names) > 0 || c.nonce == "" && st.watches[endpoints].nonce == ""
}

// referring says whether listeners and tables no longer refer to what is to be removed.
func (st *worldStream) referring(t *target) bool {
	for _, kind := range []int{listeners, tables} {
		w := &st.watches[kind]
		if w.open && (w.nonce != "" || versionOf(st.list(w, t)) != w.version) {
			return false
		}
	}
	return true
}

// lingering keeps clusters that were sent until nothing refers to them.
func (st *worldStream) lingering(w *worldWatch, list []*envoy.Resource) []*envoy.Resource {
	have := map[string]bool{}
	for _, r := range list {
		have[r.Name] = true
	}
	for _, r := range w.sent {
		if !have[r.Name] {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, byName)
	return list
}

func byName(a, b *envoy.Resource) int { return strings.Compare(a.Name, b.Name) }

// list gathers what the client is to have.
func (st *worldStream) list(w *worldWatch, t *target) []*envoy.Resource {
	var out []*envoy.Resource
	add := func(r *envoy.Resource) {
		if r.Rejected() != "" {
			return
		}
		if w.kind == tables {
			r = inline(r, t)
		}
		out = append(out, r)
	}
	for _, s := range t.sources {
		if len(w.names) == 0 {
			for _, r := range s.Sets[w.kind].All() {
				add(r)
			}
			continue
		}
		for _, n := range w.names {
			if r, ok := s.Sets[w.kind].Get(n); ok {
				add(r)
			}
		}
	}
	slices.SortFunc(out, byName)
	return out
}

// inline puts a table's virtual hosts into it.
func inline(table *envoy.Resource, t *target) *envoy.Resource {
	var parts []*envoy.Resource
	for _, s := range t.sources {
		for name, r := range s.Sets[hosts].All() {
			if strings.LastIndexByte(name, '/') == len(table.Name) && strings.HasPrefix(name, table.Name) && r.Rejected() == "" {
				parts = append(parts, r)
			}
		}
	}
	slices.SortFunc(parts, byName)
	var rc route.RouteConfiguration
	if err := proto.Unmarshal(table.Body, &rc); err != nil {
		return table
	}
	rc.Vhds = nil
	out := &envoy.Resource{Type: table.Type, Name: table.Name, Origins: slices.Clone(table.Origins)}
	for _, p := range parts {
		vh := &route.VirtualHost{}
		if err := proto.Unmarshal(p.Body, vh); err == nil {
			rc.VirtualHosts = append(rc.VirtualHosts, vh)
			out.Origins = append(out.Origins, p.Origins...)
		}
	}
	out.Body = envoy.MustAny(&rc).GetValue()
	out.Version = table.Version + versionOf(parts)
	return out
}

func versionOf(list []*envoy.Resource) string {
	h := fnv.New128a()
	for _, r := range list {
		h.Write([]byte(r.Name))
		h.Write([]byte(r.Version))
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (st *worldStream) respond(w *worldWatch, list []*envoy.Resource, version string) error {
	st.count++
	w.nonce, w.version, w.again, w.sent = strconv.FormatUint(st.count, 10), version, false, list
	m := &discovery.DiscoveryResponse{TypeUrl: envoy.Types[w.kind], Nonce: w.nonce, VersionInfo: version}
	for _, r := range list {
		m.Resources = append(m.Resources, r.Any())
	}
	return st.send(m)
}
