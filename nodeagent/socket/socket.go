// Package socket is what the agent offers inside meshed pods: a gRPC server on a
// Unix socket, over which the sidecar gets its configuration and certificates.
//
//	in:   meshed pods; the services that cmd binds to each one's identity
//	out:  one directory for each pod with agent.sock and bootstrap.json
//
// The socket is the pod's identity: who can open it is in the pod, so nothing that a
// client says about itself is believed. The directory is mounted, not the socket:
// an agent that starts anew puts a new one in its place, and the sidecar, which
// never lost its listeners, connects again.
package socket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	agentSocket = "agent.sock"
	bootstrap   = "bootstrap.json"
)

// Config says what the sockets serve.
type Config struct {
	Dir string // a directory for each pod below it; must outlive the agent

	// Services registers what a pod may use, bound to that pod.
	Services func(reg grpc.ServiceRegistrar, pod *corev1.Pod)

	// HTTP answers what comes over the same socket as HTTP/1; nil: nothing does.
	HTTP func(pod *corev1.Pod) http.Handler

	// Bootstrap is the sidecar's bootstrap configuration. The pod has its addresses.
	Bootstrap func(pod *corev1.Pod) ([]byte, error)

	Log *slog.Logger
}

// Sockets is all pods' sockets.
type Sockets struct {
	cfg Config
	mu  sync.Mutex
	by  map[types.UID]*server
}

// New checks the configuration.
func New(cfg Config) (*Sockets, error) {
	if cfg.Dir == "" || cfg.Services == nil || cfg.Bootstrap == nil {
		return nil, errors.New("configure pod sockets: Dir, Services and Bootstrap are needed")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Sockets{cfg: cfg, by: map[types.UID]*server{}}, nil
}

// Dir is where a pod's socket is.
func (s *Sockets) Dir(uid types.UID) string { return filepath.Join(s.cfg.Dir, string(uid)) }

// Make makes a pod's directory and returns it.
func (s *Sockets) Make(uid types.UID) (string, error) {
	dir := s.Dir(uid)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make socket directory of pod %s: %w", uid, err)
	}
	return dir, nil
}

// Serve writes a pod's bootstrap and serves its socket. The pod must have its
// addresses in its status. A pod that is served stays so.
func (s *Sockets) Serve(pod *corev1.Pod) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by[pod.UID] != nil {
		return nil
	}
	dir, err := s.Make(pod.UID)
	if err != nil {
		return err
	}
	b, err := s.cfg.Bootstrap(pod)
	if err != nil {
		return fmt.Errorf("make bootstrap of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if err := replace(filepath.Join(dir, bootstrap), b); err != nil {
		return fmt.Errorf("write bootstrap of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	l, err := listen(dir)
	if err != nil {
		return fmt.Errorf("open socket of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	srv := &server{grpc: grpc.NewServer(grpc.MaxConcurrentStreams(1000))}
	s.cfg.Services(srv.grpc, pod)
	if s.cfg.HTTP != nil {
		srv.http = &http.Server{Handler: s.cfg.HTTP(pod), ReadHeaderTimeout: greeting}
	}
	s.by[pod.UID] = srv
	go srv.serve(l, s.cfg.Log.With("pod", pod.Namespace+"/"+pod.Name))
	return nil
}

func replace(path string, b []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// listen makes the socket. Every user of the pod may connect: the sidecar is not root.
func listen(dir string) (*net.UnixListener, error) {
	// Bound by way of the directory's descriptor: the path may be longer than a
	// socket's address can be.
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	path := filepath.Join(dir, agentSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	short := fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), agentSocket)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o777); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Close ends a pod's socket and removes its directory.
func (s *Sockets) Close(uid types.UID) error {
	s.mu.Lock()
	srv := s.by[uid]
	delete(s.by, uid)
	s.mu.Unlock()
	if srv != nil {
		srv.stop()
	}
	if err := os.RemoveAll(s.Dir(uid)); err != nil {
		return fmt.Errorf("remove socket of pod %s: %w", uid, err)
	}
	return nil
}

// Run keeps the sockets until ctx ends; the directories stay.
func (s *Sockets) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	for uid, srv := range s.by {
		srv.stop()
		delete(s.by, uid)
	}
	return nil
}
