package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"

	api "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
)

// tasks is containerd's runc task service, with one scheme of output more:
//
//	xebec:///var/log/x/0.log?max-size=10485760&max-files=5&attach=/run/x.sock&stdin=once
//
// writes the container's output to that log and serves `attach`.
type tasks struct {
	api.TTRPCTaskService
	mu      sync.Mutex
	outputs map[string]*output // by container
}

// RegisterTTRPC registers the service with the shim's server.
func (t *tasks) RegisterTTRPC(s *ttrpc.Server) error {
	api.RegisterTTRPCTaskService(s, t)
	return nil
}

// Create creates a container, its output going where its URI says.
func (t *tasks) Create(ctx context.Context, r *api.CreateTaskRequest) (*api.CreateTaskResponse, error) {
	if !strings.HasPrefix(r.Stdout, "xebec:") {
		return t.TTRPCTaskService.Create(ctx, r)
	}
	u, err := url.Parse(r.Stdout)
	if err != nil {
		return nil, fmt.Errorf("parse output %q: %w", r.Stdout, err)
	}
	o, err := newOutput(u, r.Bundle, r.Terminal)
	if err != nil {
		return nil, fmt.Errorf("open output of container %s: %w", r.ID, err)
	}
	r.Stdin, r.Stdout, r.Stderr = o.paths()
	resp, err := t.TTRPCTaskService.Create(ctx, r)
	if err != nil {
		o.abandon()
		return nil, err
	}
	o.start()
	t.mu.Lock()
	t.outputs[r.ID] = o
	t.mu.Unlock()
	return resp, nil
}

// Delete deletes a container or one of its processes.
func (t *tasks) Delete(ctx context.Context, r *api.DeleteRequest) (*api.DeleteResponse, error) {
	resp, err := t.TTRPCTaskService.Delete(ctx, r)
	if err != nil || r.ExecID != "" {
		return resp, err
	}
	t.mu.Lock()
	o := t.outputs[r.ID]
	delete(t.outputs, r.ID)
	t.mu.Unlock()
	if o != nil {
		o.drain()
		o.close()
	}
	return resp, nil
}
