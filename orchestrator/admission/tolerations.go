package admission

import (
	"context"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
)

const evictAfter = 300 // seconds on a node that is not ready or not reachable

// DefaultTolerationSeconds lets pods stay for a while on a node that is in
// trouble, unless they say otherwise.
type DefaultTolerationSeconds struct{}

// Name is the plugin's name in errors.
func (DefaultTolerationSeconds) Name() string { return "DefaultTolerationSeconds" }

// Mutate adds the two tolerations that are missing.
func (DefaultTolerationSeconds) Mutate(_ context.Context, a *Attributes) error {
	if !a.Is(podKind, admissionv1.Create, admissionv1.Update) {
		return nil
	}
	if pod, ok := a.Object.(*corev1.Pod); ok {
		tolerate(pod, corev1.TaintNodeNotReady)
		tolerate(pod, corev1.TaintNodeUnreachable)
	}
	return nil
}

func tolerate(pod *corev1.Pod, taint string) {
	for _, t := range pod.Spec.Tolerations {
		if (t.Key == taint || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "") {
			return
		}
	}
	seconds := int64(evictAfter)
	pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
		Key: taint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds,
	})
}
