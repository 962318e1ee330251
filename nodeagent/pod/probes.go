package pod

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/nodeagent/probe"
)

// RecordProbe records the Event of a probe that failed.
func RecordProbe(r Recorder, t probe.Target, kind probe.Kind, message string) {
	recordEvent(r, t.Pod, t.Container.Name, corev1.EventTypeWarning, "Unhealthy", "%s probe failed: %s", kind, message)
}
