package xds

import corev1 "k8s.io/api/core/v1"

// Hold makes the server keep a pod's views up to date, as an open stream does.
func (s *Server) Hold(pod *corev1.Pod) {
	_ = s.call(func(e *engine) { e.join(pod) })
}
