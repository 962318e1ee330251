// Package enrich knows which workload is behind a socket or an address.
//
//	in:   pods
//	out:  for a pod, or for the pod that has an address, its Workload and the attributes that telemetry from it carries
//
// What a pod is comes from the API, not from what the pod says: the attributes
// k8s.* are forced, service.* are only defaults.
package enrich

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/mixer/wire"
)

// Workload is what telemetry needs to know of a pod. It is immutable.
type Workload struct {
	Namespace, Pod, UID, Node, IP string

	Kind, Name     string // of what owns the pod: Deployment web, Job backup; the pod itself if nothing does
	App, Version   string // canonical service and revision
	ServiceAccount string
	Meshed         bool // has a sidecar

	Overlay *wire.Overlay // for OTLP from this pod
}

// The labels that say what a workload is called, the first that exists counts.
var (
	appLabels     = []string{"service.istio.io/canonical-name", "app.kubernetes.io/name", "app"}
	versionLabels = []string{"service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"}
)

// FromPod derives a workload. It is pure.
func FromPod(p *corev1.Pod) *Workload {
	w := &Workload{
		Namespace: p.Namespace, Pod: p.Name, UID: string(p.UID), Node: p.Spec.NodeName, IP: p.Status.PodIP,
		ServiceAccount: p.Spec.ServiceAccountName,
	}
	if w.ServiceAccount == "" {
		w.ServiceAccount = "default"
	}
	w.Kind, w.Name = owner(p)
	w.App, w.Version = label(p, appLabels), label(p, versionLabels)
	if w.App == "" {
		w.App = w.Name
	}
	_, w.Meshed = p.Annotations["sidecar.istio.io/status"]
	w.Overlay = wire.NewOverlay(w.attributes(p))
	return w
}

// owner is the workload's kind and name. A ReplicaSet whose name ends in its pod
// template's hash is a Deployment's.
func owner(p *corev1.Pod) (kind, name string) {
	ref := metav1.GetControllerOfNoCopy(p)
	if ref == nil {
		return "Pod", p.Name
	}
	if hash := p.Labels["pod-template-hash"]; ref.Kind == "ReplicaSet" && hash != "" {
		if d, ok := strings.CutSuffix(ref.Name, "-"+hash); ok {
			return "Deployment", d
		}
	}
	return ref.Kind, ref.Name
}

func label(p *corev1.Pod, keys []string) string {
	for _, k := range keys {
		if v := p.Labels[k]; v != "" {
			return v
		}
	}
	return ""
}

// attributes are as OpenTelemetry's semantic conventions name them.
//
// https://opentelemetry.io/docs/specs/semconv/resource/k8s/
func (w *Workload) attributes(p *corev1.Pod) (force, fallback map[string]string) {
	force = map[string]string{
		"k8s.namespace.name": w.Namespace,
		"k8s.pod.name":       w.Pod,
		"k8s.pod.uid":        w.UID,
		"k8s.pod.ip":         w.IP,
		"k8s.node.name":      w.Node,
	}
	if w.Kind != "Pod" {
		force["k8s."+strings.ToLower(w.Kind)+".name"] = w.Name
	}
	if ref := metav1.GetControllerOfNoCopy(p); ref != nil && ref.Kind == "ReplicaSet" {
		force["k8s.replicaset.name"] = ref.Name
	}
	fallback = map[string]string{
		"service.name":        w.App,
		"service.version":     w.Version,
		"service.namespace":   w.Namespace,
		"service.instance.id": w.Namespace + "." + w.Pod,
	}
	return force, fallback
}
