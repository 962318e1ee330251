// Package node says what this machine is and that it lives.
//
//	in:   the machine: CPUs, memory, addresses, images; whether pods can run
//	out:  the Node object with its status, and its Lease
//
// It is the only writer of the Node's status. What belongs to others (taints, pod
// address ranges, labels that people set) is left as it is.
package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

const (
	leaseNamespace = "kube-node-lease"
	leaseDuration  = 40 * time.Second
	leaseRenewal   = 10 * time.Second
	statusRenewal  = 5 * time.Minute
)

// Config says what is registered.
type Config struct {
	Client  client.Interface
	Name    string
	Labels  map[string]string // beside the standard ones
	Taints  []corev1.Taint    // when the node is first registered
	IPs     []string          // InternalIP addresses; needed
	Port    int32             // of the agent's HTTPS server
	MaxPods int64             // default 110

	Reserved corev1.ResourceList // kept from pods

	// Ready says why pods cannot run here, or nil. It is asked whenever Changed is called.
	Ready  func() error
	Images func(ctx context.Context) []corev1.ContainerImage

	Version string // of xebec, for nodeInfo
	Runtime string // containerd://2.4.2
	Kubelet string // the API version that the node speaks: v1.36.0
	Now     func() time.Time
	Log     *slog.Logger
}

// Node keeps one Node object.
type Node struct {
	cfg     Config
	nodes   client.Typed[*corev1.Node]
	leases  client.Typed[*coordinationv1.Lease]
	view    client.View[*corev1.Node]
	machine Machine
	changed chan struct{}
}

// New reads the machine and checks the configuration.
func New(cfg Config) (*Node, error) {
	if cfg.Client == nil || cfg.Name == "" || len(cfg.IPs) == 0 {
		return nil, errors.New("configure node: Client, Name and IPs are needed")
	}
	if cfg.MaxPods == 0 {
		cfg.MaxPods = 110
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Ready == nil {
		cfg.Ready = func() error { return nil }
	}
	if cfg.Images == nil {
		cfg.Images = func(context.Context) []corev1.ContainerImage { return nil }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	machine, err := ReadMachine()
	if err != nil {
		return nil, fmt.Errorf("read machine: %w", err)
	}
	return &Node{
		cfg: cfg, machine: machine, nodes: client.For(cfg.Client, client.Nodes), leases: client.For(cfg.Client, client.Leases),
		view:    client.For(cfg.Client, client.Nodes).Informer(client.ListOptions{FieldSelector: "metadata.name=" + cfg.Name}),
		changed: make(chan struct{}, 1),
	}, nil
}

// Changed tells that readiness or images may have changed.
func (n *Node) Changed() {
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// ErrStarting says that pods cannot be started yet, since the agent has just begun.
// A node that was ready before stays so: its pods run, and nobody should leave it.
var ErrStarting = errors.New("the node agent is starting")

// Get is the Node object as the API last had it, or nil.
func (n *Node) Get() *corev1.Node {
	node, _ := n.view.Get("", n.cfg.Name)
	return node
}

// Subscribe follows the Node object.
func (n *Node) Subscribe(handle func(client.Event)) (cancel func()) { return n.view.Subscribe(handle) }

// Machine is what was read of the machine.
func (n *Node) Machine() Machine { return n.machine }

// Allocatable is what pods may use of it.
func (n *Node) Allocatable() corev1.ResourceList {
	out := n.capacity()
	for name, q := range n.cfg.Reserved {
		if have, ok := out[name]; ok {
			have.Sub(q)
			out[name] = have
		}
	}
	return out
}

func (n *Node) capacity() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(n.machine.CPUs, resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(n.machine.Memory, resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(n.machine.Disk, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(n.cfg.MaxPods, resource.DecimalSI),
		"hugepages-2Mi":                 resource.MustParse("0"),
		"hugepages-1Gi":                 resource.MustParse("0"),
	}
}

// Run registers the node and keeps its status and lease until ctx ends.
func (n *Node) Run(ctx context.Context) error {
	defer n.view.Subscribe(func(e client.Event) {
		if e.Type == client.Deleted || (e.Type == client.Modified && podCIDRs(e.Old) != podCIDRs(e.Object)) {
			n.Changed()
		}
	})()
	lease := time.NewTimer(0)
	defer lease.Stop()
	status := time.NewTimer(0)
	defer status.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-lease.C:
			err = n.renew(ctx)
			lease.Reset(after(err, leaseRenewal))
		case <-status.C:
			err = n.sync(ctx)
			status.Reset(after(err, statusRenewal))
		case <-n.changed:
			if err = n.sync(ctx); err != nil {
				status.Reset(after(err, statusRenewal))
			}
		}
		if err != nil && ctx.Err() == nil {
			n.cfg.Log.Info("keep node", "node", n.cfg.Name, "err", err)
		}
	}
}

func after(err error, otherwise time.Duration) time.Duration {
	if err != nil {
		return time.Second
	}
	return otherwise
}

func podCIDRs(o client.Object) string {
	if node, ok := o.(*corev1.Node); ok && node != nil {
		return strings.Join(node.Spec.PodCIDRs, ",")
	}
	return ""
}

// sync makes the object exist and its labels and status be what they should.
func (n *Node) sync(ctx context.Context) error {
	old, err := n.nodes.Get(ctx, "", n.cfg.Name)
	if apierrors.IsNotFound(err) {
		old, err = n.nodes.Create(ctx, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: n.cfg.Name, Labels: n.labels(), Annotations: map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
			Spec:       corev1.NodeSpec{Taints: n.cfg.Taints},
		})
	}
	if err != nil {
		return fmt.Errorf("register node %s: %w", n.cfg.Name, err)
	}
	if err := n.relabel(ctx, old); err != nil {
		return err
	}
	want := n.status(ctx, old)
	if apiequality.Semantic.DeepEqual(old.Status, want) {
		return nil
	}
	patch, err := patchOf(&corev1.Node{Status: old.Status}, &corev1.Node{Status: want})
	if err != nil {
		return fmt.Errorf("compare status of node %s: %w", n.cfg.Name, err)
	}
	if _, err := n.nodes.Patch(ctx, "", n.cfg.Name, types.StrategicMergePatchType, patch, "status"); err != nil {
		return fmt.Errorf("write status of node %s: %w", n.cfg.Name, err)
	}
	return nil
}

func (n *Node) relabel(ctx context.Context, old *corev1.Node) error {
	labels := maps.Clone(old.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, n.labels())
	if maps.Equal(labels, old.Labels) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": n.labels()}})
	if err != nil {
		return err
	}
	if _, err := n.nodes.Patch(ctx, "", n.cfg.Name, types.StrategicMergePatchType, patch, ""); err != nil {
		return fmt.Errorf("label node %s: %w", n.cfg.Name, err)
	}
	return nil
}

func patchOf(old, want *corev1.Node) ([]byte, error) {
	from, err := json.Marshal(old)
	if err != nil {
		return nil, err
	}
	to, err := json.Marshal(want)
	if err != nil {
		return nil, err
	}
	return strategicpatch.CreateTwoWayMergePatch(from, to, corev1.Node{})
}

func (n *Node) labels() map[string]string {
	m := map[string]string{
		corev1.LabelHostname: n.cfg.Name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: n.machine.Arch,
		"beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": n.machine.Arch,
	}
	maps.Copy(m, n.cfg.Labels)
	return m
}

func (n *Node) status(ctx context.Context, old *corev1.Node) corev1.NodeStatus {
	s := *old.Status.DeepCopy()
	s.Capacity, s.Allocatable = n.capacity(), n.Allocatable()
	for name, q := range old.Status.Capacity { // extended resources that others registered
		if _, ok := s.Capacity[name]; !ok && strings.Contains(string(name), "/") {
			s.Capacity[name] = q
			s.Allocatable[name] = q
			if a, ok := old.Status.Allocatable[name]; ok {
				s.Allocatable[name] = a
			}
		}
	}
	s.Addresses = nil
	for _, ip := range n.cfg.IPs {
		s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
	}
	s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: n.cfg.Name})
	s.DaemonEndpoints.KubeletEndpoint.Port = n.cfg.Port
	s.NodeInfo = n.machine.Info(n.cfg.Kubelet, n.cfg.Runtime)
	if images := n.cfg.Images(ctx); len(images) > 0 {
		slices.SortStableFunc(images, func(a, b corev1.ContainerImage) int { return int(min(1, max(-1, b.SizeBytes-a.SizeBytes))) })
		s.Images = images[:min(len(images), 50)]
	}
	s.Conditions = n.conditions(old.Status.Conditions)
	return s
}

func (n *Node) conditions(old []corev1.NodeCondition) []corev1.NodeCondition {
	now := metav1.NewTime(n.cfg.Now())
	out := slices.Clone(old)
	set := func(t corev1.NodeConditionType, ok bool, want corev1.ConditionStatus, reason, message string) {
		c := corev1.NodeCondition{Type: t, Status: want, Reason: reason, Message: message, LastHeartbeatTime: now, LastTransitionTime: now}
		if !ok {
			c.Status = map[corev1.ConditionStatus]corev1.ConditionStatus{corev1.ConditionTrue: corev1.ConditionFalse, corev1.ConditionFalse: corev1.ConditionTrue}[want]
		}
		for i := range out {
			if out[i].Type == t {
				if out[i].Status == c.Status {
					c.LastTransitionTime = out[i].LastTransitionTime
				}
				out[i] = c
				return
			}
		}
		out = append(out, c)
	}
	set(corev1.NodeMemoryPressure, true, corev1.ConditionFalse, "KubeletHasSufficientMemory", "the node has sufficient memory available")
	set(corev1.NodeDiskPressure, true, corev1.ConditionFalse, "KubeletHasNoDiskPressure", "the node has no disk pressure")
	set(corev1.NodePIDPressure, true, corev1.ConditionFalse, "KubeletHasSufficientPID", "the node has sufficient PID available")
	err := n.cfg.Ready()
	if errors.Is(err, ErrStarting) && slices.ContainsFunc(out, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeReady }) {
		return out
	}
	if err != nil {
		set(corev1.NodeReady, false, corev1.ConditionTrue, "KubeletNotReady", err.Error())
	} else {
		set(corev1.NodeReady, true, corev1.ConditionTrue, "KubeletReady", "the node agent is posting ready status")
	}
	return out
}

// renew keeps the lease by which the node's life is told.
func (n *Node) renew(ctx context.Context) error {
	now := metav1.NewMicroTime(n.cfg.Now())
	seconds := int32(leaseDuration / time.Second)
	lease, err := n.leases.Get(ctx, leaseNamespace, n.cfg.Name)
	if apierrors.IsNotFound(err) {
		lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: leaseNamespace, Name: n.cfg.Name}}
		if node := n.Get(); node != nil {
			lease.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}
		}
		lease.Spec = coordinationv1.LeaseSpec{HolderIdentity: &n.cfg.Name, LeaseDurationSeconds: &seconds, RenewTime: &now}
		_, err = n.leases.Create(ctx, lease)
	} else if err == nil {
		lease = lease.DeepCopy()
		lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = &n.cfg.Name, &seconds, &now
		_, err = n.leases.Update(ctx, lease)
	}
	if err != nil {
		return fmt.Errorf("renew lease of node %s: %w", n.cfg.Name, err)
	}
	return nil
}
