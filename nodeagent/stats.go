package nodeagent

import (
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/xebec-mesh/xebec/nodeagent/container"
)

// summary is what /stats/summary answers: the use of CPU and memory by the node's
// pods and their containers, read from their cgroups.
func (a *Agent) summary(p *parts) stats.Summary {
	now := metav1.NewTime(time.Now())
	all := container.ReadUsage(a.cfg.Cgroup)
	out := stats.Summary{Node: stats.NodeStats{NodeName: a.cfg.Node, CPU: cpu(now, all), Memory: memory(now, all)}}
	for _, pod := range p.pods.List() {
		dir := p.pods.Cgroup(pod)
		u := container.ReadUsage(dir)
		ps := stats.PodStats{
			PodRef:    stats.PodReference{Name: pod.Name, Namespace: pod.Namespace, UID: string(pod.UID)},
			StartTime: pod.CreationTimestamp, CPU: cpu(now, u), Memory: memory(now, u),
		}
		for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
			for _, c := range list {
				if c.State.Running == nil {
					continue
				}
				u := container.ReadUsage(filepath.Join(dir, strings.TrimPrefix(c.ContainerID, "containerd://")))
				ps.Containers = append(ps.Containers, stats.ContainerStats{
					Name: c.Name, StartTime: c.State.Running.StartedAt, CPU: cpu(now, u), Memory: memory(now, u),
				})
			}
		}
		out.Pods = append(out.Pods, ps)
	}
	return out
}

func cpu(now metav1.Time, u container.Usage) *stats.CPUStats {
	n := uint64(u.CPU.Nanoseconds())
	return &stats.CPUStats{Time: now, UsageCoreNanoSeconds: &n}
}

func memory(now metav1.Time, u container.Usage) *stats.MemoryStats {
	return &stats.MemoryStats{Time: now, UsageBytes: &u.Memory, WorkingSetBytes: &u.WorkingSet}
}
