// Package exec is the node's HTTPS server: logs, exec, attach and port-forward.
//
//	in:   requests that the API server passes on, with its client certificate
//	out:  streams to and from containers
//
// Paths and parameters are the kubelet's, so that any API server can call it. Only
// holders of a certificate of the cluster's CA with one of the allowed names get in.
package exec

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/xebec-mesh/xebec/nodeagent/logs"
	"github.com/xebec-mesh/xebec/nodeagent/pod"
)

const (
	idleTimeout     = 4 * time.Hour
	creationTimeout = 30 * time.Second
)

// Pods finds the pods of this node.
type Pods interface {
	Find(ctx context.Context, namespace, name string) (*pod.View, error)
	List() []*corev1.Pod
}

// Config says where to listen and whom to let in.
type Config struct {
	Listen string      // default :10250
	TLS    *tls.Config // server certificate and ClientCAs; nil only in tests
	Names  []string    // common names or organisations that may call; empty: whoever the CA signed
	Pods   Pods

	Healthy func() error              // for /healthz
	Metrics func(w io.Writer)         // for /metrics
	Stats   func(context.Context) any // for /stats/summary
	Log     *slog.Logger
}

// Server serves.
type Server struct {
	cfg      Config
	listener net.Listener
}

// New checks the configuration and opens the port, so that the node can announce it.
func New(cfg Config) (*Server, error) {
	if cfg.Pods == nil {
		return nil, errors.New("configure node server: Pods is needed")
	}
	if cfg.Listen == "" {
		cfg.Listen = ":10250"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for the node server: %w", err)
	}
	return &Server{cfg: cfg, listener: l}, nil
}

// Port is where it listens.
func (s *Server) Port() int32 { return int32(s.listener.Addr().(*net.TCPAddr).Port) }

// Run serves until ctx ends, and then ends all streams.
func (s *Server) Run(ctx context.Context) error {
	l := s.listener
	if s.cfg.TLS != nil {
		c := s.cfg.TLS.Clone()
		c.ClientAuth = tls.RequireAndVerifyClientCert
		c.NextProtos = []string{"http/1.1"} // SPDY and WebSocket upgrade connections
		l = tls.NewListener(l, c)
	}
	srv := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: 30 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the node server: %w", err)
	}
	return nil
}

// Handler is what is served.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /pods", s.pods)
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /stats/summary", s.stats)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)
	for _, p := range []string{"/{namespace}/{pod}/{container}", "/{namespace}/{pod}/{uid}/{container}"} {
		mux.HandleFunc("/exec"+p, s.exec)
		mux.HandleFunc("/attach"+p, s.attach)
	}
	mux.HandleFunc("/portForward/{namespace}/{pod}", s.portForward)
	mux.HandleFunc("/portForward/{namespace}/{pod}/{uid}", s.portForward)
	return s.allow(mux)
}

// allow lets in those whose certificate names them.
func (s *Server) allow(next http.Handler) http.Handler {
	if s.cfg.TLS == nil || len(s.cfg.Names) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			http.Error(w, "a client certificate is needed", http.StatusUnauthorized)
			return
		}
		who := r.TLS.PeerCertificates[0].Subject
		allowed := func(name string) bool { return slices.Contains(s.cfg.Names, name) }
		if !allowed(who.CommonName) && !slices.ContainsFunc(who.Organization, allowed) {
			http.Error(w, fmt.Sprintf("user %q may not use the node's API", who.CommonName), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	if s.cfg.Healthy != nil {
		if err := s.cfg.Healthy(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	_, _ = io.WriteString(w, "ok")
}

func (s *Server) pods(w http.ResponseWriter, _ *http.Request) {
	list := corev1.PodList{}
	list.APIVersion, list.Kind = "v1", "PodList"
	for _, p := range s.cfg.Pods.List() {
		list.Items = append(list.Items, *p)
	}
	writeJSON(w, list)
}

func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	if s.cfg.Metrics != nil {
		s.cfg.Metrics(w)
	}
}

func (s *Server) stats(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Stats == nil {
		http.NotFound(w, r)
		return
	}
	writeJSON(w, s.cfg.Stats(r.Context()))
}

// find finds the pod and container of a request, or answers it with what is wrong.
func (s *Server) find(w http.ResponseWriter, r *http.Request) (*pod.View, pod.ContainerView, bool) {
	v, err := s.cfg.Pods.Find(r.Context(), r.PathValue("namespace"), r.PathValue("pod"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return nil, pod.ContainerView{}, false
	}
	name := r.PathValue("container")
	c, ok := v.Containers[name]
	if name != "" && !ok {
		if declared(v.Pod, name) {
			return v, pod.ContainerView{}, true
		}
		http.Error(w, fmt.Sprintf("container %q not found in pod %q", name, v.Pod.Name), http.StatusNotFound)
		return nil, pod.ContainerView{}, false
	}
	return v, c, true
}

func declared(p *corev1.Pod, name string) bool {
	is := func(c corev1.Container) bool { return c.Name == name }
	return slices.ContainsFunc(p.Spec.Containers, is) || slices.ContainsFunc(p.Spec.InitContainers, is)
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	v, c, ok := s.find(w, r)
	if !ok {
		return
	}
	q, previous, err := query(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	path := c.Log
	if previous {
		if path = c.Previous; path == "" {
			http.Error(w, fmt.Sprintf("previous terminated container %q in pod %q not found", r.PathValue("container"), v.Pod.Name), http.StatusBadRequest)
			return
		}
		q.Follow = false
	}
	if path == "" {
		http.Error(w, fmt.Sprintf("container %q in pod %q is waiting to start: %s", r.PathValue("container"), v.Pod.Name, why(v.Pod, r.PathValue("container"))), http.StatusBadRequest)
		return
	}
	q.Ended = c.Ended
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Transfer-Encoding", "chunked")
	out := &flusher{w: w, c: http.NewResponseController(w)}
	if q.Follow {
		w.WriteHeader(http.StatusOK)
		_ = out.c.Flush()
	}
	if err := logs.Read(r.Context(), path, q, out, out); err != nil && !out.wrote {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// why is the reason that a container waits for, as its status has it.
func why(p *corev1.Pod, name string) string {
	for _, list := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses} {
		for _, c := range list {
			if c.Name == name && c.State.Waiting != nil {
				return c.State.Waiting.Reason
			}
		}
	}
	return "ContainerCreating"
}

// flusher sends each line on at once.
type flusher struct {
	w     io.Writer
	c     *http.ResponseController
	wrote bool
}

func (f *flusher) Write(b []byte) (int, error) {
	f.wrote = true
	n, err := f.w.Write(b)
	if err == nil {
		err = f.c.Flush()
	}
	return n, err
}

// query reads the parameters of a request for logs.
func query(r *http.Request) (q logs.Query, previous bool, err error) {
	f := r.URL.Query()
	q.Tail = -1
	number := func(name string, min int64) (int64, bool) {
		text := f.Get(name)
		if text == "" || err != nil {
			return 0, false
		}
		n, perr := strconv.ParseInt(text, 10, 64)
		if perr != nil || n < min {
			err = fmt.Errorf("%s: %q: want a number of at least %d", name, text, min)
			return 0, false
		}
		return n, true
	}
	if n, ok := number("tailLines", 0); ok {
		q.Tail = n
	}
	if n, ok := number("limitBytes", 1); ok {
		q.LimitBytes = n
	}
	if n, ok := number("sinceSeconds", 1); ok {
		q.Since = time.Now().Add(-time.Duration(n) * time.Second)
	}
	if t := f.Get("sinceTime"); t != "" && err == nil {
		if q.Since, err = time.Parse(time.RFC3339, t); err != nil {
			err = fmt.Errorf("sinceTime: %q: want a time by RFC 3339", t)
		}
	}
	q.Follow, q.Timestamps, previous = truth(f.Get("follow")), truth(f.Get("timestamps")), truth(f.Get("previous"))
	switch f.Get("stream") {
	case "Stdout":
		q.Stream = "stdout"
	case "Stderr":
		q.Stream = "stderr"
	}
	return q, previous, err
}

func truth(s string) bool { return s == "true" || s == "1" }

// options are the streams that a request wants, by the kubelet's names or the
// API's.
func options(r *http.Request) (*remotecommand.Options, error) {
	f := r.URL.Query()
	any := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return truth(f.Get(n)) })
	}
	o := &remotecommand.Options{
		Stdin: any("input", "stdin"), Stdout: any("output", "stdout"), Stderr: any("error", "stderr"), TTY: any("tty"),
	}
	if o.TTY {
		o.Stderr = false // a terminal has one output
	}
	if !o.Stdin && !o.Stdout && !o.Stderr {
		return nil, errors.New("you must specify at least 1 of stdin, stdout, stderr")
	}
	return o, nil
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	v, c, ok := s.find(w, r)
	if !ok {
		return
	}
	opts, err := options(r)
	command := r.URL.Query()["command"]
	switch {
	case err != nil:
	case len(command) == 0:
		err = errors.New("you must specify a command")
	case c.Container == nil:
		err = fmt.Errorf("container %q of pod %q does not run", r.PathValue("container"), v.Pod.Name)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeExec(w, r, session{c}, v.Pod.Name, string(v.Pod.UID), r.PathValue("container"), command, opts,
		idleTimeout, creationTimeout, remotecommand.SupportedStreamingProtocols)
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	v, c, ok := s.find(w, r)
	if !ok {
		return
	}
	opts, err := options(r)
	if err == nil && c.Container == nil {
		err = fmt.Errorf("container %q of pod %q does not run", r.PathValue("container"), v.Pod.Name)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeAttach(w, r, session{c}, v.Pod.Name, string(v.Pod.UID), r.PathValue("container"), opts,
		idleTimeout, creationTimeout, remotecommand.SupportedStreamingProtocols)
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	v, _, ok := s.find(w, r)
	if !ok {
		return
	}
	opts, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(w, r, forward{v}, v.Pod.Name, string(v.Pod.UID), opts, idleTimeout, creationTimeout, portforward.SupportedProtocols)
}
