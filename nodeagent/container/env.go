package container

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Sources are where a container's environment comes from beside its own spec.
type Sources struct {
	ConfigMap   func(name string) (*corev1.ConfigMap, bool)
	Secret      func(name string) (*corev1.Secret, bool)
	Services    []*corev1.Service // that are announced to the pod
	PodIPs      []string
	HostIPs     []string
	Allocatable corev1.ResourceList // stands in for limits that are not set
}

// ConfigError is a mistake in the pod's configuration that may mend itself: the
// container waits with the reason CreateContainerConfigError.
type ConfigError struct{ Message string }

func (e *ConfigError) Error() string { return e.Message }

func configErrorf(format string, args ...any) error {
	return &ConfigError{fmt.Sprintf(format, args...)}
}

// Environment resolves what the pod declares for a container to NAME=value lines:
// services, then envFrom, then env, the later overriding the earlier.
func Environment(pod *corev1.Pod, c *corev1.Container, src Sources) ([]string, error) {
	e := &environ{values: map[string]string{}}
	if pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks {
		e.services(pod.Namespace, src.Services)
	} else {
		e.services("", src.Services)
	}
	for _, from := range c.EnvFrom {
		if err := e.from(pod.Namespace, from, src); err != nil {
			return nil, err
		}
	}
	links := maps.Clone(e.values)
	e.order = nil
	e.values = map[string]string{}
	for k, v := range links {
		e.set(k, v)
	}
	slices.Sort(e.order)
	for _, v := range c.Env {
		value, ok, err := resolve(pod, c, v, src, e)
		if err != nil {
			return nil, err
		}
		if ok {
			e.set(v.Name, value)
		}
	}
	return e.lines(), nil
}

type environ struct {
	order  []string
	values map[string]string
}

func (e *environ) set(name, value string) {
	if _, ok := e.values[name]; !ok {
		e.order = append(e.order, name)
	}
	e.values[name] = value
}

func (e *environ) get(name string) (string, bool) { v, ok := e.values[name]; return v, ok }

func (e *environ) lines() []string {
	out := make([]string, 0, len(e.order))
	for _, name := range e.order {
		out = append(out, name+"="+e.values[name])
	}
	return out
}

// services announces the cluster's API server to all, and the namespace's services
// where links are wanted, as Docker's links once did.
func (e *environ) services(namespace string, services []*corev1.Service) {
	for _, s := range services {
		api := s.Namespace == "default" && s.Name == "kubernetes"
		if !api && (namespace == "" || s.Namespace != namespace) {
			continue
		}
		if ip := s.Spec.ClusterIP; ip == "" || ip == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
			continue
		}
		e.service(s)
	}
}

func (e *environ) service(s *corev1.Service) {
	prefix := strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
	ip := s.Spec.ClusterIP
	port := func(p corev1.ServicePort) string { return strconv.Itoa(int(p.Port)) }
	host := ip
	if strings.Contains(ip, ":") {
		host = "[" + ip + "]"
	}
	e.set(prefix+"_SERVICE_HOST", ip)
	e.set(prefix+"_SERVICE_PORT", port(s.Spec.Ports[0]))
	for i, p := range s.Spec.Ports {
		proto := strings.ToLower(string(p.Protocol))
		if proto == "" {
			proto = "tcp"
		}
		url := proto + "://" + host + ":" + port(p)
		if p.Name != "" {
			e.set(prefix+"_SERVICE_PORT_"+strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_")), port(p))
		}
		if i == 0 {
			e.set(prefix+"_PORT", url)
		}
		pp := prefix + "_PORT_" + port(p) + "_" + strings.ToUpper(proto)
		e.set(pp, url)
		e.set(pp+"_PROTO", proto)
		e.set(pp+"_PORT", port(p))
		e.set(pp+"_ADDR", ip)
	}
}

func (e *environ) from(namespace string, from corev1.EnvFromSource, src Sources) error {
	data := map[string]string{}
	switch {
	case from.ConfigMapRef != nil:
		cm, ok := src.ConfigMap(from.ConfigMapRef.Name)
		if !ok {
			if isTrue(from.ConfigMapRef.Optional) {
				return nil
			}
			return configErrorf("configmap %q not found", from.ConfigMapRef.Name)
		}
		data = cm.Data
	case from.SecretRef != nil:
		s, ok := src.Secret(from.SecretRef.Name)
		if !ok {
			if isTrue(from.SecretRef.Optional) {
				return nil
			}
			return configErrorf("secret %q not found", from.SecretRef.Name)
		}
		for k, v := range s.Data {
			data[k] = string(v)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(data)) {
		if name := from.Prefix + k; len(validation.IsRelaxedEnvVarName(name)) == 0 {
			e.set(name, data[k])
		}
	}
	return nil
}

func resolve(pod *corev1.Pod, c *corev1.Container, v corev1.EnvVar, src Sources, e *environ) (string, bool, error) {
	from := v.ValueFrom
	switch {
	case from == nil:
		return Expand(v.Value, e.get), true, nil
	case from.FieldRef != nil:
		value, err := Field(pod, from.FieldRef.FieldPath, src)
		return value, err == nil, err
	case from.ResourceFieldRef != nil:
		value, err := ResourceField(pod, c, from.ResourceFieldRef, src.Allocatable)
		return value, err == nil, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		cm, ok := src.ConfigMap(ref.Name)
		if !ok {
			return missing(ref.Optional, "configmap %q not found", ref.Name)
		}
		if value, ok := cm.Data[ref.Key]; ok {
			return value, true, nil
		}
		return missing(ref.Optional, "couldn't find key %v in ConfigMap %v/%v", ref.Key, pod.Namespace, ref.Name)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		s, ok := src.Secret(ref.Name)
		if !ok {
			return missing(ref.Optional, "secret %q not found", ref.Name)
		}
		if value, ok := s.Data[ref.Key]; ok {
			return string(value), true, nil
		}
		return missing(ref.Optional, "couldn't find key %v in Secret %v/%v", ref.Key, pod.Namespace, ref.Name)
	}
	return "", false, configErrorf("env %s: its valueFrom names no source that is known here", v.Name)
}

func missing(optional *bool, format string, args ...any) (string, bool, error) {
	if isTrue(optional) {
		return "", false, nil
	}
	return "", false, configErrorf(format, args...)
}

func isTrue(b *bool) bool { return b != nil && *b }

// Field reads a field of the downward API.
func Field(pod *corev1.Pod, path string, src Sources) (string, error) {
	if key, ok := subscript(path, "metadata.labels"); ok {
		return pod.Labels[key], nil
	}
	if key, ok := subscript(path, "metadata.annotations"); ok {
		return pod.Annotations[key], nil
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return formatMap(pod.Labels), nil
	case "metadata.annotations":
		return formatMap(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(src.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(src.HostIPs, ","), nil
	case "status.podIP":
		return first(src.PodIPs), nil
	case "status.podIPs":
		return strings.Join(src.PodIPs, ","), nil
	}
	return "", configErrorf("unsupported fieldPath: %v", path)
}

func first(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}

func subscript(path, field string) (string, bool) {
	rest, ok := strings.CutPrefix(path, field+"['")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "']")
}

// formatMap prints key="value" lines, as the downward API's volumes show them.
func formatMap(m map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "%v=%q\n", k, m[k])
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// ResourceField reads a request or limit of a container, in units of the divisor,
// rounded up. A limit that is not set is what the node can give.
func ResourceField(pod *corev1.Pod, c *corev1.Container, ref *corev1.ResourceFieldSelector, allocatable corev1.ResourceList) (string, error) {
	if ref.ContainerName != "" && ref.ContainerName != c.Name {
		if c = containerNamed(pod, ref.ContainerName); c == nil {
			return "", configErrorf("container %q not found", ref.ContainerName)
		}
	}
	kind, name, ok := strings.Cut(ref.Resource, ".")
	if !ok || (kind != "limits" && kind != "requests") {
		return "", configErrorf("unsupported container resource: %v", ref.Resource)
	}
	list := c.Resources.Requests
	if kind == "limits" {
		list = c.Resources.Limits
	}
	q, set := list[corev1.ResourceName(name)]
	if !set && kind == "limits" {
		q = allocatable[corev1.ResourceName(name)]
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == string(corev1.ResourceCPU) {
		return strconv.FormatInt(ceilDiv(q.MilliValue(), divisor.MilliValue()), 10), nil
	}
	return strconv.FormatInt(ceilDiv(q.Value(), divisor.Value()), 10), nil
}

func ceilDiv(a, b int64) int64 {
	if b <= 0 {
		return 0
	}
	return (a + b - 1) / b
}

func containerNamed(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// Expand replaces $(NAME) by the value of NAME, where it has one, and $$ by $.
func Expand(s string, value func(string) (string, bool)) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i == len(s)-1 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		s = s[i+1:]
		switch s[0] {
		case '$':
			b.WriteByte('$')
			s = s[1:]
		case '(':
			name, rest, ok := strings.Cut(s[1:], ")")
			if !ok {
				b.WriteByte('$')
				continue
			}
			if v, ok := value(name); ok {
				b.WriteString(v)
			} else {
				b.WriteString("$(" + name + ")")
			}
			s = rest
		default:
			b.WriteByte('$')
		}
	}
}

// IsConfigError says whether err is a mistake in the pod's configuration.
func IsConfigError(err error) bool {
	var c *ConfigError
	return errors.As(err, &c)
}
