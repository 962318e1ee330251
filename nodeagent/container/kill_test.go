package container_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/nodeagent/container"
	"github.com/xebec-mesh/xebec/nodeagent/containerd"
	"github.com/xebec-mesh/xebec/nodeagent/image"
	"github.com/xebec-mesh/xebec/nodeagent/logs"
	"github.com/xebec-mesh/xebec/nodeagent/nodetest"
)

const childDir = "XEBEC_TEST_CHILD_DIR"

// A daemon that is killed leaves its containers running and their logs growing; the
// next one finds them.
func TestKill(t *testing.T) {
	if dir := os.Getenv(childDir); dir != "" {
		child(t, dir)
		return
	}
	nodetest.RequireRoot(t)
	nodetest.Programs(t)
	dir := nodetest.Dir(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	for s := bufio.NewScanner(out); pid == 0 && s.Scan(); {
		_, _ = fmt.Sscanf(s.Text(), "runs as %d", &pid)
	}
	// As when a terminal closes or a service manager stops the group.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	_ = cmd.Wait()
	if pid == 0 {
		t.Fatal("the child did not start its container")
	}
	log := filepath.Join(dir, "c0.log")
	before := follow(t, log, 0)
	if after := follow(t, log, before+5); after < before+5 {
		t.Fatalf("the log stopped at tick %d after the daemon was killed", after)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the container's process: %v", err)
	}
	adopt(t, dir, pid)
}

// follow reads a log until it has a tick of at least that number, which it returns.
func follow(t *testing.T, path string, tick int) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	w := &lastTick{want: tick, enough: cancel}
	if err := logs.Read(ctx, path, logs.Query{Tail: 1, Follow: true}, w, nil); err != nil {
		t.Fatal(err)
	}
	return w.last
}

type lastTick struct {
	want, last int
	enough     func()
}

func (w *lastTick) Write(b []byte) (int, error) {
	if _, err := fmt.Sscanf(strings.TrimSpace(string(b)), "tick %d", &w.last); err == nil && w.last >= w.want {
		w.enough()
	}
	return len(b), nil
}

func adopt(t *testing.T, dir string, pid int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(nodetest.Context(context.Background()), 30*time.Second)
	rt, _, stop := daemon(ctx, t, dir)
	defer stop()
	defer cancel()
	found, err := rt.List(ctx)
	if err != nil || len(found) != 1 {
		t.Fatalf("found %v, %v", found, err)
	}
	c := found[0]
	if c.State != container.Running || int(c.PID) != pid || c.Label(container.LabelName) != "app" {
		t.Errorf("found %+v, want process %d running", c, pid)
	}
	if code, out, err := c.ExecOutput(ctx, []string{"/app", "print=here"}); code != 0 || out != "here\n" || err != nil {
		t.Errorf("exec = %d, %q, %v", code, out, err)
	}
	if err := c.Kill(ctx, syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	if e := c.Wait(ctx); e.Code != 137 || e.Err != nil {
		t.Errorf("exit = %+v", e)
	}
	if err := c.Remove(ctx); err != nil {
		t.Error(err)
	}
}

// daemon starts containerd in dir.
func daemon(ctx context.Context, t *testing.T, dir string) (*container.Runtime, *image.Image, func()) {
	t.Helper()
	d, err := containerd.New(containerd.Config{
		Root: filepath.Join(dir, "c"), State: filepath.Join(dir, "r"), Shim: filepath.Join(nodetest.Programs(t), "containerd-shim-xebec-v2"),
	})
	if err != nil {
		t.Fatal(err)
	}
	within, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- d.Run(within) }()
	client, err := d.Client(ctx)
	if err != nil {
		t.Fatal(err)
	}
	images, err := image.New(image.Config{Client: client})
	if err != nil {
		t.Fatal(err)
	}
	got, err := images.Import(ctx, bytes.NewReader(nodetest.Archive(t)))
	if err != nil {
		t.Fatal(err)
	}
	rt, err := container.NewRuntime(container.Config{
		Client: client, Namespace: containerd.Namespace, Owner: dir, Snapshotter: "overlayfs", Shim: d.Shim(), Runc: d.Runc(), ShimCgroup: "/node-test/shims",
	})
	if err != nil {
		t.Fatal(err)
	}
	return rt, got[0], func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// child runs a container and waits to be killed.
func child(t *testing.T, dir string) {
	ctx := nodetest.Context(context.Background())
	rt, img, _ := daemon(ctx, t, dir)
	root, err := rt.Prepare(ctx, "c0", img)
	if err != nil {
		t.Fatal(err)
	}
	c, err := rt.Create(ctx, container.Request{
		ID: "c0", Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u9"}},
		Container: &corev1.Container{Name: "app", Image: nodetest.Ref, Command: []string{"/app", "tick=20ms"}}, Cgroup: "/node-test/podu9",
	}, root, container.Output{LogPath: filepath.Join(dir, "c0.log")})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	fmt.Println("runs as", c.PID)
	select {}
}
