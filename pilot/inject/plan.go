package inject

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/xebec-mesh/xebec/pilot/model"
)

// Labels and annotations, with Istio's names and meanings.
const (
	InjectLabel          = "sidecar.istio.io/inject"
	NamespaceLabel       = "istio-injection"
	RevisionLabel        = "istio.io/rev"
	CanonicalName        = "service.istio.io/canonical-name"
	CanonicalRevision    = "service.istio.io/canonical-revision"
	TLSModeLabel         = "security.istio.io/tlsMode"
	ImageAnnotation      = "sidecar.istio.io/proxyImage"
	CPUAnnotation        = "sidecar.istio.io/proxyCPU"
	CPULimitAnnotation   = "sidecar.istio.io/proxyCPULimit"
	MemoryAnnotation     = "sidecar.istio.io/proxyMemory"
	MemoryLimit          = "sidecar.istio.io/proxyMemoryLimit"
	LogLevelAnnotation   = "sidecar.istio.io/logLevel"
	ExcludeInboundPorts  = "traffic.sidecar.istio.io/excludeInboundPorts"
	ExcludeOutboundPorts = "traffic.sidecar.istio.io/excludeOutboundPorts"
	ExcludeOutboundCIDRs = "traffic.sidecar.istio.io/excludeOutboundIPRanges"
)

// Where the node's agent puts the pod's socket and Envoy's bootstrap.
const (
	Volume    = "xebec-mesh"
	Driver    = "mesh.xebec.io"
	MountPath = "/var/run/xebec/mesh"
	ReadyPort = 15021
	ReadyPath = "/healthz/ready"
	UserID    = 1337
)

// Options are what the plan may know besides the pod.
type Options struct {
	Image     string
	Revision  string // that istio.io/rev must name; also "default"
	Resources corev1.ResourceRequirements
}

// never are namespaces whose pods the mesh itself needs to start.
var never = []string{"kube-system", "kube-public", "kube-node-lease", "xebec-system", "istio-system"}

// decide says whether a pod gets a sidecar, and why. The pod's own word counts most,
// then its namespace's:
//
//	pod                          namespace                result
//	hostNetwork, or system ns    any                      no
//	inject=false                 any                      no
//	inject=true                  any                      yes
//	–                            istio-injection=disabled no
//	–                            istio-injection=enabled  yes
//	istio.io/rev=ours            –                        yes
//	–                            istio.io/rev=ours        yes
//	–                            –                        no
func decide(pod *corev1.Pod, namespace string, ns map[string]string, revision string) (bool, string) {
	if pod.Spec.HostNetwork {
		return false, "the pod uses the node's network"
	}
	if slices.Contains(never, namespace) {
		return false, "namespace " + namespace + " is never meshed"
	}
	switch own := word(pod.Labels[InjectLabel], pod.Annotations[InjectLabel]); own {
	case "true":
		return true, "the pod asks for it"
	case "false":
		return false, "the pod asks not to be"
	}
	switch ns[NamespaceLabel] {
	case "enabled":
		return true, "its namespace asks for it"
	case "disabled":
		return false, "its namespace asks not to be"
	}
	ours := func(rev string) bool { return rev != "" && (rev == revision || rev == "default") }
	if ours(pod.Labels[RevisionLabel]) || pod.Labels[RevisionLabel] == "" && ours(ns[RevisionLabel]) {
		return true, "the revision label names us"
	}
	return false, "nobody asks for it"
}

func word(label, annotation string) string {
	w := label
	if w == "" {
		w = annotation
	}
	switch strings.ToLower(w) {
	case "true", "yes", "y", "on":
		return "true"
	case "false", "no", "n", "off":
		return "false"
	}
	return ""
}

// addition is what a pod gets. The zero addition is nothing.
type addition struct {
	annotations map[string]string
	labels      map[string]string
	container   corev1.Container
	volume      corev1.Volume
}

func plan(pod *corev1.Pod, namespace string, o Options) (*addition, error) {
	if err := check(pod.Annotations); err != nil {
		return nil, err
	}
	name, revision := canonical(pod)
	c, err := container(pod, namespace, name, revision, o)
	if err != nil {
		return nil, err
	}
	readOnly := true
	return &addition{
		annotations: map[string]string{model.StatusAnnotation: fmt.Sprintf(
			`{"initContainers":[%q],"containers":null,"volumes":[%q],"imagePullSecrets":null,"revision":%q}`, model.SidecarContainer, Volume, o.Revision)},
		labels: map[string]string{
			CanonicalName: name, CanonicalRevision: revision, TLSModeLabel: "istio",
		},
		container: c,
		volume: corev1.Volume{Name: Volume, VolumeSource: corev1.VolumeSource{
			CSI: &corev1.CSIVolumeSource{Driver: Driver, ReadOnly: &readOnly},
		}},
	}, nil
}

// canonical derives the name by which telemetry knows the workload.
func canonical(pod *corev1.Pod) (name, revision string) {
	for _, l := range []string{CanonicalName, "app.kubernetes.io/name", "app"} {
		if name = pod.Labels[l]; name != "" {
			break
		}
	}
	if name == "" {
		name = strings.TrimRight(owner(pod), "-.")
		if len(name) > 63 { // the length of a label
			name = strings.TrimRight(name[:63], "-.")
		}
	}
	for _, l := range []string{CanonicalRevision, "app.kubernetes.io/version", "version"} {
		if revision = pod.Labels[l]; revision != "" {
			return name, revision
		}
	}
	return name, "latest"
}

// owner is the name of what made the pod, without what was appended to it.
func owner(pod *corev1.Pod) string {
	for _, r := range pod.OwnerReferences {
		if r.Controller == nil || !*r.Controller {
			continue
		}
		if hash := pod.Labels["pod-template-hash"]; r.Kind == "ReplicaSet" && hash != "" {
			return strings.TrimSuffix(r.Name, "-"+hash)
		}
		return r.Name
	}
	if pod.Name != "" {
		return pod.Name
	}
	return strings.TrimSuffix(pod.GenerateName, "-")
}

func container(pod *corev1.Pod, namespace, name, revision string, o Options) (corev1.Container, error) {
	res, err := resources(pod.Annotations, o.Resources)
	if err != nil {
		return corev1.Container{}, err
	}
	image := o.Image
	if i := pod.Annotations[ImageAnnotation]; i != "" {
		image = i
	}
	level := pod.Annotations[LogLevelAnnotation]
	if level == "" {
		level = "warning"
	}
	always := corev1.ContainerRestartPolicyAlways
	user, yes, no := int64(UserID), true, false
	return corev1.Container{
		Name:  model.SidecarContainer,
		Image: image,
		Args: []string{
			"-c", MountPath + "/bootstrap.json", "--concurrency", concurrency(res),
			"--drain-time-s", "20", "--drain-strategy", "immediate",
			"--disable-hot-restart", "--log-level", level,
		},
		Env: []corev1.EnvVar{{
			Name:  "OTEL_RESOURCE_ATTRIBUTES",
			Value: "service.name=" + name + ",service.namespace=" + namespace + ",service.version=" + revision,
		}},
		Ports:          []corev1.ContainerPort{{Name: "http-ready", ContainerPort: ReadyPort, Protocol: corev1.ProtocolTCP}},
		RestartPolicy:  &always,
		Resources:      res,
		VolumeMounts:   []corev1.VolumeMount{{Name: Volume, MountPath: MountPath, ReadOnly: true}},
		StartupProbe:   ready(1, 600),
		ReadinessProbe: ready(15, 4),
		SecurityContext: &corev1.SecurityContext{
			RunAsUser: &user, RunAsGroup: &user, RunAsNonRoot: &yes, ReadOnlyRootFilesystem: &yes,
			AllowPrivilegeEscalation: &no, Privileged: &no,
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
	}, nil
}

// concurrency is the number of Envoy's workers: as many as its CPU limit has cores, two without one.
func concurrency(res corev1.ResourceRequirements) string {
	if l, ok := res.Limits[corev1.ResourceCPU]; ok {
		return strconv.FormatInt(max(1, l.Value()), 10)
	}
	return "2"
}

func ready(period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: ReadyPath, Port: intstr.FromInt32(ReadyPort),
		}},
		PeriodSeconds: period, FailureThreshold: failures, TimeoutSeconds: 3,
	}
}

func resources(annotations map[string]string, base corev1.ResourceRequirements) (corev1.ResourceRequirements, error) {
	out := *base.DeepCopy()
	for _, a := range []struct {
		key  string
		list *corev1.ResourceList
		name corev1.ResourceName
	}{
		{CPUAnnotation, &out.Requests, corev1.ResourceCPU},
		{MemoryAnnotation, &out.Requests, corev1.ResourceMemory},
		{CPULimitAnnotation, &out.Limits, corev1.ResourceCPU},
		{MemoryLimit, &out.Limits, corev1.ResourceMemory},
	} {
		v := annotations[a.key]
		if v == "" {
			continue
		}
		q, err := resource.ParseQuantity(v)
		if err != nil {
			return out, fmt.Errorf("metadata.annotations[%s]: %q: not a quantity such as 100m or 128Mi", a.key, v)
		}
		if *a.list == nil {
			*a.list = corev1.ResourceList{}
		}
		(*a.list)[a.name] = q
	}
	for name, want := range out.Requests { // a limit below the request would make the pod invalid
		if l, ok := out.Limits[name]; ok && l.Cmp(want) < 0 {
			out.Limits[name] = want
		}
	}
	return out, nil
}
