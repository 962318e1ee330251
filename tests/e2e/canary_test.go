package e2e

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"
)

const visits = 2000

// split visits the sample n times and counts the answers by version.
func split(t *testing.T, n int, userAgent string) map[string]int {
	t.Helper()
	const workers = 8
	var (
		mu     sync.Mutex
		wg     sync.WaitGroup
		counts = map[string]int{}
	)
	for w := range workers {
		wg.Go(func() {
			for range (n + workers - 1 - w) / workers {
				a, err := visit(context.Background(), userAgent)
				mu.Lock()
				if err != nil {
					t.Error(err)
				}
				counts[a.version]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return counts
}

// within fails unless seen of n lies within three standard deviations of share.
func within(t *testing.T, seen, n int, share float64) {
	t.Helper()
	mean := float64(n) * share
	sigma := math.Sqrt(float64(n) * share * (1 - share))
	if math.Abs(float64(seen)-mean) > 3*sigma {
		t.Errorf("%d of %d went to v2.0-alpha, want %.0f±%.0f", seen, n, mean, 3*sigma)
	}
}

// weights applies a split to the canary route and waits until it is in force.
func weights(t *testing.T, v1, v2 int) {
	t.Helper()
	patch := fmt.Sprintf(`[{"op":"replace","path":"/spec/http/1/route/0/weight","value":%d},{"op":"replace","path":"/spec/http/1/route/1/weight","value":%d}]`, v1, v2)
	kubectl(t, "-n", "pictures", "patch", "virtualservice", "pictures", "--type=json", "-p", patch)
}

func TestCanary(t *testing.T) {
	t.Cleanup(func() { kubectl(t, "apply", "-f", deploy+"routes.yaml") })
	for _, step := range []struct {
		file  string
		share float64
	}{{"routes.yaml", 0.1}, {"canary-50.yaml", 0.5}, {"canary-100.yaml", 1}} {
		kubectl(t, "apply", "-f", deploy+step.file)
		settle(t, step.share)
		counts := split(t, visits, desktop)
		t.Logf("%s: %v", step.file, counts)
		within(t, counts["v2.0-alpha"], visits, step.share)
		if counts["v1"]+counts["v2.0-alpha"] != visits {
			t.Errorf("%s: answers of unknown versions: %v", step.file, counts)
		}
	}
}

// settle waits until what a split of share must show has been seen: only the
// last step has a sign that one answer can give.
func settle(t *testing.T, share float64) {
	t.Helper()
	if share < 1 {
		programmed(t)
		return
	}
	row := 0
	eventually(t, 5*time.Second, "only v2.0-alpha answers", func() (bool, string) {
		a, err := visit(context.Background(), desktop)
		if err != nil {
			t.Fatal(err)
		}
		if row++; a.version != "v2.0-alpha" {
			row = 0
		}
		return row >= 50, a.version
	})
}

// programmed waits until the proxies have acknowledged the sample's routes.
func programmed(t *testing.T) {
	t.Helper()
	kubectl(t, "-n", "pictures", "wait", "virtualservice/pictures", "--for=condition=Programmed", "--timeout=10s")
}

// TestWeightsUnderLoad changes the weights twenty times; not one visit may fail.
func TestWeightsUnderLoad(t *testing.T) {
	t.Cleanup(func() { kubectl(t, "apply", "-f", deploy+"routes.yaml") })
	l := startLoad(4)
	for i := range 20 {
		weights(t, 100-5*i, 5*i)
		l.passed(t, 20)
	}
	l.stop(t)
}

// TestIPhone holds that the header rule takes every iPhone and nobody else.
func TestIPhone(t *testing.T) {
	kubectl(t, "apply", "-f", deploy+"routes.yaml")
	programmed(t)
	if counts := split(t, 300, iPhone); counts["v2.0-alpha"] != 300 {
		t.Errorf("iPhones got %v, want only v2.0-alpha", counts)
	}
	others, v2 := 0, 0
	for _, agent := range []string{
		desktop,
		"Mozilla/5.0 (iPad; CPU OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
		"Mozilla/5.0 (Linux; Android 16; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Mobile Safari/537.36",
		"curl/8.15.0",
	} {
		others += visits / 4
		v2 += split(t, visits/4, agent)["v2.0-alpha"]
	}
	within(t, v2, others, 0.1)
}
