// Package envoytest gives tests the real Envoy.
package envoytest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/xebec-mesh/xebec/dataplane/envoy"
)

// Binary is $XEBEC_ENVOY, or the pinned one below .tools in the module, which is
// downloaded if it is not there. Tests with -short do without.
func Binary(tb testing.TB) *envoy.Binary {
	tb.Helper()
	if testing.Short() {
		tb.Skip("needs Envoy")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var b *envoy.Binary
	var err error
	if path := os.Getenv("XEBEC_ENVOY"); path != "" {
		b, err = envoy.Locate(ctx, path, "")
	} else {
		b, err = envoy.Download(ctx, filepath.Join(moduleRoot(tb), ".tools", "envoy"))
	}
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// Shared is the binary where any user may run it: the checkout may lie in a folder
// that only root may enter.
func Shared(tb testing.TB) string {
	tb.Helper()
	b := Binary(tb)
	dir, err := os.MkdirTemp("/tmp", "envoytest-*")
	if err == nil {
		tb.Cleanup(func() { _ = os.RemoveAll(dir) })
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(dir, "envoy")
	if os.Link(b.Path, path) == nil {
		return path
	}
	data, err := os.ReadFile(b.Path) // another file system
	if err == nil {
		err = os.WriteFile(path, data, 0o755)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

func moduleRoot(tb testing.TB) string {
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	tb.Fatal("no go.mod above this test")
	return ""
}
