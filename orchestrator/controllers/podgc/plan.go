package podgc

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
)

// Snapshot is all that a plan depends on.
type Snapshot struct {
	Pods    []*corev1.Pod
	Missing map[string]bool // nodes that have been gone for long enough
	Keep    int             // ended pods that are kept; negative: all
}

// Plan lists what to delete. The zero Plan means converged.
type Plan struct {
	Delete []Victim
}

// Victim is a pod that nobody else will remove.
type Victim struct {
	Pod    *corev1.Pod
	Reason string
	Fail   bool // it may have run: say that it failed, before it goes
}

// compute makes the plan. The order of Pods does not matter.
func compute(s Snapshot) Plan {
	var p Plan
	var ended []*corev1.Pod
	for _, pod := range s.Pods {
		switch {
		case s.Missing[pod.Spec.NodeName]:
			p.Delete = append(p.Delete, Victim{pod, "PodGC: node no longer exists", !pods.Finished(pod)})
		case pod.DeletionTimestamp != nil && pod.Spec.NodeName == "":
			p.Delete = append(p.Delete, Victim{pod, "PodGC: deleted before it was scheduled", !pods.Finished(pod)})
		case pods.Finished(pod) && pod.DeletionTimestamp == nil:
			ended = append(ended, pod)
		}
	}
	if s.Keep >= 0 && len(ended) > s.Keep {
		slices.SortFunc(ended, func(a, b *corev1.Pod) int {
			return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(client.Key(a).String(), client.Key(b).String()))
		})
		for _, pod := range ended[:len(ended)-s.Keep] {
			p.Delete = append(p.Delete, Victim{pod, "PodGC: more ended pods than are kept", false})
		}
	}
	slices.SortStableFunc(p.Delete, func(a, b Victim) int {
		return strings.Compare(client.Key(a.Pod).String(), client.Key(b.Pod).String())
	})
	return p
}

// String prints one line an action.
func (p Plan) String() string {
	var b strings.Builder
	for _, v := range p.Delete {
		fmt.Fprintf(&b, "delete pod %s: %s\n", client.Key(v.Pod), v.Reason)
	}
	return b.String()
}
