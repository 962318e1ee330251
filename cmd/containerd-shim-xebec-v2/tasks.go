package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	api "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// tasks is containerd's runc task service, with one scheme of output more:
//
//	xebec:///var/log/x/0.log?max-size=10485760&max-files=5&attach=/run/x.sock&stdin=once&exit=/var/lib/x/0.json&name=app&attempt=0
//
// writes the container's output to that log, serves `attach`, and records the exit.
type tasks struct {
	api.TTRPCTaskService
	mu      sync.Mutex
	outputs map[string]*output    // by container
	held    map[string][]*os.File // by container/process

	pooled bool // started by an agent, for a pod
	down   shutdown.Service
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

// Shutdown ends the shim. One that an agent has started belongs to a pod, which may
// start containers again: it ends when the agent says Now, or asks without naming a
// container while there is none. One that containerd has started ends when
// containerd finds that it is not needed any more.
func (t *tasks) Shutdown(ctx context.Context, r *api.ShutdownRequest) (*emptypb.Empty, error) {
	if !t.pooled {
		return t.TTRPCTaskService.Shutdown(ctx, r)
	}
	t.mu.Lock()
	empty := len(t.outputs) == 0
	t.mu.Unlock()
	if r.Now || (r.ID == "" && empty) {
		t.down.Shutdown()
	}
	return &emptypb.Empty{}, nil
}

// Exec prepares a process. The shim holds the far ends of its output until it has
// started: an agent that is killed meanwhile would leave the shim waiting for
// somebody to read, and with it the container's own end.
func (t *tasks) Exec(ctx context.Context, r *api.ExecProcessRequest) (*emptypb.Empty, error) {
	resp, err := t.TTRPCTaskService.Exec(ctx, r)
	if err != nil {
		return nil, err
	}
	var held []*os.File
	for _, path := range []string{r.Stdout, r.Stderr} {
		if path == "" {
			continue
		}
		if f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil {
			held = append(held, f)
		}
	}
	t.mu.Lock()
	t.held[r.ID+"/"+r.ExecID] = held
	t.mu.Unlock()
	return resp, nil
}

func (t *tasks) release(id, exec string) {
	t.mu.Lock()
	held := t.held[id+"/"+exec]
	delete(t.held, id+"/"+exec)
	t.mu.Unlock()
	for _, f := range held {
		f.Close()
	}
}

// Start starts a container or one of its processes.
func (t *tasks) Start(ctx context.Context, r *api.StartRequest) (*api.StartResponse, error) {
	if r.ExecID != "" {
		defer t.release(r.ID, r.ExecID)
	}
	resp, err := t.TTRPCTaskService.Start(ctx, r)
	if err != nil || r.ExecID != "" {
		return resp, err
	}
	t.mu.Lock()
	o := t.outputs[r.ID]
	t.mu.Unlock()
	if o != nil && o.exit != "" {
		go t.record(context.WithoutCancel(ctx), r.ID, o, time.Now())
	}
	return resp, nil
}

// record writes how a container ended, so that it is known even if nobody was there
// to see it.
func (t *tasks) record(ctx context.Context, id string, o *output, begin time.Time) {
	resp, err := t.TTRPCTaskService.Wait(ctx, &api.WaitRequest{ID: id})
	if err != nil {
		return
	}
	reason := "Completed"
	if resp.ExitStatus != 0 {
		reason = "Error"
	}
	b, err := json.Marshal(map[string]any{
		"name": o.name, "attempt": o.attempt, "code": resp.ExitStatus, "reason": reason,
		"startedAt": begin, "finishedAt": resp.ExitedAt.AsTime(), "crashes": 1,
	})
	if err != nil {
		return
	}
	f, err := os.OpenFile(o.exit, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) // the agent's own record says more
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.Write(b)
}

// Delete deletes a container or one of its processes.
func (t *tasks) Delete(ctx context.Context, r *api.DeleteRequest) (*api.DeleteResponse, error) {
	t.release(r.ID, r.ExecID)
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
