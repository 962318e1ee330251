package mixer

import (
	"bytes"
	"context"
	"encoding/hex"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestPage opens the dashboard in a real browser and reads what it shows.
func TestPage(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("there is no chromium")
	}
	m := start(t, nil)
	h := httptest.NewServer(m.Dashboard())
	defer h.Close()
	open := func(view string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var out, log bytes.Buffer
		cmd := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(),
			"--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom", h.URL+"/?token=a-token-for-the-test"+view)
		cmd.Stdout, cmd.Stderr = &out, &log
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v: %s", err, log.String())
		}
		for _, line := range strings.Split(log.String(), "\n") {
			if strings.Contains(line, "CONSOLE") && !strings.Contains(line, "Failed to load resource") {
				t.Errorf("the browser complains: %s", line)
			}
		}
		return out.String()
	}
	shows := func(dom string, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(dom, w) {
				t.Errorf("the page lacks %q:\n%s", w, dom)
				return
			}
		}
	}
	shows(open("#/graph"), "thumbnails", "nobody calls it", "No calls in this time")
	shows(open("#/traces"), "No traces here")
	for i := range 10 {
		to := "pictures-0"
		if i == 0 {
			to = "pictures-2"
		}
		m.call("frontend-0", to, "200", 20)
	}
	id := bytes.Repeat([]byte{0xab}, 16)
	m.trace(id, time.Now().Add(-time.Second), "pictures-2", time.Millisecond, true)
	shows(open("#/graph"), "frontend", "v2.0-alpha", "90%", "10%", "mutual TLS")
	shows(open("#/traces"), "GET /photos/17", "metadata", "60 ms")
	shows(open("#/trace/"+hex.EncodeToString(id)), "GET /photos/{id}", "resize", "11 spans", "10 errors")
	shows(open("#/trace/"+strings.Repeat("1", 32)), "This trace is not here")
	shows(open("#/traces?since=never"), "want a duration before now")
}
