package e2e

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func strict(t *testing.T) {
	t.Helper()
	kubectl(t, "apply", "-f", deploy+"strict.yaml")
	t.Cleanup(func() { kubectl(t, "delete", "-f", deploy+"strict.yaml") })
}

// TestStrict holds that under STRICT nobody outside the mesh gets an answer, and
// that inside the callee knows the caller.
func TestStrict(t *testing.T) {
	outside := startPod(t, "default", "outside", nil, "wait")
	get := []string{"-n", "default", "exec", outside.Name, "--", "/app", "get", "http://pictures.pictures:8080/version", "2s"}
	if out := kubectl(t, get...); !strings.Contains(out, "200 OK") {
		t.Fatalf("before STRICT plaintext is accepted, got %q", out)
	}
	pod := podOf(t, "pictures", "v1")
	if len(pod.Status.PodIPs) != 2 {
		t.Fatalf("pod %s has the addresses %v, want one of each family", pod.Name, pod.Status.PodIPs)
	}
	for _, ip := range pod.Status.PodIPs {
		if err := plain(ip.IP); err != nil {
			t.Fatalf("before STRICT plaintext to %s is accepted, got: %v", ip.IP, err)
		}
	}
	strict(t)
	eventually(t, 10*time.Second, "plaintext is refused", func() (bool, string) {
		out, err := xebec(append([]string{"kubectl"}, get...)...)
		return err != nil && !strings.Contains(out, "200 OK"), out
	})
	for range 20 {
		a, err := visit(context.Background(), desktop)
		if err != nil {
			t.Fatal(err)
		}
		for callee, want := range map[string]string{
			"pictures": "spiffe://cluster.local/ns/pictures/sa/frontend",
			"metadata": "spiffe://cluster.local/ns/pictures/sa/pictures",
		} {
			if a.Callers[callee] != want {
				t.Fatalf("%s was called by %q, want %q", callee, a.Callers[callee], want)
			}
		}
	}
	for _, ip := range pod.Status.PodIPs {
		if err := plain(ip.IP); err == nil {
			t.Errorf("plaintext to %s was answered under STRICT", ip.IP)
		}
	}
	if out := kubectlFails(t, get...); strings.Contains(out, "200 OK") {
		t.Errorf("plaintext was answered under STRICT: %s", out)
	}
}

// plain asks a pod of the pictures service, by its address and without a sidecar.
func plain(ip string) error {
	c := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := c.Get("http://" + net.JoinHostPort(ip, "8080") + "/version")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	return nil
}

// TestNoPlaintext looks at the packets on the pods' interfaces: a visitor's
// request to the frontend can be read there, what the services say cannot.
func TestNoPlaintext(t *testing.T) {
	strict(t)
	request := []byte("GET /api/pictures")
	open := capture(t, podOf(t, "frontend", "v1"))
	closed := capture(t, podOf(t, "metadata", "v1"))
	for range 50 {
		if _, err := visit(context.Background(), desktop); err != nil {
			t.Fatal(err)
		}
	}
	if !open.until(t, func(payload []byte) bool { return bytes.Contains(payload, request) }) {
		t.Fatal("the capture does not see even a plaintext request: it proves nothing")
	}
	seen := closed.stop()
	records := 0
	for _, payload := range seen {
		// TLS application data, RFC 8446 section 5.1.
		if len(payload) > 5 && payload[0] == 0x17 && payload[1] == 3 {
			records++
		}
		for _, word := range []string{"GET /", "HTTP/1.", "user-agent", "User-Agent", "Bergen", "traceparent"} {
			if bytes.Contains(payload, []byte(word)) {
				t.Errorf("plaintext on the interface of metadata: %q in %q", word, payload[:min(len(payload), 80)])
			}
		}
	}
	if records == 0 {
		t.Errorf("no TLS record among %d packets to metadata", len(seen))
	}
	t.Logf("%d packets with payload, %d begin with a TLS record", len(seen), records)
}

// TestFailClosed kills a sidecar: until it is back nothing from outside reaches
// the application, and afterwards the service is there again.
func TestFailClosed(t *testing.T) {
	strict(t)
	pod := podOf(t, "metadata", "v1")
	address := net.JoinHostPort(pod.Status.PodIP, "8080")
	var answered, tried atomic.Int64
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		plain := http.Client{Timeout: 300 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true}}
		for {
			select {
			case <-stop:
				return
			default:
			}
			tried.Add(1)
			if r, err := plain.Get("http://" + address + "/metadata/harbour"); err == nil {
				r.Body.Close()
				answered.Add(1)
			}
		}
	}()
	before := restarts(pod, "istio-proxy")
	killContainer(t, pod, "istio-proxy")
	untilPod(t, pod.Namespace, pod.Name, 60*time.Second, "sidecar restarted and Ready", func(p *corev1.Pod) bool {
		return restarts(p, "istio-proxy") > before && ready(p)
	})
	if err := answers(30 * time.Second); err != nil {
		t.Error(err)
	}
	close(stop)
	<-done
	if answered.Load() > 0 {
		t.Errorf("%d of %d plaintext requests were answered while the sidecar was down", answered.Load(), tried.Load())
	}
	if tried.Load() == 0 {
		t.Error("no plaintext request was tried")
	}
}

// capturing reads the TCP payloads that cross a pod's interface.
type capturing struct {
	fd       int
	payloads chan []byte
	done     chan struct{}
}

func (c *capturing) stop() [][]byte {
	close(c.done)
	var all [][]byte
	for p := range c.payloads {
		all = append(all, p)
	}
	return all
}

func (c *capturing) until(t *testing.T, ok func([]byte) bool) bool {
	t.Helper()
	found := false
	for _, p := range c.stop() {
		found = found || ok(p)
	}
	return found
}

// capture opens a packet socket in the network namespace of a pod.
func capture(t *testing.T, pod *corev1.Pod) *capturing {
	t.Helper()
	fd, err := packetSocket(firstProcess(t, pod))
	if err != nil {
		t.Fatalf("packet socket in pod %s: %v", pod.Name, err)
	}
	c := &capturing{fd: fd, payloads: make(chan []byte, 100_000), done: make(chan struct{})}
	go func() {
		defer close(c.payloads)
		defer syscall.Close(fd)
		frame := make([]byte, 1<<16)
		for {
			n, _, err := syscall.Recvfrom(fd, frame, 0)
			if p := tcpPayload(frame[:max(n, 0)]); err == nil && len(p) > 0 {
				c.payloads <- bytes.Clone(p)
			}
			if err == syscall.EAGAIN {
				select {
				case <-c.done:
					return
				default:
				}
			}
		}
	}()
	return c
}

func firstProcess(t *testing.T, pod *corev1.Pod) int {
	t.Helper()
	for _, s := range pod.Status.ContainerStatuses {
		_, id, _ := strings.Cut(s.ContainerID, "://")
		if procs := processesOf(t, id); len(procs) > 0 {
			return procs[0]
		}
	}
	t.Fatalf("pod %s has no process", pod.Name)
	return 0
}
