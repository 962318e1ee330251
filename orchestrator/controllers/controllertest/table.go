package controllertest

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// get prints one sorted line for each object; equal lines are counted.
func (w *World) get(_ func(string) ([]byte, error), args []string) (string, error) {
	r, err := named(args[0])
	if err != nil {
		return "", err
	}
	items, _, err := w.Client.List(w.ctx, r, client.ListOptions{})
	if err != nil {
		return "", err
	}
	lines := map[string]int{}
	for _, o := range items {
		for _, line := range Lines(o) {
			lines[line]++
		}
	}
	var b strings.Builder
	for _, line := range slices.Sorted(maps.Keys(lines)) {
		if n := lines[line]; n > 1 {
			fmt.Fprintf(&b, "%s x%d\n", line, n)
		} else {
			fmt.Fprintln(&b, line)
		}
	}
	return b.String(), nil
}

// Lines says what matters about an object, without what changes from run to run.
func Lines(o client.Object) []string {
	switch o := o.(type) {
	case *corev1.Pod:
		return []string{podLine(o)}
	case *appsv1.ReplicaSet:
		return []string{setLine(o)}
	case *appsv1.Deployment:
		return []string{deploymentLine(o)}
	case *discoveryv1.EndpointSlice:
		return sliceLines(o)
	case *corev1.Endpoints:
		return endpointsLines(o)
	case *eventsv1.Event:
		return []string{fmt.Sprintf("%s %s/%s %s: %s", o.Type, o.Regarding.Kind, stem(o.Regarding.Name), o.Reason, generated.ReplaceAllString(o.Note, "-*"))}
	case *corev1.Namespace:
		return []string{fmt.Sprintf("%s %s%s", o.Name, o.Status.Phase, conditionsOf(o))}
	case *corev1.Node:
		return []string{nodeLine(o)}
	}
	return []string{strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/") + metaOf(o)}
}

// metaOf is what garbage collection is about.
func metaOf(o client.Object) string {
	s := ""
	if o.GetDeletionTimestamp() != nil {
		s += " deleting"
	}
	if f := o.GetFinalizers(); len(f) > 0 {
		s += " finalizers=" + strings.Join(f, ",")
	}
	for _, ref := range o.GetOwnerReferences() {
		s += " owner=" + ref.Kind + "/" + ref.Name
	}
	return s
}

func podLine(p *corev1.Pod) string {
	state := string(p.Status.Phase)
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && p.Status.Phase == corev1.PodRunning {
			state = "Ready"
		}
	}
	if p.DeletionTimestamp != nil {
		state = "Terminating"
	}
	name := p.Name
	if p.GenerateName != "" {
		name = p.GenerateName + "*"
	}
	line := name + " " + state
	if ref := metav1.GetControllerOfNoCopy(p); ref != nil {
		line += " of " + ref.Name
	}
	return line
}

func setLine(rs *appsv1.ReplicaSet) string {
	s := rs.Status
	line := fmt.Sprintf("%s want=%d replicas=%d ready=%d available=%d", rs.Name, deref(rs.Spec.Replicas), s.Replicas, s.ReadyReplicas, s.AvailableReplicas)
	if t := deref(s.TerminatingReplicas); t > 0 {
		line += fmt.Sprintf(" terminating=%d", t)
	}
	if s.ObservedGeneration != rs.Generation {
		line += " stale"
	}
	if r := rs.Annotations["deployment.kubernetes.io/revision"]; r != "" {
		line += " revision=" + r
	}
	for _, c := range s.Conditions {
		line += fmt.Sprintf(" %s=%s(%s)", c.Type, c.Status, c.Reason)
	}
	return line + metaOf(rs)
}

func deploymentLine(d *appsv1.Deployment) string {
	s := d.Status
	line := fmt.Sprintf("%s want=%d replicas=%d updated=%d ready=%d available=%d", d.Name, deref(d.Spec.Replicas), s.Replicas, s.UpdatedReplicas, s.ReadyReplicas, s.AvailableReplicas)
	if s.UnavailableReplicas > 0 {
		line += fmt.Sprintf(" unavailable=%d", s.UnavailableReplicas)
	}
	if s.ObservedGeneration != d.Generation {
		line += " stale"
	}
	line += " revision=" + d.Annotations["deployment.kubernetes.io/revision"]
	for _, c := range s.Conditions {
		line += fmt.Sprintf(" %s=%s(%s)", c.Type, c.Status, c.Reason)
	}
	return line
}

func sliceLines(s *discoveryv1.EndpointSlice) []string {
	var ports []string
	for _, p := range s.Ports {
		ports = append(ports, fmt.Sprintf("%s:%d/%s", deref(p.Name), deref(p.Port), deref(p.Protocol)))
	}
	head := fmt.Sprintf("%s %s %s", stem(s.Name), s.AddressType, strings.Join(ports, ","))
	if len(s.Endpoints) == 0 {
		return []string{head + " -"}
	}
	var out []string
	for _, e := range s.Endpoints {
		line := head + " " + strings.Join(e.Addresses, ",")
		for _, c := range []struct {
			name string
			is   *bool
		}{{"ready", e.Conditions.Ready}, {"serving", e.Conditions.Serving}, {"terminating", e.Conditions.Terminating}} {
			if deref(c.is) {
				line += " " + c.name
			}
		}
		if e.NodeName != nil {
			line += " node=" + *e.NodeName
		}
		if e.Zone != nil {
			line += " zone=" + *e.Zone
		}
		if e.TargetRef != nil {
			line += " " + e.TargetRef.Kind + "/" + generated.ReplaceAllString(e.TargetRef.Name, "-*")
		}
		out = append(out, line)
	}
	return out
}

func endpointsLines(e *corev1.Endpoints) []string {
	out := []string{}
	for _, s := range e.Subsets {
		var ports, ready, not []string
		for _, p := range s.Ports {
			ports = append(ports, fmt.Sprintf("%s:%d/%s", p.Name, p.Port, p.Protocol))
		}
		for _, a := range s.Addresses {
			ready = append(ready, a.IP)
		}
		for _, a := range s.NotReadyAddresses {
			not = append(not, a.IP)
		}
		out = append(out, fmt.Sprintf("%s %s ready=%s notReady=%s", e.Name, strings.Join(ports, ","), strings.Join(ready, ","), strings.Join(not, ",")))
	}
	if len(out) == 0 {
		return []string{e.Name + " -"}
	}
	return out
}

func conditionsOf(ns *corev1.Namespace) string {
	s := ""
	for _, c := range ns.Status.Conditions {
		s += fmt.Sprintf(" %s=%s", c.Type, c.Status)
		if c.Status == corev1.ConditionTrue {
			s += "(" + c.Message + ")"
		}
	}
	return s
}

func nodeLine(n *corev1.Node) string {
	line := n.Name
	for _, c := range n.Status.Conditions {
		line += fmt.Sprintf(" %s=%s", c.Type, c.Status)
	}
	for _, t := range n.Spec.Taints {
		line += fmt.Sprintf(" %s:%s", t.Key, t.Effect)
	}
	if len(n.Spec.PodCIDRs) > 0 {
		line += " " + strings.Join(n.Spec.PodCIDRs, ",")
	}
	return line
}

// generated matches the suffix that the API appends to a generateName.
var generated = regexp.MustCompile(`-[bcdfghjklmnpqrstvwxz2456789]{5}\b`)

// stem replaces a generated suffix by a star.
func stem(name string) string {
	i := strings.LastIndexByte(name, '-')
	if i > 0 && len(name)-i == 6 {
		return name[:i] + "-*"
	}
	return name
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
