package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

const (
	objects  = 2000
	watchers = 100
	parallel = 32
)

// apiServer measures create, get, list and watch over TLS with protobuf.
func (b *bench) apiServer(ctx context.Context) error {
	const namespace = "bench"
	if _, err := b.api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	maps := b.api.CoreV1().ConfigMaps(namespace)
	create := func(ctx context.Context, prefix string, i int) error {
		_, err := maps.Create(ctx, configMap(prefix, i), metav1.CreateOptions{})
		return err
	}
	rate, times, err := concurrently(ctx, parallel, objects, func(i int) error { return create(ctx, "a", i) })
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	row("CREATE, 1 KiB ConfigMap", "%.0f/s, p50 %.1f ms, p99 %.1f ms (%d clients)", rate, ms(quantile(times, .5)), ms(quantile(times, .99)), parallel)

	rate, times, err = concurrently(ctx, parallel, 5*objects, func(i int) error {
		_, err := maps.Get(ctx, name("a", i%objects), metav1.GetOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	row("GET", "%.0f/s, p50 %.1f ms, p99 %.1f ms", rate, ms(quantile(times, .5)), ms(quantile(times, .99)))

	rate, times, err = concurrently(ctx, 4, 200, func(int) error {
		list, err := maps.List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) < objects {
			err = fmt.Errorf("%d objects, want %d", len(list.Items), objects)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	row(fmt.Sprintf("LIST of %d × 1 KiB, decoded by the client", objects), "%.0f/s, p50 %.1f ms", rate, ms(quantile(times, .5)))
	raw := b.api.CoreV1().RESTClient()
	rate, times, err = concurrently(ctx, 4, 400, func(int) error {
		data, err := raw.Get().Namespace(namespace).Resource("configmaps").Do(ctx).Raw()
		if err == nil && len(data) < objects*1024 {
			err = fmt.Errorf("%d bytes", len(data))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	row(fmt.Sprintf("LIST of %d × 1 KiB, bytes only", objects), "%.0f/s, p50 %.1f ms", rate, ms(quantile(times, .5)))
	if err := b.fanOut(ctx, namespace, create); err != nil {
		return fmt.Errorf("fan-out: %w", err)
	}
	return b.api.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{})
}

// fanOut creates objects while many watch, and waits until everybody saw all.
func (b *bench) fanOut(ctx context.Context, namespace string, create func(context.Context, string, int) error) error {
	const created = 500
	list, err := b.api.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var seen atomic.Int64
	var wg sync.WaitGroup
	for range watchers {
		// A connection for each, as separate controllers have.
		client, err := kubernetes.NewForConfig(b.config)
		if err != nil {
			return err
		}
		w, err := client.CoreV1().ConfigMaps(namespace).Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
		if err != nil {
			return err
		}
		wg.Go(func() { count(w, created, &seen) })
	}
	begun := time.Now()
	if _, _, err := concurrently(ctx, parallel, created, func(i int) error { return create(ctx, "w", i) }); err != nil {
		return err
	}
	wg.Wait()
	if n := seen.Load(); n < created*watchers {
		return fmt.Errorf("%d events of %d arrived", n, created*watchers)
	}
	row(fmt.Sprintf("watch fan-out to %d watchers", watchers), "%.0f events/s", float64(seen.Load())/time.Since(begun).Seconds())
	return nil
}

func count(w watch.Interface, want int, seen *atomic.Int64) {
	defer w.Stop()
	for n := 0; n < want; {
		e, ok := <-w.ResultChan()
		if !ok {
			return
		}
		if e.Type == watch.Added {
			n++
			seen.Add(1)
		}
	}
}

func name(prefix string, i int) string { return fmt.Sprintf("%s-%05d", prefix, i) }

func configMap(prefix string, i int) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name(prefix, i), Labels: map[string]string{"tenth": fmt.Sprint(i % 10)}},
		Data:       map[string]string{"data": strings.Repeat("x", 1024)},
	}
}
