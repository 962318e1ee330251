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
	// The page's own span is the visitor's sidecar; each call has one span in the
	// caller's and one in the callee's sidecar, and two in the applications.
	var tree string
	eventually(t, 15*time.Second, "the trace has spans of every service and of every sidecar", func() (bool, string) {
		out, err := xebec("traces", a.TraceID)
		if err != nil {
			return false, out
		}
		tree = out
		for _, span := range []string{
			"frontend (sidecar) GET /api/pictures", "frontend GET /api/pictures", "frontend (sidecar) GET /pictures",
			"pictures (sidecar) GET /pictures", "pictures GET /pictures", "pictures (sidecar) GET /metadata/harbour",
			"metadata (sidecar) GET /metadata/harbour", "metadata GET /metadata/{picture}",
		} {
			if !strings.Contains(out, span) {
				return false, out
			}
		}
		return true, out
	})
	t.Logf("\n%s", tree)
	raw := kubectl(t, "get", "--raw", "/telemetry/traces/"+a.TraceID)
	if !strings.Contains(raw, a.TraceID) {
		t.Errorf("the query API answers %.300s", raw)
	}
}
