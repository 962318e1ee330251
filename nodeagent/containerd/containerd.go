// Package containerd gives the node agent its containerd: a daemon inside this
// process, or one that runs already.
//
//	in:   directories, or the address of an existing daemon
//	out:  a containerd client
//
// The embedded daemon is used through its services in memory, without a socket in
// between; the socket beside it is for the shims' events and for people with
// `ctr`. Containers belong to their shims, not to this process: when it dies they
// run on, and the next one finds them under the same directories.
package containerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/cmd/containerd/server"
	srvconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
)

// Namespace is the containerd namespace of pods and their images, the one that
// Kubernetes' tools look into.
const Namespace = "k8s.io"

// maxSocketDir is the longest directory that leaves room for a shim socket's name.
const maxSocketDir = 38

// Config says where the daemon keeps what, or where an existing one listens.
type Config struct {
	Address string // of an existing daemon; "" embeds one
	Root    string // persistent data of the embedded daemon: images, snapshots
	State   string // data of the embedded daemon that a reboot may lose; at most 36 bytes
	Shim    string // path of containerd-shim-xebec-v2; "" looks beside this binary, then on PATH
	Runc    string // the OCI runtime, a name on PATH or a path; default "runc"
	Log     *slog.Logger
}

// Daemon is the node's containerd.
type Daemon struct {
	cfg    Config
	ready  chan struct{}
	client *client.Client
}

// New checks the configuration and starts nothing.
func New(cfg Config) (*Daemon, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Address == "" && (cfg.Root == "" || cfg.State == "") {
		return nil, errors.New("configure containerd: Root and State are needed to embed it")
	}
	var err error
	if cfg.Runc, err = findProgram(cfg.Runc, "runc"); err != nil {
		return nil, fmt.Errorf("find the OCI runtime: %w (install the package runc, or name it by flag)", err)
	}
	if cfg.Shim, err = findProgram(cfg.Shim, "containerd-shim-xebec-v2"); err != nil {
		return nil, fmt.Errorf("find the container shim: %w (make build puts it beside xebec)", err)
	}
	return &Daemon{cfg: cfg, ready: make(chan struct{})}, nil
}

// Runc is the absolute path of the OCI runtime.
func (d *Daemon) Runc() string { return d.cfg.Runc }

// Shim is the absolute path of the shim, which containerd takes as the runtime's name.
func (d *Daemon) Shim() string { return d.cfg.Shim }

// Socket is where `ctr --address` finds the daemon.
func (d *Daemon) Socket() string {
	if d.cfg.Address != "" {
		return d.cfg.Address
	}
	return filepath.Join(d.cfg.State, "containerd.sock")
}

// Client waits until the daemon serves and returns the client that all share.
func (d *Daemon) Client(ctx context.Context) (*client.Client, error) {
	select {
	case <-d.ready:
		return d.client, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for containerd: %w", ctx.Err())
	}
}

// Version is the runtime's name and version, as a Node shows them.
func (d *Daemon) Version(ctx context.Context) string {
	c, err := d.Client(ctx)
	if err != nil || d.cfg.Address == "" {
		v, _, _ := strings.Cut(version.Version, "+")
		return "containerd://" + v
	}
	v, err := c.Version(ctx)
	if err != nil {
		return "containerd://unknown"
	}
	return "containerd://" + v.Version
}

// Run serves until ctx ends. Containers are left as they are.
func (d *Daemon) Run(ctx context.Context) error {
	if d.cfg.Address != "" {
		return d.connect(ctx)
	}
	return d.serve(ctx)
}

func (d *Daemon) connect(ctx context.Context) error {
	c, err := client.New(d.cfg.Address, client.WithDefaultNamespace(Namespace))
	if err != nil {
		return fmt.Errorf("connect to containerd at %s: %w", d.cfg.Address, err)
	}
	defer c.Close()
	if _, err := c.Version(ctx); err != nil {
		return fmt.Errorf("ask containerd at %s for its version: %w", d.cfg.Address, err)
	}
	d.client = c
	close(d.ready)
	<-ctx.Done()
	return nil
}

func (d *Daemon) serve(ctx context.Context) error {
	redirectLog(d.cfg.Log)
	registerClient()
	cfg := d.config()
	if err := server.CreateTopLevelDirectories(cfg); err != nil {
		return fmt.Errorf("create containerd's directories: %w", err)
	}
	var ic *plugin.InitContext
	srv, err := server.New(context.WithValue(ctx, contextKey{}, &ic), cfg)
	if err != nil {
		return fmt.Errorf("start containerd in %s: %w", d.cfg.Root, err)
	}
	defer srv.Stop()
	if ic == nil {
		return errors.New("start containerd: its plugins did not load")
	}
	if err := srv.Start(ctx); err != nil {
		return fmt.Errorf("listen on %s: %w", d.Socket(), err)
	}
	c, err := client.New("", client.WithInMemoryServices(ic), client.WithDefaultNamespace(Namespace))
	if err != nil {
		return fmt.Errorf("connect to the embedded containerd: %w", err)
	}
	d.client = c
	close(d.ready)
	<-ctx.Done()
	return nil
}

func (d *Daemon) config() *srvconfig.Config {
	p := map[string]any{
		"io.containerd.server.v1.grpc":     map[string]any{"address": d.Socket()},
		"io.containerd.server.v1.ttrpc":    map[string]any{"address": d.Socket() + ".ttrpc"},
		"io.containerd.content.v1.content": map[string]any{},
	}
	if dir := filepath.Join(d.cfg.State, "s"); len(dir) <= maxSocketDir {
		p["io.containerd.shim.v1.manager"] = map[string]any{"socket_dir": dir}
	}
	return &srvconfig.Config{
		Version:         4,
		Root:            d.cfg.Root,
		State:           d.cfg.State,
		DisabledPlugins: disabled,
		RequiredPlugins: []string{clientPlugin.String() + ".client"},
		Plugins:         p,
	}
}

// findProgram returns the absolute path of a program: the one named, else one of
// that name beside this binary, else on PATH.
func findProgram(named, name string) (string, error) {
	if named == "" {
		if self, err := os.Executable(); err == nil {
			beside := filepath.Join(filepath.Dir(self), name)
			if st, err := os.Stat(beside); err == nil && st.Mode()&0o111 != 0 {
				return beside, nil
			}
		}
		named = name
	}
	return lookPath(named)
}

const clientPlugin plugin.Type = "io.xebec.v1"

type contextKey struct{}

// registerClient adds the plugin through which we reach the services in memory,
// as containerd means its clients inside the process to do. The registry is the
// process's; what a daemon finds is carried by its context, so several can run.
var registerClient = sync.OnceFunc(func() {
	registry.Register(&plugin.Registration{
		Type: clientPlugin,
		ID:   "client",
		Requires: []plugin.Type{
			plugins.EventPlugin, plugins.LeasePlugin, plugins.SandboxStorePlugin,
			plugins.TransferPlugin, plugins.MountManagerPlugin, plugins.ServicePlugin,
		},
		InitFn: func(ic *plugin.InitContext) (any, error) {
			if out, ok := ic.Context.Value(contextKey{}).(**plugin.InitContext); ok {
				*out = ic
			}
			return struct{}{}, nil
		},
	})
})
