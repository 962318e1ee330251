package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/nodeagent/containerd"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/store"
)

// cluster is everything that one process runs. Its parts are made in the order
// of the files control.go, mesh.go and node.go, each with what the ones before
// it offer, and run together until one of them fails or ctx ends.
type cluster struct {
	s        *settings
	log      *slog.Logger
	progress *progress

	runStore func(context.Context, *errgroup.Group, *store.Etcd)

	control *control
	mesh    *mesh
	node    *node
}

func newCluster(s *settings, log *slog.Logger, p *progress) *cluster {
	return &cluster{s: s, log: log, progress: p}
}

// part gives a part of the program its logger.
func (c *cluster) part(name string) *slog.Logger { return c.log.With("part", name) }

// run starts everything, calls ready when the node is, and returns when all has ended.
func (c *cluster) run(ctx context.Context, ready func()) error {
	if err := c.s.findAddress(); err != nil {
		return err
	}
	// The store ends after all others have, so that they can write what they must.
	storeCtx, stopStore := context.WithCancel(context.WithoutCancel(ctx))
	var storeEnded sync.WaitGroup
	defer storeEnded.Wait()
	defer stopStore()
	c.runStore = func(ctx context.Context, g *errgroup.Group, db *store.Etcd) {
		ended := make(chan error, 1)
		storeEnded.Go(func() { ended <- db.Run(storeCtx) })
		run(ctx, g, "store", func(ctx context.Context) error {
			select {
			case err := <-ended:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}
	g, ctx := errgroup.WithContext(ctx)
	steps := []func(context.Context, *errgroup.Group) error{c.startControl, c.startMesh, c.startNode}
	for _, start := range steps {
		if err := start(ctx, g); err != nil {
			g.Go(func() error { return err })
			return g.Wait()
		}
	}
	g.Go(func() error {
		images, err := c.node.agent.Images(ctx)
		if err != nil {
			return err
		}
		if err := ensureSidecarImage(namespaces.WithNamespace(ctx, containerd.Namespace), c.s, images, c.progress); err != nil {
			return err
		}
		if err := c.awaitReady(ctx); err != nil {
			return err
		}
		ready()
		return trim(ctx)
	})
	return g.Wait()
}

// run adds a part to the group; its name is in the error that it ends with.
func run(ctx context.Context, g *errgroup.Group, name string, part func(context.Context) error) {
	g.Go(func() error {
		err := part(ctx)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err == nil && ctx.Err() == nil {
			return fmt.Errorf("%s ended by itself", name)
		}
		return nil
	})
}

// awaitReady returns when the node says that it is Ready.
func (c *cluster) awaitReady(ctx context.Context) error {
	reached := c.progress.waiting("node", "waiting for %s to be Ready", c.s.Node)
	defer reached()
	done := make(chan struct{}, 1)
	nodes := client.For(c.control.client, client.Nodes).Informer(client.ListOptions{})
	cancel := nodes.Subscribe(func(e client.Event) {
		n, ok := e.Object.(*corev1.Node)
		if !ok || n.Name != c.s.Node {
			return
		}
		if condition(n) == "Ready" {
			select {
			case done <- struct{}{}:
			default:
			}
		}
	})
	defer cancel()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
	}
	c.progress.done("node", "%s is Ready", c.s.Node)
	c.progress.done("kubeconfig", "%s", c.s.kubeconfig())
	return nil
}

// metrics serves what the parts count beside the API server's own metrics.
func (c *cluster) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	var errs []error
	for _, write := range c.counters() {
		errs = append(errs, write(w))
	}
	if err := errors.Join(errs...); err != nil {
		c.log.Debug("metrics", "err", err)
	}
}
