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
