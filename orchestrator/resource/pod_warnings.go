package resource

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func podWarnings(p *corev1.Pod, old Object) []string {
	if o, ok := old.(*corev1.Pod); ok && equality.Semantic.DeepEqual(o.Spec, p.Spec) {
		return nil
	}
	var out []string
	if old == nil {
		out = nameWarnings(p.Name, "the Pod's hostname")
	}
	return append(out, podSpecWarnings(&p.Spec, specPath)...)
}

// nameWarnings warns of names that are allowed but are no host names.
func nameWarnings(name, usedIn string) []string {
	msgs := validation.IsDNS1123Label(name)
	if len(msgs) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("metadata.name: this is used in %s, which can result in surprising behavior; a DNS label is recommended: %v", usedIn, msgs)}
}

// templateWarnings warns of a template once: when it changes.
func templateWarnings(t, old *corev1.PodTemplateSpec) []string {
	if old != nil && equality.Semantic.DeepEqual(t.Spec, old.Spec) {
		return nil
	}
	return podSpecWarnings(&t.Spec, field.NewPath("spec", "template", "spec"))
}

// The node labels that were renamed.
var oldNodeLabels = map[string]string{
	"beta.kubernetes.io/arch":                  "kubernetes.io/arch",
	"beta.kubernetes.io/os":                    "kubernetes.io/os",
	"failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
	"failure-domain.beta.kubernetes.io/zone":   "topology.kubernetes.io/zone",
	"beta.kubernetes.io/instance-type":         "node.kubernetes.io/instance-type",
}

func podSpecWarnings(s *corev1.PodSpec, p *field.Path) []string {
	var out []string
	for label := range s.NodeSelector {
		if now, ok := oldNodeLabels[label]; ok {
			out = append(out, fmt.Sprintf("%s: deprecated; use %q instead", p.Child("nodeSelector").Key(label), now))
		}
	}
	for i, r := range s.ImagePullSecrets {
		if strings.TrimSpace(r.Name) == "" {
			out = append(out, fmt.Sprintf("%s: invalid empty name %q", p.Child("imagePullSecrets").Index(i).Child("name"), r.Name))
		}
	}
	if g := s.TerminationGracePeriodSeconds; g != nil && *g < 0 {
		out = append(out, fmt.Sprintf("%s: must be >= 0; negative values are invalid and will be treated as 1", p.Child("terminationGracePeriodSeconds")))
	}
	for i := range s.Volumes {
		if s.Volumes[i].GitRepo != nil {
			out = append(out, fmt.Sprintf("%s: deprecated in v1.11, and disabled by default in v1.33+", p.Child("volumes").Index(i).Child("gitRepo")))
		}
	}
	for _, list := range []struct {
		name       string
		containers []corev1.Container
	}{{"initContainers", s.InitContainers}, {"containers", s.Containers}} {
		for i := range list.containers {
			out = append(out, containerWarnings(&list.containers[i], p.Child(list.name).Index(i))...)
		}
	}
	return out
}

func containerWarnings(c *corev1.Container, p *field.Path) []string {
	var out []string
	for _, list := range []struct {
		name      string
		resources corev1.ResourceList
	}{{"limits", c.Resources.Limits}, {"requests", c.Resources.Requests}} {
		for name, q := range list.resources {
			if (name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage) && q.MilliValue()%1000 != 0 {
				out = append(out, fmt.Sprintf("%s: fractional byte value %q is invalid, must be an integer", p.Child("resources", list.name).Key(string(name)), q.String()))
			}
		}
	}
	last := make(map[string]int, len(c.Env))
	for i := range c.Env {
		e := &c.Env[i]
		if first, ok := last[e.Name]; ok && !refersTo(e.Value, e.Name) {
			out = append(out, fmt.Sprintf("%s: hides previous definition of %q, which may be dropped when using apply", p.Child("env").Index(i), c.Env[first].Name))
		}
		last[e.Name] = i
	}
	return append(out, portWarnings(c, p)...)
}

func refersTo(value, name string) bool { return strings.Contains(value, "$("+name+")") }

func portWarnings(c *corev1.Container, p *field.Path) []string {
	type key struct {
		port     int32
		protocol corev1.Protocol
	}
	var out []string
	seen := make(map[key]int, len(c.Ports))
	for i, port := range c.Ports {
		k := key{port.ContainerPort, port.Protocol}
		if first, ok := seen[k]; ok && port.HostPort == c.Ports[first].HostPort {
			out = append(out, fmt.Sprintf("%s: duplicate port definition with %s", p.Child("ports").Index(i), p.Child("ports").Index(first)))
		} else if !ok {
			seen[k] = i
		}
	}
	return out
}
