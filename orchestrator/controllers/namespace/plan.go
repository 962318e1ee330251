package namespace

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/controllers/pods"
)

// poll is how soon to look again for what waits for somebody's finalizer.
const poll = time.Second

// Item is one object in a namespace.
type Item struct {
	pods.Ref
	Resource   client.Resource
	Deleting   bool
	Finalizers []string
}

// Snapshot is all that a plan depends on.
type Snapshot struct {
	Namespace *corev1.Namespace
	Items     []Item // everything in it
	Failures  []string
}

// Plan says what brings a namespace closer to its end. The zero Plan means that it
// is not being deleted, or gone.
type Plan struct {
	Delete     []Item
	Status     *corev1.NamespaceStatus // nil: as it is
	Finalize   bool                    // nothing is left: give the namespace up
	RetryAfter time.Duration
}

// compute makes the plan. Pods go first, so that nothing they use disappears under
// them.
func compute(s Snapshot, now time.Time) Plan {
	ns := s.Namespace
	if ns.DeletionTimestamp == nil {
		return Plan{}
	}
	var p Plan
	items := s.Items
	if slices.ContainsFunc(items, isPod) {
		items = slices.DeleteFunc(slices.Clone(items), func(i Item) bool { return !isPod(i) })
	}
	for _, i := range items {
		if !i.Deleting {
			p.Delete = append(p.Delete, i)
		}
	}
	slices.SortFunc(p.Delete, func(a, b Item) int {
		return cmp.Or(cmp.Compare(a.Resource.String(), b.Resource.String()), cmp.Compare(a.Name, b.Name))
	})
	if len(s.Items) == 0 && len(s.Failures) == 0 {
		p.Finalize = slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes)
		return p
	}
	status := corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating, Conditions: conditions(s, now)}
	if !equality.Semantic.DeepEqual(status, ns.Status) {
		p.Status = &status
	}
	p.RetryAfter = poll
	return p
}

func isPod(i Item) bool { return i.Resource.GroupVersionResource == client.Pods.GroupVersionResource }

// conditions tell users why a namespace is not gone yet.
func conditions(s Snapshot, now time.Time) []corev1.NamespaceCondition {
	left, finalizers := map[string]int{}, map[string]int{}
	for _, i := range s.Items {
		left[i.Resource.GroupResource().String()]++
		for _, f := range i.Finalizers {
			finalizers[f]++
		}
	}
	out := slices.Clone(s.Namespace.Status.Conditions)
	set := func(t corev1.NamespaceConditionType, bad bool, badReason, badMessage, reason, message string) {
		c := corev1.NamespaceCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(now.Truncate(time.Second))}
		if bad {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, badReason, badMessage
		}
		for i := range out {
			if out[i].Type != t {
				continue
			}
			if out[i].Status == c.Status {
				c.LastTransitionTime = out[i].LastTransitionTime
			}
			out[i] = c
			return
		}
		out = append(out, c)
	}
	set(corev1.NamespaceDeletionDiscoveryFailure, len(s.Failures) > 0, "DiscoveryFailed", "Discovery failed for some groups: "+strings.Join(s.Failures, "; "),
		"ResourcesDiscovered", "All resources successfully discovered")
	set(corev1.NamespaceDeletionGVParsingFailure, false, "", "", "ParsedGroupVersions", "All legacy kube types successfully parsed")
	set(corev1.NamespaceDeletionContentFailure, false, "", "", "ContentDeleted", "All content successfully deleted, may be waiting on finalization")
	set(corev1.NamespaceContentRemaining, len(left) > 0, "SomeResourcesRemain", "Some resources are remaining: "+list(left, "%s has %d resource instances"),
		"ContentRemoved", "All content successfully removed")
	set(corev1.NamespaceFinalizersRemaining, len(finalizers) > 0, "SomeFinalizersRemain",
		"Some content in the namespace has finalizers remaining: "+list(finalizers, "%s in %d resource instances"),
		"ContentHasNoFinalizers", "All content-preserving finalizers finished")
	return out
}

func list(counts map[string]int, format string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, fmt.Sprintf(format, k, counts[k]))
	}
	return strings.Join(out, ", ")
}

// String prints one line an action.
func (p Plan) String() string {
	var b strings.Builder
	for _, i := range p.Delete {
		fmt.Fprintf(&b, "delete %s %s\n", i.Resource.GroupResource(), i.NamespacedName)
	}
	if p.Status != nil {
		for _, c := range p.Status.Conditions {
			fmt.Fprintf(&b, "status %s=%s %s\n", c.Type, c.Status, c.Message)
		}
	}
	if p.Finalize {
		b.WriteString("finalize\n")
	}
	return b.String()
}
