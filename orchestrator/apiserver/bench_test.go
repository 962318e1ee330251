package apiserver_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/xebec-mesh/xebec/orchestrator/apiserver/apitest"
)

// The figures over TLS with a protobuf client, both sides in this process.

func clientset(b *testing.B, s *apitest.Server) *kubernetes.Clientset {
	b.Helper()
	cfg := s.Config(b, "bench", "system:masters")
	cfg.ContentType, cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	c, err := kubernetes.NewForConfig(rest.CopyConfig(cfg))
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func fill(b *testing.B, c *kubernetes.Clientset, n int) {
	b.Helper()
	for i := range n {
		labels := map[string]string{"tenth": fmt.Sprint(i % 10)}
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("cm-%d", i), Labels: labels}, Data: map[string]string{"k": strings.Repeat("x", 900)}}
		if _, err := c.CoreV1().ConfigMaps("default").Create(context.Background(), cm, metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreate(b *testing.B) {
	c := clientset(b, apitest.Start(b, nil))
	data := map[string]string{"k": strings.Repeat("x", 900)}
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "cm-"}, Data: data}
			if _, err := c.CoreV1().ConfigMaps("default").Create(context.Background(), cm, metav1.CreateOptions{}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
}

func BenchmarkGet(b *testing.B) {
	c := clientset(b, apitest.Start(b, nil))
	fill(b, c, 1)
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.CoreV1().ConfigMaps("default").Get(context.Background(), "cm-0", metav1.GetOptions{}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "gets/s")
}

func BenchmarkList(b *testing.B) {
	for _, size := range []int{200, 2000} {
		c := clientset(b, apitest.Start(b, nil))
		fill(b, c, size)
		for name, selector := range map[string]string{"all": "", "label": "tenth=3"} {
			b.Run(fmt.Sprintf("objects=%d/%s", size, name), func(b *testing.B) {
				b.SetParallelism(2)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := c.CoreV1().ConfigMaps("default").List(context.Background(), metav1.ListOptions{LabelSelector: selector}); err != nil {
							b.Error(err)
							return
						}
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lists/s")
			})
		}
	}
}

// BenchmarkListRaw reads the answer and does not decode it: the server's share.
func BenchmarkListRaw(b *testing.B) {
	for _, size := range []int{2000} {
		s := apitest.Start(b, nil)
		fill(b, clientset(b, s), size)
		hc := s.HTTP(b, "bench", "system:masters")
		for _, accept := range []string{"application/vnd.kubernetes.protobuf", "application/json"} {
			b.Run(fmt.Sprintf("objects=%d/%s", size, accept[len("application/"):]), func(b *testing.B) {
				b.SetParallelism(2)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						r, _ := http.NewRequest(http.MethodGet, s.URL+"/api/v1/namespaces/default/configmaps", nil)
						r.Header.Set("Accept", accept)
						resp, err := hc.Do(r)
						if err != nil {
							b.Error(err)
							return
						}
						n, _ := io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
						b.SetBytes(n)
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lists/s")
			})
		}
	}
}

func BenchmarkFanOut(b *testing.B) {
	for _, watchers := range []int{10, 100} {
		b.Run(fmt.Sprintf("watchers=%d", watchers), func(b *testing.B) {
			s := apitest.Start(b, nil)
			c := clientset(b, s)
			fill(b, c, 1)
			var wg sync.WaitGroup
			for range watchers {
				w, err := c.CoreV1().ConfigMaps("default").Watch(context.Background(), metav1.ListOptions{ResourceVersion: "0"})
				if err != nil {
					b.Fatal(err)
				}
				defer w.Stop()
				<-w.ResultChan()
				wg.Go(func() {
					for range b.N {
						<-w.ResultChan()
					}
				})
			}
			b.ResetTimer()
			var n atomic.Int64
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					patch := fmt.Sprintf(`{"data":{"n":"%d"}}`, n.Add(1))
					if _, err := c.CoreV1().ConfigMaps("default").Patch(context.Background(), "cm-0", "application/merge-patch+json", []byte(patch), metav1.PatchOptions{}); err != nil {
						b.Error(err)
					}
				}
			})
			wg.Wait()
			b.ReportMetric(float64(b.N*watchers)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
