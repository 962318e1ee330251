package xds

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	corev1 "k8s.io/api/core/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xebec-mesh/xebec/pilot/envoy"
)

// Indexes in envoy.Types.
const (
	clusters = iota
	endpoints
	listeners
	tables
	hosts
	kinds
)

// For returns the service for one pod's socket. The socket is the identity: whatever
// a client says about itself is ignored.
func (s *Server) For(pod *corev1.Pod) discovery.AggregatedDiscoveryServiceServer {
	return &podServer{s: s, pod: pod}
}

type podServer struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	s   *Server
	pod *corev1.Pod
}

// DeltaAggregatedResources serves one stream.
func (p *podServer) DeltaAggregatedResources(g discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	px, leave, err := p.enter()
	if err != nil {
		return err
	}
	defer leave()
	st := &stream{s: p.s, p: px, send: g.Send}
	for i := range st.watches {
		st.watches[i].kind = i
	}
	st.watches[hosts].tables = &st.watches[tables]
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

func (p *podServer) enter() (*proxy, func(), error) {
	var px *proxy
	if err := p.s.call(func(e *engine) { px = e.join(p.pod) }); err != nil {
		return nil, nil, status.Error(codes.Unavailable, err.Error())
	}
	return px, func() { _ = p.s.call(func(e *engine) { e.leave(px) }) }, nil
}

type received[T any] struct {
	msg T
	err error
}

// receive reads a stream until it ends. The channel is closed at a regular end.
func receive[T any](ctx context.Context, recv func() (T, error)) <-chan received[T] {
	out := make(chan received[T])
	go func() {
		defer close(out)
		for {
			m, err := recv()
			if errors.Is(err, io.EOF) || status.Code(err) == codes.Canceled {
				return
			}
			select {
			case out <- received[T]{m, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return out
}

// stream brings one proxy to its target.
type stream struct {
	s        *Server
	p        *proxy
	send     func(*discovery.DeltaDiscoveryResponse) error
	watches  [kinds]watch
	awaiting map[string]struct{} // clusters whose endpoints the client must still ask for
	nonce    uint64
	failed   error // ends the stream
}

// take notes what the client says.
func (st *stream) take(r *discovery.DeltaDiscoveryRequest) {
	kind := envoy.TypeIndex(r.GetTypeUrl())
	if kind < 0 {
		return // secrets and the like come from others
	}
	w := &st.watches[kind]
	if !w.open {
		w.open = true
		if len(r.GetInitialResourceVersions()) > 0 {
			w.known = r.GetInitialResourceVersions()
		}
		w.subscribe(r.GetResourceNamesSubscribe(), r.GetResourceNamesUnsubscribe(), true)
		if kind == clusters {
			st.expect(w.known)
		}
	} else {
		w.subscribe(r.GetResourceNamesSubscribe(), r.GetResourceNamesUnsubscribe(), false)
	}
	if kind == endpoints {
		for _, n := range r.GetResourceNamesSubscribe() {
			delete(st.awaiting, n)
		}
	}
	if w.flight != nil && r.GetResponseNonce() == w.flight.nonce {
		st.answer(w, r.GetErrorDetail().GetMessage(), r.GetErrorDetail() != nil)
	}
}

// expect makes a client that comes back ask for endpoints before it is sent routes.
func (st *stream) expect(known map[string]string) {
	t := st.p.target.Load()
	for name := range known {
		if t != nil && in(t, endpoints, name) {
			st.await(name)
			return
		}
	}
}

func (st *stream) await(name string) {
	if _, asked := st.watches[endpoints].names[name]; asked {
		return
	}
	if st.awaiting == nil {
		st.awaiting = map[string]struct{}{}
	}
	st.awaiting[name] = struct{}{}
}

// answer handles the client's yes or no.
func (st *stream) answer(w *watch, detail string, no bool) {
	f := w.flight
	w.flight = nil
	if !no {
		for _, r := range f.resources {
			r.Accept()
		}
		return
	}
	for _, r := range f.resources {
		delete(st.awaiting, r.Name)
	}
	switch len(f.resources) {
	case 0:
	case 1:
		st.refused(f.resources[0], detail)
	default:
		w.again = append(blame(f.resources, detail), w.again...)
	}
}

// refused takes a resource out of force for everybody, unless the proxy itself is to
// blame: others have the resource in force, or it failed on something around it. Then
// the stream is ended, so that the proxy comes back after a while and tries again.
func (st *stream) refused(r *envoy.Resource, detail string) {
	if r.Accepted() || strings.Contains(detail, "cannot bind") || strings.Contains(detail, "ddress already in use") {
		st.s.cfg.Log.Warn("proxy failed on a resource that is good elsewhere", "proxy", st.p.key, "resource", r.Name, "detail", detail)
		st.failed = status.Errorf(codes.Unavailable, "%s: %s", r.Name, detail)
		return
	}
	_ = st.s.call(func(e *engine) { e.reject(st.p.key, r, detail) })
}

// blame splits a refused response. Those that the answer names are sent alone; if it
// names none, halves are tried.
func blame(all []*envoy.Resource, detail string) [][]*envoy.Resource {
	var named [][]*envoy.Resource
	var rest []*envoy.Resource
	for _, r := range all {
		if strings.Contains(detail, r.Name) {
			named = append(named, []*envoy.Resource{r})
		} else {
			rest = append(rest, r)
		}
	}
	switch {
	case len(named) > 0 && len(rest) > 0:
		return append([][]*envoy.Resource{rest}, named...)
	case len(named) > 0:
		return named
	}
	return [][]*envoy.Resource{all[:len(all)/2], all[len(all)/2:]}
}

// advance sends whatever may be sent now.
func (st *stream) advance() error {
	if st.failed != nil {
		return st.failed
	}
	t := st.p.target.Load()
	if t == nil {
		return nil
	}
	for kind := range st.watches {
		w := &st.watches[kind]
		if !w.open || w.flight != nil || kind >= listeners && !st.foundation(t) {
			continue
		}
		if err := st.push(w, t); err != nil {
			return err
		}
	}
	return st.clean(t)
}

// foundation says whether everything that listeners and routes may refer to is in force.
func (st *stream) foundation(t *target) bool {
	return len(st.awaiting) == 0 && st.watches[clusters].settled(t) && st.watches[endpoints].settled(t)
}

func (st *stream) push(w *watch, t *target) error {
	for len(w.again) > 0 {
		part := current(w.again[0], t, w.kind)
		w.again = w.again[1:]
		if len(part) > 0 {
			return st.respond(w, &batch{resources: part, own: part})
		}
	}
	if w.settled(t) {
		return nil
	}
	asked := w.force // next leaves it alone and begins another
	b := w.next(t)
	switch w.kind {
	case clusters:
		st.clustersSent(w, b, t)
	case tables:
		st.tablesSent(b, asked)
	}
	if b.empty() {
		return nil
	}
	return st.respond(w, b)
}

// current leaves out what is no longer wanted.
func current(rs []*envoy.Resource, t *target, kind int) []*envoy.Resource {
	var out []*envoy.Resource
	for _, r := range rs {
		for _, s := range t.sources {
			if now, _ := s.Sets[kind].Get(r.Name); now == r && r.Rejected() == "" {
				out = append(out, r)
			}
		}
	}
	return out
}

// clustersSent puts off removals, and sees to the endpoints of what is sent: Envoy
// warms a cluster that is new or changed until it gets endpoints, and does not ask
// again for those of a changed one.
func (st *stream) clustersSent(w *watch, b *batch, t *target) {
	if w.linger == nil {
		w.linger = map[string]struct{}{}
	}
	for _, name := range b.removed {
		w.linger[name] = struct{}{}
	}
	b.removed = nil
	eds := &st.watches[endpoints]
	for _, r := range b.resources {
		delete(w.linger, r.Name)
		if !in(t, endpoints, r.Name) {
			continue
		}
		if _, asked := eds.names[r.Name]; asked {
			eds.force[r.Name] = struct{}{}
		} else if eds.open {
			st.await(r.Name)
		}
	}
}

// tablesSent sees to the virtual hosts of tables that the client did not have: Envoy
// does not ask for them, and drops those that come before their table.
func (st *stream) tablesSent(b *batch, asked map[string]struct{}) {
	vh := &st.watches[hosts]
	if !vh.open {
		return // all will be sent when it is
	}
	for _, r := range b.resources {
		if _, first := asked[r.Name]; first {
			vh.force[r.Name] = struct{}{}
		}
	}
}

// clean removes clusters that nothing refers to any more.
func (st *stream) clean(t *target) error {
	w := &st.watches[clusters]
	if len(w.linger) == 0 {
		return nil
	}
	for kind := range st.watches {
		if !st.watches[kind].settled(t) {
			return nil
		}
	}
	b := &batch{}
	for name := range w.linger {
		if !in(t, clusters, name) {
			b.removed = append(b.removed, name)
		}
		delete(st.awaiting, name)
	}
	clear(w.linger)
	if b.empty() {
		return nil
	}
	return st.respond(w, b)
}

// respond sends a batch. Its encoded parts go in as unknown fields, which gRPC copies
// as they are: on the wire there is no difference, and nothing is encoded twice.
func (st *stream) respond(w *watch, b *batch) error {
	st.nonce++
	w.flight = &flight{nonce: strconv.FormatUint(st.nonce, 10), resources: b.resources}
	m := &discovery.DeltaDiscoveryResponse{
		TypeUrl:           envoy.Types[w.kind],
		Nonce:             w.flight.nonce,
		SystemVersionInfo: strconv.FormatUint(st.p.target.Load().sources[0].Revision, 10),
	}
	m.ProtoReflect().SetUnknown(b.wire())
	return st.send(m)
}
