// Program containerd-shim-xebec-v2 stands between containerd and the containers of
// one pod. It runs them with runc, writes what they print to their logs, and goes
// on doing so when xebec is killed.
//
//	in:   containerd's task API on a socket; the containers' output
//	out:  containers; logs in CRI format; sockets for `kubectl attach`
//
// It is a program of its own because containerd initialises all that a shim's
// binary has registered, and because one runs beside every pod: it must be small.
package main

import (
	"context"
	"os"

	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "pause" {
		pause()
		return
	}
	// What a shim logs ends in the daemon's standard error. Its errors reach the
	// daemon as answers; what it would print beside them is noise of its ending.
	_ = log.SetLevel("fatal")
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn:   newTasks,
	})
	quiet := func(c *shim.Config) { c.NoSetupLogger = os.Getenv("XEBEC_SHIM_SOCKET") != "" }
	shim.RunShim(context.Background(), starter{manager.NewShimManager("io.xebec.runc.v2")}, quiet)
}

func newTasks(ic *plugin.InitContext) (any, error) {
	publisher, err := ic.GetByID(plugins.EventPlugin, "publisher")
	if err != nil {
		return nil, err
	}
	down, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
	if err != nil {
		return nil, err
	}
	inner, err := task.NewTaskService(ic.Context, publisher.(shim.Publisher), down.(shutdown.Service))
	if err != nil {
		return nil, err
	}
	t := &tasks{TTRPCTaskService: inner, outputs: map[string]*output{}, held: map[string][]*os.File{}, down: down.(shutdown.Service)}
	if sock := os.Getenv("XEBEC_SHIM_SOCKET"); sock != "" {
		t.pooled = true
		t.down.RegisterCallback(func(context.Context) error { _ = os.Remove(sock); return nil })
	}
	return t, nil
}
