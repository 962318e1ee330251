package container_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/nodeagent/container"
	"github.com/xebec-mesh/xebec/nodeagent/containerd"
	"github.com/xebec-mesh/xebec/nodeagent/logs"
	"github.com/xebec-mesh/xebec/nodeagent/network"
	"github.com/xebec-mesh/xebec/nodeagent/nodetest"
)

// A container runs, prints to its log, and leaves nothing behind.
func TestRun(t *testing.T) {
	n := nodetest.Start(t)
	ctx, cancel := context.WithTimeout(nodetest.Context(t.Context()), 30*time.Second)
	defer cancel()
	rt, err := container.NewRuntime(container.Config{
		Client: n.Client, Namespace: containerd.Namespace, Owner: n.Dir, Snapshotter: "overlayfs",
		Shim: n.Daemon.Shim(), Runc: n.Daemon.Runc(), ShimCgroup: "/node-test/shims",
	})
	if err != nil {
		t.Fatal(err)
	}
	spaces := network.SpacesAt(filepath.Join(n.Dir, "ns"), "u1")
	if err := spaces.Create("web-0", nil); err != nil {
		t.Fatal(err)
	}
	defer spaces.Remove()
	img, err := n.Images.Get(ctx, nodetest.Ref)
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-0", UID: "u1"}}
	for i, id := range []string{"c0", "c1"} {
		begin := time.Now()
		root, err := rt.Prepare(ctx, id, img)
		if err != nil {
			t.Fatal(err)
		}
		t.Log("prepared", time.Since(begin))
		out := container.Output{LogPath: filepath.Join(n.Dir, id+".log"), AttachPath: filepath.Join(n.Dir, id+".sock")}
		c, err := rt.Create(ctx, container.Request{
			ID: id, Pod: pod, Attempt: i, Image: img.Config,
			Container:  &corev1.Container{Name: "app", Image: nodetest.Ref, Args: []string{"host", "env=GREETING", "complain=oh", "sleep=1h"}},
			Env:        []string{"GREETING=hi"},
			Namespaces: container.Namespaces{Net: spaces.Net(), IPC: spaces.IPC(), UTS: spaces.UTS()},
			Cgroup:     "/node-test/podu1",
		}, root, out)
		if err != nil {
			t.Fatal(err)
		}
		t.Log("created", time.Since(begin))
		if err := c.Start(ctx); err != nil {
			t.Fatal(err)
		}
		t.Log("started", time.Since(begin))
		var stdout, stderr bytes.Buffer
		ended := make(chan struct{})
		go func() {
			if e := c.Wait(ctx); e.Err != nil || e.Code != 0 {
				t.Errorf("exit = %+v", e)
			}
			close(ended)
		}()
		time.AfterFunc(300*time.Millisecond, func() { c.Kill(ctx, 15, false) })
		if err := logs.Read(ctx, out.LogPath, logs.Query{Follow: true, Tail: -1, Ended: ended}, &stdout, &stderr); err != nil {
			t.Fatal(err)
		}
		if got := stdout.String(); !strings.HasPrefix(got, "web-0\nGREETING=hi\n") {
			t.Errorf("stdout = %q", got)
		}
		if got := stderr.String(); got != "oh\n" {
			t.Errorf("stderr = %q", got)
		}
		begin = time.Now()
		if err := c.Remove(ctx); err != nil {
			t.Fatal(err)
		}
		t.Log("removed", time.Since(begin))
	}
	if left, _ := os.ReadDir(filepath.Join(n.Dir, "r/io.containerd.runtime.v2.task/k8s.io")); len(left) > 0 {
		t.Errorf("bundles left: %v", left)
	}
	found, err := rt.List(ctx)
	if err != nil || len(found) != 0 {
		t.Errorf("List = %v, %v", found, err)
	}
}
