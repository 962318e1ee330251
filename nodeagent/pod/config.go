// Package pod runs the pods that are bound to this node.
//
//	in:   Pods of this node; exits of containers, results of probes
//	out:  sandboxes and containers; Pod status; Events; the deletion of pods that have ended
//
// Each pod has one goroutine, its actor, which alone changes what is known of the
// pod. It hears what happened, asks the pure compute what to do next, starts those
// operations, and hears of their end. Nothing polls. Containers outlive the agent:
// an actor that starts anew adopts what runs and touches nothing that is as it
// should be.
package pod

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/nodeagent/container"
	"github.com/xebec-mesh/xebec/nodeagent/image"
	"github.com/xebec-mesh/xebec/nodeagent/network"
	"github.com/xebec-mesh/xebec/nodeagent/probe"
	"github.com/xebec-mesh/xebec/nodeagent/shim"
	"github.com/xebec-mesh/xebec/nodeagent/volume"
	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// Config is what the pods of a node work with.
type Config struct {
	Client  client.Interface
	Node    string // name of this node
	Runtime *container.Runtime
	Images  *image.Store
	Network *network.Network
	Volumes *volume.Manager
	Probes  *probe.Prober
	Status  StatusWriter
	Events  Recorder
	Mesh    Mesh  // nil: no pod is meshed
	Shims   Shims // nil: containerd starts them

	StateDir string // of pods: <StateDir>/<uid>
	RunDir   string // of what a reboot ends: namespaces, sockets
	LogDir   string // of containers: <LogDir>/<namespace>_<name>_<uid>/<container>/<attempt>.log
	Cgroup   string // below which pods have theirs; default /xebec

	Host    func() Host
	Sources func(pod *corev1.Pod) container.Sources // for environments, without the pod's addresses

	Now func() time.Time // default time.Now
	Log *slog.Logger
}

// Host is what pods are told of their node. It may change while they run.
type Host struct {
	Name     string
	IPs      []string
	PodCIDRs []string
	DNS      []string // addresses of the cluster's DNS
	Domain   string   // of the cluster
	OCI      container.Host
}

// StatusWriter publishes the status of pods; the newest wins. Delete removes the
// object once its last status is written.
type StatusWriter interface {
	Set(pod *corev1.Pod, status corev1.PodStatus)
	Delete(pod *corev1.Pod)
	Forget(pod *corev1.Pod)
}

// Recorder records Events about a pod, or about one of its containers by fieldPath.
type Recorder interface {
	EventFor(regarding corev1.ObjectReference, related *corev1.ObjectReference, kind, reason, action, format string, args ...any)
}

// Shims has shims ready for pods.
type Shims interface {
	Take(ctx context.Context) (*shim.Shim, error)
	Pause(path, cgroup string) error // the first process of a shared process namespace
}

// Mesh puts a sidecar's interception around a pod.
type Mesh interface {
	// Prepare is called when the network namespace has its addresses and before
	// the first container starts. It may be called again.
	Prepare(ctx context.Context, pod *corev1.Pod, netns string, ips []netip.Addr) error

	// Attach is called for each container when its cgroup exists and before its
	// first instruction.
	Attach(ctx context.Context, pod *corev1.Pod, containerName, cgroup string) error

	// Adopt is called for a pod that was found running.
	Adopt(ctx context.Context, pod *corev1.Pod) error

	// Drain is called when the pod's termination begins: whoever calls it is to go
	// elsewhere, while its application still answers.
	Drain(ctx context.Context, pod *corev1.Pod, netns string) error

	// Remove is called when the pod's last container has ended.
	Remove(ctx context.Context, pod *corev1.Pod) error

	// Retain is called once all pods of the node are known.
	Retain(ctx context.Context, uids []string) error
}
