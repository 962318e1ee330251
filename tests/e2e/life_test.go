package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestRolloutUnderLoad restarts every Deployment; not one visit may fail.
func TestRolloutUnderLoad(t *testing.T) {
	l := startLoad(4)
	l.passed(t, 100)
	for _, d := range deployments {
		kubectl(t, "-n", "pictures", "rollout", "restart", "deployment", d)
	}
	for _, d := range deployments {
		kubectl(t, "-n", "pictures", "rollout", "status", "deployment", d, "--timeout=120s")
	}
	// The old pods are gone from the API when their last container has ended.
	eventually(t, time.Minute, "old pods end", func() (bool, string) {
		pods, err := cluster.api.CoreV1().Pods("pictures").List(context.Background(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return len(pods.Items) == len(deployments), fmt.Sprintf("%d pods", len(pods.Items))
	})
	l.passed(t, 100)
	l.stop(t)
}

// snapshot is what must not change when the server is killed: each container's
// identity and restarts, and each object's version.
func snapshot(t *testing.T) (containers, objects string) {
	t.Helper()
	pods, err := cluster.api.CoreV1().Pods("").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, p := range pods.Items {
		for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			fmt.Fprintf(&b, "%s/%s/%s %s %d\n", p.Namespace, p.Name, c.Name, c.ContainerID, c.RestartCount)
		}
	}
	objects = kubectl(t, "get", "deployments,replicasets,services,configmaps,secrets,serviceaccounts,virtualservices,destinationrules,crd", "-A",
		"-o", `jsonpath={range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name} {.metadata.uid}{"\n"}{end}`)
	return b.String(), objects
}

// TestKill kills the server with SIGKILL under load and starts it again: no visit
// fails, no container restarts, no object is lost.
func TestKill(t *testing.T) {
	containers, objects := snapshot(t)
	l := startLoad(4)
	l.passed(t, 100)
	data, err := os.ReadFile(filepath.Join(*state, "xebec.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
	l.passed(t, 300)
	if err := up(); err != nil {
		t.Fatal(err)
	}
	l.passed(t, 300)
	l.stop(t)
	containersAfter, objectsAfter := snapshot(t)
	if containersAfter != containers {
		t.Errorf("containers before:\n%s\nafter:\n%s", containers, containersAfter)
	}
	if objectsAfter != objects {
		t.Errorf("objects before:\n%s\nafter:\n%s", objects, objectsAfter)
	}
}

// TestContainerRestarts kills an application's process; its container comes back
// in the same pod.
func TestContainerRestarts(t *testing.T) {
	pod := podOf(t, "metadata", "v1")
	before := restarts(pod, "metadata")
	killContainer(t, pod, "metadata")
	untilPod(t, pod.Namespace, pod.Name, 30*time.Second, "container restarted and Ready", func(p *corev1.Pod) bool {
		return restarts(p, "metadata") == before+1 && ready(p)
	})
}

func restarts(pod *corev1.Pod, container string) int32 {
	for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if c.Name == container {
			return c.RestartCount
		}
	}
	return -1
}

// killContainer sends SIGKILL to every process in a container's cgroup.
func killContainer(t *testing.T, pod *corev1.Pod, container string) {
	t.Helper()
	for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if c.Name != container {
			continue
		}
		_, id, _ := strings.Cut(c.ContainerID, "://")
		procs := processesOf(t, id)
		if len(procs) == 0 {
			t.Fatalf("container %s of %s has no process", container, pod.Name)
		}
		for _, pid := range procs {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
				t.Fatalf("kill %d: %v", pid, err)
			}
		}
		return
	}
	t.Fatalf("pod %s has no container %s", pod.Name, container)
}

// processesOf finds the processes in the cgroups that carry a container's id.
func processesOf(t *testing.T, id string) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cgroups, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cgroup"))
		if err == nil && strings.Contains(string(cgroups), id) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestPodReplaced deletes a pod; another takes its place, and the endpoints
// follow each step within a second.
func TestPodReplaced(t *testing.T) {
	pod := podOf(t, "metadata", "v1")
	ctx := context.Background()
	slices := func() (ready map[string]bool) {
		ready = map[string]bool{}
		list, err := cluster.api.DiscoveryV1().EndpointSlices("pictures").List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=metadata"})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list.Items {
			for _, e := range s.Endpoints {
				if e.Conditions.Ready != nil && *e.Conditions.Ready && e.TargetRef != nil {
					ready[e.TargetRef.Name] = true
				}
			}
		}
		return ready
	}
	if err := cluster.api.CoreV1().Pods("pictures").Delete(ctx, pod.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Second, "the deleted pod leaves the endpoints", func() (bool, string) {
		r := slices()
		return !r[pod.Name], fmt.Sprint(r)
	})
	var next *corev1.Pod
	eventually(t, 30*time.Second, "another pod is Ready", func() (bool, string) {
		list, err := cluster.api.CoreV1().Pods("pictures").List(ctx, metav1.ListOptions{LabelSelector: "app=metadata"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			if p := &list.Items[i]; p.UID != pod.UID && ready(p) {
				next = p
			}
		}
		return next != nil, fmt.Sprintf("%d pods", len(list.Items))
	})
	eventually(t, time.Second, "the new pod joins the endpoints", func() (bool, string) {
		r := slices()
		return r[next.Name], fmt.Sprint(r)
	})
}
