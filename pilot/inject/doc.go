// Package inject gives pods their sidecar.
//
//	in:   a pod at creation, as an admission request; the labels of its namespace
//	out:  a JSON patch that adds the sidecar, or nothing
//
// The sidecar is a native one: an init container that keeps running, so that it is
// there before the application's first instruction and until after its last, and
// Jobs complete. It has no privileges. It gets its configuration and identity over a
// socket in a volume that the node's agent makes for this one pod; there is no
// second container and no agent in the pod.
//
// Whether a pod gets one is decided as in Istio (see decide in plan.go). A pod that
// has one is left as it is, so the plugin may run any number of times.
//
// What the node's agent does at the end of a meshed pod, because the image holds
// nothing but Envoy: when termination begins it posts DrainPath to Envoy's admin
// address inside the pod, so that callers are told to go elsewhere while the application
// still answers; it stops the sidecar last, after the application's containers have
// ended, and then waits for open connections at most until the pod's grace period ends.
package inject

// DrainPath is posted to Envoy's admin address (127.0.0.1:15000 in the pod) when the
// pod's termination begins. Connections already open are told to close after their
// next response; new ones are still taken while callers hear that the endpoint is gone.
const DrainPath = "/drain_listeners?inboundonly&graceful&skip_exit"
