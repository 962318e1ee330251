package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// services measures a Service's address against the pod's own, in turns.
func (b *bench) services(ctx context.Context) error {
	pod, service, err := b.server(ctx, "default", "target")
	if err != nil {
		return err
	}
	direct, balanced := net.JoinHostPort(pod, "8080"), net.JoinHostPort(service, "8080")
	connect := map[string][]time.Duration{}
	request := map[string][]time.Duration{}
	bytes := map[string]float64{}
	clients := map[string]*http.Client{direct: {Transport: &http.Transport{}}, balanced: {Transport: &http.Transport{}}}
	const rounds, mib = 2000, 64
	for i := range rounds {
		for _, to := range turns(i, direct, balanced) {
			d, err := dial(ctx, to)
			if err != nil {
				return err
			}
			connect[to] = append(connect[to], d)
			if d, err = get(ctx, clients[to], "http://"+to+"/", nil); err != nil {
				return err
			}
			request[to] = append(request[to], d)
		}
	}
	for i := range 10 {
		for _, to := range turns(i, direct, balanced) {
			var n int64
			d, err := get(ctx, clients[to], fmt.Sprintf("http://%s/bytes?n=%d", to, mib<<20), &n)
			if err != nil {
				return err
			}
			bytes[to] += float64(n) / d.Seconds() / 10
		}
	}
	ratio := func(m map[string][]time.Duration, q float64) float64 {
		return float64(quantile(m[balanced], q)) / float64(quantile(m[direct], q))
	}
	row("ClusterIP against the pod's address: connect", "p50 ×%.3f, p99 ×%.3f (direct p50 %d µs)", ratio(connect, .5), ratio(connect, .99), quantile(connect[direct], .5).Microseconds())
	row("… request on an open connection", "p50 ×%.3f, p99 ×%.3f (direct p50 %d µs)", ratio(request, .5), ratio(request, .99), quantile(request[direct], .5).Microseconds())
	row("… throughput", "×%.3f (direct %.0f MB/s)", bytes[balanced]/bytes[direct], bytes[direct]/1e6)
	return nil
}

// turns changes who goes first.
func turns(i int, a, b string) []string {
	if i%2 == 0 {
		return []string{a, b}
	}
	return []string{b, a}
}

func dial(ctx context.Context, address string) (time.Duration, error) {
	var d net.Dialer
	begun := time.Now()
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return 0, err
	}
	took := time.Since(begun)
	return took, c.Close()
}

func get(ctx context.Context, c *http.Client, url string, n *int64) (time.Duration, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	answer, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	read, err := io.Copy(io.Discard, answer.Body)
	if n != nil {
		*n = read
	}
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", url, answer.Status)
	}
	return time.Since(begun), err
}

// server runs the probe as a server behind a Service and returns both addresses.
func (b *bench) server(ctx context.Context, namespace, name string) (podIP, serviceIP string, err error) {
	labels := map[string]string{"app": name}
	service, err := b.api.CoreV1().Services(namespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{
			Name: "http", Port: 8080, TargetPort: intstr.FromInt32(8080),
		}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", "", err
	}
	podIP, err = b.runPod(ctx, namespace, probePod(name, labels, "serve", "8080"))
	if err != nil {
		return "", "", err
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		if _, err = get(ctx, http.DefaultClient, "http://"+net.JoinHostPort(service.Spec.ClusterIP, "8080")+"/", nil); err == nil {
			return podIP, service.Spec.ClusterIP, nil
		}
		if time.Now().After(deadline) {
			return "", "", fmt.Errorf("service %s/%s does not answer: %w", namespace, name, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// runPod creates a pod and waits until it is Ready.
func (b *bench) runPod(ctx context.Context, namespace string, pod *corev1.Pod) (ip string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	pods := b.api.CoreV1().Pods(namespace)
	w, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + pod.Name})
	if err != nil {
		return "", err
	}
	defer w.Stop()
	if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	for e := range w.ResultChan() {
		p, ok := e.Object.(*corev1.Pod)
		if !ok {
			continue
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return p.Status.PodIP, nil
			}
		}
	}
	return "", fmt.Errorf("pod %s/%s: not Ready within a minute", namespace, pod.Name)
}
