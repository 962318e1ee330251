// Package nodetest gives the node agent's tests a real containerd with an image.
//
//	in:   a test that runs as root
//	out:  a client of an embedded containerd, and the reference of an image in it
//
// All that it makes lies in directories of the test and goes with it.
package nodetest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/xebec-mesh/xebec/nodeagent/containerd"
	"github.com/xebec-mesh/xebec/nodeagent/image"
	"github.com/xebec-mesh/xebec/nodeagent/volume"
)

// Ref names the image: the program in ./app as its entry point.
const Ref = "xebec.local/app:test"

// Node is a machine for tests.
type Node struct {
	Dir    string // short, and gone after the test
	Daemon *containerd.Daemon
	Client *client.Client
	Images *image.Store
}

// RequireRoot skips a test that is not run by root with an OCI runtime.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("needs runc (apt-get install runc)")
	}
}

var programs = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(os.TempDir(), "xebec-node-programs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for name, pkg := range map[string]string{
		"containerd-shim-xebec-v2": "github.com/xebec-mesh/xebec/cmd/containerd-shim-xebec-v2",
		"app":                      "github.com/xebec-mesh/xebec/nodeagent/nodetest/app",
	} {
		tmp := filepath.Join(dir, name+"."+time.Now().Format("150405.000000000"))
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", tmp, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", &buildError{pkg, out, err}
		}
		if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	return dir, nil
})

type buildError struct {
	pkg string
	out []byte
	err error
}

func (e *buildError) Error() string {
	return "build " + e.pkg + ": " + e.err.Error() + "\n" + string(e.out)
}

// Programs builds the shim and the app, and returns where they are.
func Programs(t testing.TB) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Dir makes a directory with a name short enough for Unix sockets below it.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "node-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sweep(dir) })
	return dir
}

// sweep ends what a test has left running, and removes its directory.
func sweep(dir string) {
	shims := map[int]bool{}
	for pid, p := range processes() {
		if strings.Contains(p.args, "containerd-shim-xebec-v2") && strings.Contains(p.args, dir+"/") {
			shims[pid] = true
		}
	}
	for pid, p := range processes() {
		if shims[pid] || shims[p.parent] {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if volume.UnmountBelow(dir) == nil {
		os.RemoveAll(dir)
	}
}

type process struct {
	parent int
	args   string
}

func processes() map[int]process {
	out := map[int]process{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		var p process
		var state string
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		_, rest, _ := strings.Cut(string(b), ") ")
		_, _ = fmt.Sscan(rest, &state, &p.parent)
		args, _ := os.ReadFile(filepath.Join(filepath.Dir(f), "cmdline"))
		p.args = strings.ReplaceAll(string(args), "\x00", " ")
		out[pid] = p
	}
	return out
}

// Start starts containerd and imports the image.
func Start(t testing.TB) *Node {
	t.Helper()
	RequireRoot(t)
	n := &Node{Dir: Dir(t)}
	d, err := containerd.New(containerd.Config{
		Root: filepath.Join(n.Dir, "c"), State: filepath.Join(n.Dir, "r"),
		Shim: filepath.Join(Programs(t), "containerd-shim-xebec-v2"), Runc: "runc",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	wait, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	if n.Client, err = d.Client(wait); err != nil {
		t.Fatal(err)
	}
	n.Daemon = d
	if n.Images, err = image.New(image.Config{Client: n.Client}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Images.Import(Context(ctx), bytes.NewReader(Archive(t))); err != nil {
		t.Fatal(err)
	}
	return n
}

// Context has containerd's namespace.
func Context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, containerd.Namespace)
}

// Archive is the image as a file.
func Archive(t testing.TB) []byte {
	t.Helper()
	var tar bytes.Buffer
	err := image.Build(image.Spec{
		Ref: Ref, Entrypoint: []string{"/app"},
		Files: []image.File{
			{Path: "/app", Mode: 0o755, Source: filepath.Join(Programs(t), "app")},
			{Path: "/tmp", Mode: os.ModeDir | os.ModeSticky | 0o777},
			{Path: "/etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/:/app\nweb:x:1000:1001:web:/:/app\n")},
			{Path: "/etc/group", Mode: 0o644, Data: []byte("root:x:0:\nweb:x:1001:\nextra:x:1002:web\n")},
		},
	}, &tar)
	if err != nil {
		t.Fatal(err)
	}
	return tar.Bytes()
}
