package export

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/xebec-mesh/xebec/mixer/otlp"
)

// endpoint answers as told, and remembers what it was sent.
type endpoint struct {
	mu    sync.Mutex
	fail  error
	tries int
	got   []string
}

func (e *endpoint) send(_ context.Context, signal otlp.Signal, data []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tries++
	if e.fail != nil {
		return e.fail
	}
	e.got = append(e.got, signal.String()+":"+string(data))
	return nil
}

func (e *endpoint) close() error { return nil }

func (e *endpoint) set(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fail = err
}

func (e *endpoint) attempts() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tries
}

func (e *endpoint) sent() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.got, " ")
}

func run(t *testing.T, cfg Config, f func(*Exporter, *endpoint)) {
	synctest.Test(t, func(t *testing.T) {
		cfg.Endpoint = "http://127.0.0.1:1"
		e, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		end := &endpoint{}
		e.sender = end
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- e.Run(ctx) }()
		f(e, end)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func TestBatches(t *testing.T) {
	run(t, Config{Batch: 4}, func(e *Exporter, end *endpoint) {
		for _, s := range []string{"a", "b", "cc", "d", "eeeeeee"} {
			e.Offer(otlp.Traces, []byte(s))
		}
		e.Offer(otlp.Logs, []byte("log"))
		time.Sleep(2 * time.Second)
		if got := end.sent(); got != "traces:abcc traces:d traces:eeeeeee logs:log" {
			t.Error(got)
		}
	})
}

func TestRepeatsAndSaysSo(t *testing.T) {
	run(t, Config{}, func(e *Exporter, end *endpoint) {
		end.set(temporary{errors.New("away"), 0})
		e.Offer(otlp.Traces, []byte("a"))
		time.Sleep(20 * time.Second)
		if n := end.attempts(); e.Health() == nil || n < 4 || n > 12 {
			t.Errorf("%d tries, health %v", n, e.Health())
		}
		end.set(nil)
		time.Sleep(40 * time.Second)
		if end.sent() != "traces:a" || e.Health() != nil {
			t.Errorf("sent %q, health %v", end.sent(), e.Health())
		}
	})
}

func TestGivesUpOnWhatCannotHelp(t *testing.T) {
	run(t, Config{}, func(e *Exporter, end *endpoint) {
		end.set(errors.New("no"))
		e.Offer(otlp.Traces, []byte("a"))
		time.Sleep(10 * time.Second)
		if n := end.attempts(); n != 1 || e.failed.Load() != 1 {
			t.Errorf("%d tries, %d failed", n, e.failed.Load())
		}
	})
}

func TestOldestGoFirst(t *testing.T) {
	run(t, Config{Queue: 5}, func(e *Exporter, end *endpoint) {
		for _, s := range []string{"aa", "bb", "cc", "dd"} {
			e.Offer(otlp.Traces, []byte(s))
		}
		time.Sleep(2 * time.Second)
		if end.sent() != "traces:ccdd" || e.dropped.Load() != 2 {
			t.Errorf("sent %q, dropped %d", end.sent(), e.dropped.Load())
		}
	})
}

func TestLastWordsAreSent(t *testing.T) {
	var end *endpoint
	run(t, Config{Interval: time.Hour}, func(e *Exporter, en *endpoint) {
		end = en
		e.Offer(otlp.Traces, []byte("bye"))
	})
	if end.sent() != "traces:bye" {
		t.Fatal(end.sent())
	}
}

func TestWhichFailuresAreTemporary(t *testing.T) {
	told, _ := status.New(codes.ResourceExhausted, "x").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(7 * time.Second)})
	if d, ok := retry(told); !ok || d != 7*time.Second {
		t.Error("exhausted with a time", d, ok)
	}
	for code, want := range map[codes.Code]bool{codes.Unavailable: true, codes.ResourceExhausted: false, codes.InvalidArgument: false, codes.PermissionDenied: false, codes.Unimplemented: false} {
		if _, ok := retry(status.New(code, "x")); ok != want {
			t.Errorf("%s: %t", code, ok)
		}
	}
}

func TestHTTPAnswers(t *testing.T) {
	code := 0
	var header string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header.Get("Api-Key") + " " + r.URL.Path
		w.Header().Set("Retry-After", "3")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, "x")
	}))
	defer s.Close()
	e, err := New(Config{Endpoint: s.URL + "/base/", Headers: map[string]string{"Api-Key": "k"}})
	if err != nil {
		t.Fatal(err)
	}
	for c, again := range map[int]bool{200: false, 400: false, 401: false, 429: true, 503: true} {
		code = c
		err := e.sender.send(t.Context(), otlp.Traces, []byte("x"))
		var tmp temporary
		if (err == nil) != (c == 200) || errors.As(err, &tmp) != again || again && tmp.after != 3*time.Second {
			t.Errorf("%d: %v", c, err)
		}
	}
	if header != "k /base/v1/traces" {
		t.Error(header)
	}
}

func TestEndpoints(t *testing.T) {
	for endpoint, ok := range map[string]bool{
		"grpc://h:4317": true, "grpcs://h:4317": true, "http://h:4318": true, "https://h/otlp": true,
		"h:4317": false, "": false, "ftp://h": false, "http://": false,
	} {
		if _, err := New(Config{Endpoint: endpoint}); (err == nil) != ok {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("3")
	f.Add("Wed, 21 Oct 2026 07:28:00 GMT")
	f.Fuzz(func(t *testing.T, s string) {
		if d := retryAfter(s); d < 0 || d > 10*time.Minute {
			t.Fatal(d)
		}
	})
}
