package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// answers is a container whose commands answer as a function of its age.
func watch(t *testing.T, c corev1.Container, started, ready bool, answer func(kind string, age time.Duration) bool, until time.Duration) string {
	t.Helper()
	var b strings.Builder
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		failed := 0
		p, err := New(Config{Failed: func(Target, Kind, string) { failed++ }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		out := make(chan string, 1000)
		p.Watch(ctx, Target{
			Container: &c, StartedAt: begin, Started: started, Ready: ready,
			Exec: func(_ context.Context, cmd []string) (int, string, error) {
				if answer(cmd[0], time.Since(begin)) {
					return 0, "", nil
				}
				return 1, "no", nil
			},
		}, func(r Result) {
			out <- fmt.Sprintf("%s %s %t\n", time.Since(begin).Round(100*time.Millisecond), r.Kind, r.OK)
		})
		time.Sleep(until)
		cancel()
		synctest.Wait()
		close(out)
		for line := range out {
			b.WriteString(line)
		}
		fmt.Fprintf(&b, "failures told: %d\n", failed)
	})
	return b.String()
}

func exec(kind string, period, success, failure int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{kind}}},
		PeriodSeconds: period, SuccessThreshold: success, FailureThreshold: failure,
	}
}

func TestThresholds(t *testing.T) {
	for name, c := range map[string]struct {
		c              corev1.Container
		started, ready bool
		answer         func(kind string, age time.Duration) bool
		want           string
	}{
		"none": {want: "0s Startup true\n0s Readiness true\nfailures told: 0\n"},
		"ready at once though its period is long": {
			c:      corev1.Container{ReadinessProbe: exec("r", 10, 1, 3)},
			answer: func(_ string, age time.Duration) bool { return age > 50*time.Millisecond },
			want:   "0s Startup true\n100ms Readiness true\nfailures told: 1\n",
		},
		"unready after three failures": {
			c:      corev1.Container{ReadinessProbe: exec("r", 5, 1, 3)},
			answer: func(_ string, age time.Duration) bool { return age < 12*time.Second },
			want:   "0s Startup true\n0s Readiness true\n25s Readiness false\nfailures told: 9\n",
		},
		"dead": {
			c:      corev1.Container{LivenessProbe: exec("l", 5, 1, 2)},
			answer: func(string, time.Duration) bool { return false },
			want:   "0s Startup true\n0s Readiness true\n5s Liveness false\nfailures told: 12\n",
		},
		"startup holds the others back": {
			c:      corev1.Container{StartupProbe: exec("s", 1, 1, 30), LivenessProbe: exec("l", 1, 1, 1), ReadinessProbe: exec("r", 1, 1, 1)},
			answer: func(kind string, age time.Duration) bool { return age > 20*time.Second },
			want:   "21s Startup true\n21s Readiness true\nfailures told: 21\n",
		},
		"startup fails": {
			c:      corev1.Container{StartupProbe: exec("s", 1, 1, 3)},
			answer: func(string, time.Duration) bool { return false },
			want:   "2s Startup false\nfailures told: 3\n",
		},
		"adopted as ready": {
			c: corev1.Container{StartupProbe: exec("s", 1, 1, 3), ReadinessProbe: exec("r", 1, 1, 2)}, started: true, ready: true,
			answer: func(kind string, age time.Duration) bool { return kind == "r" },
			want:   "0s Startup true\nfailures told: 0\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := watch(t, c.c, c.started, c.ready, c.answer, 59*time.Second); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		slow := Target{Exec: func(ctx context.Context, _ []string) (int, string, error) { <-ctx.Done(); return 0, "", ctx.Err() }}
		begin := time.Now()
		err = p.once(t.Context(), slow, exec("x", 1, 1, 1))
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
	})
}
