package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

const probeImage = "xebec.local/e2e/probe:v1"

// scheduling creates nodes that no agent stands behind and binds pods to them.
func (b *bench) scheduling(ctx context.Context) error {
	const nodes, pods, namespace = 1000, 3000, "bench-scheduling"
	if _, err := b.api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	_, _, err := concurrently(ctx, parallel, nodes, func(i int) error {
		node, err := b.api.CoreV1().Nodes().Create(ctx, simulated(i), metav1.CreateOptions{})
		if err != nil {
			return err
		}
		node.Status, node.ResourceVersion = simulated(i).Status, ""
		_, err = b.api.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("nodes: %w", err)
	}
	defer func() {
		_ = b.api.CoreV1().Nodes().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "bench=simulated"})
	}()
	w, err := b.api.CoreV1().Pods(namespace).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	defer w.Stop()
	begun := time.Now()
	created := make(chan error, 1)
	go func() {
		_, _, err := concurrently(ctx, parallel, pods, func(i int) error {
			_, err := b.api.CoreV1().Pods(namespace).Create(ctx, pending(i), metav1.CreateOptions{})
			return err
		})
		created <- err
	}()
	bound := map[string]bool{}
	for len(bound) < pods {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				return fmt.Errorf("the watch ended after %d of %d pods", len(bound), pods)
			}
			if pod, ok := e.Object.(*corev1.Pod); ok && e.Type != watch.Deleted && pod.Spec.NodeName != "" {
				bound[pod.Name] = true
			}
		case <-time.After(30 * time.Second):
			return fmt.Errorf("%d of %d pods bound, and no change for 30 s", len(bound), pods)
		}
	}
	took := time.Since(begun)
	if err := <-created; err != nil {
		return err
	}
	row(fmt.Sprintf("pods created to bound, %d nodes", nodes), "%.0f/s (%d pods)", pods/took.Seconds(), pods)
	zero := int64(0)
	return b.api.CoreV1().Pods(namespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &zero}, metav1.ListOptions{})
}

func simulated(i int) *corev1.Node {
	capacity := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("32"), corev1.ResourceMemory: resource.MustParse("128Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name("simulated", i), Labels: map[string]string{"bench": "simulated"}},
		Status: corev1.NodeStatus{
			Capacity: capacity, Allocatable: capacity,
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}},
		},
	}
}

func pending(i int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name("pod", i)},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{"bench": "simulated"},
			Tolerations:  []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers: []corev1.Container{{
				Name: "c", Image: probeImage,
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")}},
			}},
		},
	}
}

// podStart measures pod create to Running against containerd alone with the same
// image, in turns.
func (b *bench) podStart(ctx context.Context) error {
	c, err := containerd.New("/run/xebec-bench/containerd/containerd.sock", containerd.WithDefaultNamespace("k8s.io"))
	if err != nil {
		return err
	}
	defer c.Close()
	// The same shim for both sides: what is compared is all that a pod is beside its container.
	shim, err := filepath.Abs(filepath.Join(b.bin, "containerd-shim-xebec-v2"))
	if err != nil {
		return err
	}
	var pods, plain []time.Duration
	for i := range 20 {
		d, err := b.startPod(ctx, name("start", i))
		if err != nil {
			return err
		}
		pods = append(pods, d)
		if d, err = startContainer(ctx, c, shim, name("plain", i)); err != nil {
			return fmt.Errorf("plain containerd: %w", err)
		}
		plain = append(plain, d)
	}
	p, q := quantile(pods, .5), quantile(plain, .5)
	row("pod create to Running, image present", "p50 %.0f ms, p99 %.0f ms", ms(p), ms(quantile(pods, .99)))
	row("… a container with containerd alone", "p50 %.0f ms; ratio %.2f", ms(q), float64(p)/float64(q))
	return nil
}

func (b *bench) startPod(ctx context.Context, name string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	pods := b.api.CoreV1().Pods("default")
	w, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return 0, err
	}
	defer w.Stop()
	begun := time.Now()
	if _, err := pods.Create(ctx, probePod(name, nil, "wait"), metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	for e := range w.ResultChan() {
		if pod, ok := e.Object.(*corev1.Pod); ok && pod.Status.Phase == corev1.PodRunning {
			took := time.Since(begun)
			zero := int64(0)
			return took, pods.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
		}
	}
	return 0, fmt.Errorf("pod %s: not running within 30 s", name)
}

func startContainer(ctx context.Context, c *containerd.Client, shim, id string) (time.Duration, error) {
	begun := time.Now()
	image, err := c.GetImage(ctx, probeImage)
	if err != nil {
		return 0, err
	}
	container, err := c.NewContainer(ctx, id, containerd.WithNewSnapshot(id, image), containerd.WithRuntime(shim, nil), containerd.WithNewSpec(oci.WithImageConfigArgs(image, []string{"wait"})))
	if err != nil {
		return 0, err
	}
	defer container.Delete(ctx, containerd.WithSnapshotCleanup)
	task, err := container.NewTask(ctx, cio.NullIO)
	if err != nil {
		return 0, err
	}
	defer task.Delete(ctx, containerd.WithProcessKill)
	if err := task.Start(ctx); err != nil {
		return 0, err
	}
	return time.Since(begun), nil
}

func probePod(name string, labels map[string]string, args ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64),
			Containers: []corev1.Container{{
				Name: "probe", Image: probeImage, ImagePullPolicy: corev1.PullNever, Args: args,
			}},
		},
	}
}
