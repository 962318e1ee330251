package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const deploy = "samples/pictures/deploy/"

// sample deploys the sample and waits for its first answer.
func (b *bench) sample(ctx context.Context) error {
	if err := b.kubectl("apply", "-f", deploy+"app.yaml", "-f", deploy+"routes.yaml"); err != nil {
		return err
	}
	service, err := b.api.CoreV1().Services("pictures").Get(ctx, "frontend", metav1.GetOptions{})
	if err != nil {
		return err
	}
	b.frontend = "http://" + service.Spec.ClusterIP + ":8080/api/pictures"
	deadline := time.Now().Add(2 * time.Minute)
	for {
		if _, err = b.visit(ctx); err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the sample does not answer: %w", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// visit returns which version of pictures answered.
func (b *bench) visit(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, b.frontend, nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s", answer.Status)
	}
	return answer.Header.Get("X-Pictures-Version"), nil
}

// mesh measures what a pair of sidecars adds, and how fast new weights arrive.
func (b *bench) mesh(ctx context.Context) error {
	if err := b.sidecars(ctx); err != nil {
		return fmt.Errorf("sidecars: %w", err)
	}
	return b.propagation(ctx)
}

// latencies is what `probe load` prints, in microseconds.
type latencies struct {
	P50, P99 float64
	Rate     float64
}

// sidecars compares two pods that talk through their sidecars with two that have
// none, in turns.
func (b *bench) sidecars(ctx context.Context) error {
	for _, ns := range []string{"bench-plain", "bench-meshed"} {
		labels := map[string]string{}
		if ns == "bench-meshed" {
			labels["istio-injection"] = "enabled"
		}
		if _, err := b.api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: labels}}, metav1.CreateOptions{}); err != nil {
			return err
		}
		if _, _, err := b.server(ctx, ns, "target"); err != nil {
			return err
		}
		if _, err := b.runPod(ctx, ns, probePod("client", nil, "wait")); err != nil {
			return err
		}
	}
	sum := map[string]latencies{}
	const rounds = 6
	for i := range rounds {
		for _, ns := range turns(i, "bench-plain", "bench-meshed") {
			out, err := b.xebec("kubectl", "-n", ns, "exec", "client", "-c", "probe", "--", "/app", "load", "http://target:8080/", "2000")
			if err != nil {
				return fmt.Errorf("load in %s: %w\n%s", ns, err, out)
			}
			var l latencies
			if err := json.Unmarshal([]byte(out), &l); err != nil {
				return fmt.Errorf("load in %s: %w: %s", ns, err, out)
			}
			s := sum[ns]
			sum[ns] = latencies{s.P50 + l.P50/rounds, s.P99 + l.P99/rounds, s.Rate + l.Rate/rounds}
		}
	}
	p, m := sum["bench-plain"], sum["bench-meshed"]
	row("a pair of sidecars with mTLS, tracing and access logs, one connection", "adds p50 %.0f µs, p99 %.0f µs (without: p50 %.0f µs, p99 %.0f µs)", m.P50-p.P50, m.P99-p.P99, p.P50, p.P99)
	return nil
}

// propagation flips the canary between all and nothing; what counts is the time
// from sending the change to the first answer that follows it.
func (b *bench) propagation(ctx context.Context) error {
	var times []time.Duration
	versions := [2]string{"v1", "v2.0-alpha"}
	for i := range 21 {
		want := versions[i%2]
		weights := [2]int{100 * ((i + 1) % 2), 100 * (i % 2)}
		patch := fmt.Sprintf(`[{"op":"replace","path":"/spec/http/1/route/0/weight","value":%d},{"op":"replace","path":"/spec/http/1/route/1/weight","value":%d}]`, weights[0], weights[1])
		begun := time.Now()
		err := b.api.CoreV1().RESTClient().Patch(types.JSONPatchType).
			AbsPath("/apis/networking.istio.io/v1/namespaces/pictures/virtualservices/pictures").
			SetHeader("Accept", "application/json").
			Body([]byte(patch)).Do(ctx).Error()
		if err != nil {
			return fmt.Errorf("change weights: %w", err)
		}
		for {
			got, err := b.visit(ctx)
			if err != nil {
				return err
			}
			if got == want {
				break
			}
			if time.Since(begun) > 10*time.Second {
				return fmt.Errorf("weights %v are not in force after 10 s", weights)
			}
		}
		if i > 0 { // the first brings the sample from 90/10 to 100/0
			times = append(times, time.Since(begun))
		}
	}
	row("new weights to the first request that follows them", "p50 %.0f ms, p99 %.0f ms, the request itself included", ms(quantile(times, .5)), ms(quantile(times, .99)))
	return nil
}
