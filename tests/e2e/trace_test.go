package e2e

import (
	"context"
	"strings"
	"testing"
	"time"
)

// TestTrace follows one visit through three services and their sidecars.
func TestTrace(t *testing.T) {
	a, err := visit(context.Background(), desktop)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.TraceID) != 32 {
		t.Fatalf("trace id %q", a.TraceID)
	}
	var tree string
	eventually(t, 15*time.Second, "the trace has spans of every service and sidecar", func() (bool, string) {
		out, err := xebec("traces", a.TraceID)
		if err != nil {
			return false, out
		}
		tree = out
		for _, service := range []string{"frontend", "pictures", "metadata"} {
			if !strings.Contains(out, service) {
				return false, out
			}
		}
		return strings.Contains(out, "envoy") || strings.Contains(out, "sidecar"), out
	})
	t.Logf("\n%s", tree)
	raw := kubectl(t, "get", "--raw", "/telemetry/traces/"+a.TraceID)
	if !strings.Contains(raw, a.TraceID) {
		t.Errorf("the query API answers %.300s", raw)
	}
}
