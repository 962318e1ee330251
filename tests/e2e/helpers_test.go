package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

const (
	iPhone  = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
	desktop = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
)

// kubectl runs the kubectl that is built in; an error ends the test.
func kubectl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := xebec(append([]string{"kubectl"}, args...)...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// kubectlFails runs kubectl and returns what it says; success ends the test.
func kubectlFails(t testing.TB, args ...string) string {
	t.Helper()
	out, err := xebec(append([]string{"kubectl"}, args...)...)
	if err == nil {
		t.Fatalf("kubectl %s: no error, but:\n%s", strings.Join(args, " "), out)
	}
	return out
}

// answer is one answer of the sample.
type answer struct {
	status  int
	version string
	TraceID string            `json:"traceId"`
	Callers map[string]string `json:"callers"`
}

var browser = &http.Client{
	Timeout:   15 * time.Second,
	Transport: &http.Transport{MaxIdleConnsPerHost: 64},
}

// visit asks the sample for its pictures.
func visit(ctx context.Context, userAgent string) (answer, error) {
	var a answer
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, cluster.frontend+"/api/pictures", nil)
	if err != nil {
		return a, err
	}
	r.Header.Set("User-Agent", userAgent)
	response, err := browser.Do(r)
	if err != nil {
		return a, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return a, err
	}
	a.status, a.version = response.StatusCode, response.Header.Get("X-Pictures-Version")
	if a.status != http.StatusOK {
		return a, fmt.Errorf("%s: %s", response.Status, strings.TrimSpace(string(body)))
	}
	return a, json.Unmarshal(body, &a)
}

// answers waits until the sample answers ten times in a row.
func answers(timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var last error
	for good := 0; good < 10; {
		if _, err := visit(ctx, desktop); err != nil {
			good, last = 0, err
			select {
			case <-ctx.Done():
				return fmt.Errorf("the sample does not answer: %w", last)
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		good++
	}
	return nil
}

// eventually asks until ok or the time is over; what says what was awaited.
func eventually(t testing.TB, timeout time.Duration, what string, ok func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for {
		done, seen := ok()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s; last seen: %s", what, timeout, seen)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// untilPod waits by watch until a pod satisfies ok, and returns it.
func untilPod(t testing.TB, namespace, name string, timeout time.Duration, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	selector := fields.OneTermEqualSelector("metadata.name", name).String()
	pods := cluster.api.CoreV1().Pods(namespace)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector
			return pods.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			return pods.Watch(ctx, o)
		},
	}
	event, err := watchtools.UntilWithSync(ctx, lw, &corev1.Pod{}, nil, func(e watch.Event) (bool, error) {
		pod, isPod := e.Object.(*corev1.Pod)
		return isPod && e.Type != watch.Deleted && ok(pod), nil
	})
	if err != nil {
		t.Fatalf("pod %s/%s: %s: %v\n%s", namespace, name, what, err, kubectl(t, "-n", namespace, "describe", "pod", name))
	}
	return event.Object.(*corev1.Pod)
}

func itoa(n int) string { return strconv.Itoa(n) }

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil
		}
	}
	return false
}

// podOf returns the one running pod of a deployment of the sample.
func podOf(t testing.TB, app, version string) *corev1.Pod {
	t.Helper()
	list, err := cluster.api.CoreV1().Pods("pictures").List(context.Background(),
		metav1.ListOptions{LabelSelector: "app=" + app + ",version=" + version})
	if err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		if ready(&list.Items[i]) {
			return &list.Items[i]
		}
	}
	t.Fatalf("no ready pod of %s %s among %d", app, version, len(list.Items))
	return nil
}

// load is a constant stream of visits, until it is stopped.
type load struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	sent   atomic.Int64
	mu     sync.Mutex
	errs   []string
}

// startLoad begins workers that visit one after the other.
func startLoad(workers int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel}
	for range workers {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				_, err := visit(context.Background(), desktop)
				l.sent.Add(1)
				if err != nil {
					l.mu.Lock()
					l.errs = append(l.errs, time.Now().Format("15:04:05.000 ")+err.Error())
					l.mu.Unlock()
				}
			}
		})
	}
	return l
}

// passed waits for n more visits to be over.
func (l *load) passed(t testing.TB, n int64) {
	t.Helper()
	target := l.sent.Load() + n
	eventually(t, time.Minute, fmt.Sprintf("%d visits under load", n), func() (bool, string) {
		return l.sent.Load() >= target, fmt.Sprintf("%d of %d", l.sent.Load(), target)
	})
}

// stop ends the load; a single failed visit fails the test.
func (l *load) stop(t testing.TB) {
	t.Helper()
	l.cancel()
	l.wg.Wait()
	if len(l.errs) > 0 {
		t.Errorf("%d of %d visits failed:\n%s", len(l.errs), l.sent.Load(), strings.Join(l.errs[:min(10, len(l.errs))], "\n"))
	}
	t.Logf("%d visits under load", l.sent.Load())
}

// startPod runs the probe in a pod and waits until it is Ready.
func startPod(t testing.TB, namespace, name string, labels map[string]string, args ...string) *corev1.Pod {
	t.Helper()
	ctx := context.Background()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64),
			Containers: []corev1.Container{{
				Name: "probe", Image: "xebec.local/e2e/probe:v1", Args: args,
				ImagePullPolicy: corev1.PullNever,
			}},
		},
	}
	if _, err := cluster.api.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		zero := int64(0)
		if err := cluster.api.CoreV1().Pods(namespace).Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
			t.Logf("delete pod %s/%s: %v", namespace, name, err)
		}
	})
	return untilPod(t, namespace, name, 30*time.Second, "Ready", ready)
}
