package xds

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/galley/config"
	"github.com/xebec-mesh/xebec/pilot/envoy"
	"github.com/xebec-mesh/xebec/pilot/model"
	"github.com/xebec-mesh/xebec/pilot/view"
)

// Rejection says that a proxy refused a resource, and which objects it was made from.
// Proxy is "" if the resource was found to be invalid before anybody was sent it.
type Rejection struct {
	Objects  []config.Ref
	Proxy    string // namespace/name of the pod
	TypeURL  string
	Resource string
	Detail   string
	Resolved bool // nobody is to have the resource any more, or it is another now
}

// Config is what a Server needs.
type Config struct {
	Settings model.Settings
	Report   func(Rejection) // called from one goroutine, must not block; nil: only logged
	Log      *slog.Logger
}

// Server is the control plane's side of all streams.
type Server struct {
	cfg  Config
	do   chan func(*engine)
	done chan struct{}
}

// New checks the configuration.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		return nil, errors.New("xds: Log is needed")
	}
	if cfg.Report == nil {
		cfg.Report = func(Rejection) {}
	}
	return &Server{cfg: cfg, do: make(chan func(*engine)), done: make(chan struct{})}, nil
}

// Run owns the views until ctx ends. Streams end with it.
func (s *Server) Run(ctx context.Context) error {
	defer close(s.done)
	e := &engine{
		cfg:     s.cfg,
		mesh:    model.Empty(s.cfg.Settings),
		cache:   envoy.NewCache(),
		shared:  map[view.Outbound]*shared{},
		proxies: map[*proxy]struct{}{},
		refused: map[*envoy.Resource]string{},
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-s.do:
			f(e)
		}
	}
}

var errStopped = errors.New("the control plane stops")

// call runs f in the engine and waits for it.
func (s *Server) call(f func(*engine)) error {
	ready := make(chan struct{})
	select {
	case s.do <- func(e *engine) { f(e); close(ready) }:
	case <-s.done:
		return errStopped
	}
	select {
	case <-ready:
		return nil
	case <-s.done:
		return errStopped
	}
}

// Update makes m the mesh, of which touched has changed. It returns when every stream
// has its new target; before the first call no stream is answered.
func (s *Server) Update(m *model.Mesh, touched []model.Key) {
	_ = s.call(func(e *engine) { e.update(m, touched) })
}

// Touched returns the resources that were rebuilt since it was last called, as
// "type name", for tests of what a change may cost.
func (s *Server) Touched() []string {
	var out []string
	_ = s.call(func(e *engine) { out = e.cache.Built() })
	return out
}

// Snapshots returns what the proxy of a pod is to have: what it can call, and what can call it.
func (s *Server) Snapshots(pod *corev1.Pod) (out, in *view.Snapshot, err error) {
	err = s.call(func(e *engine) {
		p := e.join(pod)
		t := p.target.Load()
		out, in = t.sources[0], t.sources[1]
		e.leave(p)
	})
	return out, in, err
}

// engine owns everything that changes.
type engine struct {
	cfg     Config
	mesh    *model.Mesh
	started bool // there has been an Update
	cache   *envoy.Cache
	shared  map[view.Outbound]*shared
	proxies map[*proxy]struct{}
	refused map[*envoy.Resource]string // reported, by which proxy
}

// shared is an outbound view with the proxies that have it.
type shared struct {
	key  view.Outbound
	view *view.View
	memo *memo
	refs int
}

// proxy is one pod with at least one stream.
type proxy struct {
	key      string
	fallback *model.Workload
	out      *shared
	in       *view.View
	memo     *memo
	target   atomic.Pointer[target]
	wake     chan struct{}
}

// target is what a proxy is to have. Nil sources: nothing is known yet.
type target struct {
	sources [2]*view.Snapshot // outbound, inbound
	memos   [2]*memo
}

func (e *engine) update(m *model.Mesh, touched []model.Key) {
	e.mesh, e.started = m, true
	changed := map[*shared]bool{}
	for _, s := range e.shared {
		if s.view.Update(m, touched, e.cache) {
			changed[s] = true
		}
	}
	everyone, some := regroup(touched)
	for p := range e.proxies {
		moved := false
		if everyone || some[p.key] || p.target.Load() == nil {
			moved = e.place(p)
		}
		if p.in.Update(m, touched, e.cache) || moved || changed[p.out] {
			p.publish()
		}
	}
	e.invalid()
	e.resolve()
	e.sweep()
}

// regroup says which proxies may now share another view: everybody if the rules for
// sharing changed, else those whose own pod did.
func regroup(touched []model.Key) (everyone bool, some map[string]bool) {
	some = map[string]bool{}
	for _, k := range touched {
		switch k.Kind {
		case model.KindSidecar, model.KindLabelKeys:
			everyone = true
		case model.KindWorkload:
			some[k.Name] = true
		}
	}
	return everyone, some
}

// place gives a proxy the outbound view that is right for it, and says whether it is another.
func (e *engine) place(p *proxy) bool {
	w := e.mesh.Workload(p.key)
	if w == nil {
		w = p.fallback
	}
	key := view.OutboundOf(e.mesh, w)
	if p.out != nil && p.out.key == key {
		return false
	}
	e.release(p.out)
	s := e.shared[key]
	if s == nil {
		s = &shared{key: key, view: view.NewOutbound(key), memo: &memo{}}
		s.view.Update(e.mesh, nil, e.cache)
		e.shared[key] = s
	}
	s.refs++
	p.out = s
	return true
}

func (e *engine) release(s *shared) {
	if s == nil {
		return
	}
	if s.refs--; s.refs == 0 {
		delete(e.shared, s.key)
	}
}

func (p *proxy) publish() {
	p.target.Store(&target{
		sources: [2]*view.Snapshot{p.out.view.Snapshot(), p.in.Snapshot()},
		memos:   [2]*memo{p.out.memo, p.memo},
	})
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (e *engine) join(pod *corev1.Pod) *proxy {
	w := model.WorkloadOf(pod)
	p := &proxy{key: w.Key(), fallback: w, memo: &memo{}, wake: make(chan struct{}, 1)}
	p.in = view.NewInbound(view.Inbound{Key: p.key, Fallback: w})
	e.proxies[p] = struct{}{}
	if e.started {
		e.place(p)
		p.in.Update(e.mesh, nil, e.cache)
		p.publish()
	}
	e.invalid()
	return p
}

func (e *engine) leave(p *proxy) {
	delete(e.proxies, p)
	e.release(p.out)
}

// resolve reports refusals that no view is concerned by any more.
func (e *engine) resolve() {
	for r, by := range e.refused {
		if !e.wanted(r) {
			delete(e.refused, r)
			e.cfg.Report(Rejection{Objects: r.Origins, Proxy: by, TypeURL: r.Type, Resource: r.Name, Resolved: true})
		}
	}
}

func (e *engine) wanted(r *envoy.Resource) bool {
	for _, s := range e.shared {
		if s.view.Wants(r) {
			return true
		}
	}
	for p := range e.proxies {
		if p.in.Wants(r) {
			return true
		}
	}
	return false
}

// reject takes a resource out of force for everybody, and tells whom it concerns.
func (e *engine) reject(proxy string, r *envoy.Resource, detail string) {
	if !r.Reject(detail) {
		return
	}
	e.report(proxy, r, detail)
	back := map[*shared]bool{}
	for _, s := range e.shared {
		back[s] = s.view.Refused(r)
	}
	for p := range e.proxies {
		if p.out != nil && (p.in.Refused(r) || back[p.out]) {
			p.publish()
		}
	}
}

func (e *engine) invalid() {
	for _, r := range e.cache.Invalid() {
		e.report("", r, r.Invalid.Error())
	}
}

func (e *engine) report(proxy string, r *envoy.Resource, detail string) {
	e.cfg.Log.Warn("resource refused", "proxy", proxy, "type", r.Type, "resource", r.Name, "objects", r.Origins, "detail", detail)
	e.refused[r] = proxy
	e.cfg.Report(Rejection{Objects: r.Origins, Proxy: proxy, TypeURL: r.Type, Resource: r.Name, Detail: detail})
}

// sweep forgets what no view holds, once that is the greater part of the cache.
func (e *engine) sweep() {
	if e.cache.Size() < e.cache.Kept()*2+4096 {
		return
	}
	held := map[*envoy.Resource]bool{}
	keep := func(r *envoy.Resource) { held[r] = true }
	for _, s := range e.shared {
		s.view.Holds(keep)
	}
	for p := range e.proxies {
		p.in.Holds(keep)
	}
	e.cache.Sweep(func(r *envoy.Resource) bool { return held[r] })
}
