// Package attest decides who may have which identity.
//
//	in:   a node's name, as its client certificate or this process has it; pods as the API server has them
//	out:  yes, or a *Denied that says why
//
// A node may hold an identity only while a pod of that service account is bound
// to it and has not ended. On the node itself the pod's socket is the attestation:
// whoever can open it is in the pod; nothing that a client says of itself is read.
package attest

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/citadel/ca"
	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// Denied says that a node asked for an identity that none of its pods has.
type Denied struct {
	Node     string
	Identity ca.Identity
}

func (d *Denied) Error() string {
	return fmt.Sprintf("node %q may not have the identity %s: no pod of that service account is bound to it", d.Node, d.Identity)
}

// Config says where pods are known.
type Config struct {
	Client client.Interface // required
	Node   string           // attests this node's pods only; "" attests every node's
}

// Attestor answers from an indexed view of the pods.
type Attestor struct {
	node  string
	pods  client.Typed[*corev1.Pod]
	view  client.View[*corev1.Pod]
	index string
}

// New starts following the pods.
func New(cfg Config) (*Attestor, error) {
	if cfg.Client == nil {
		return nil, errors.New("attestor: Client is required")
	}
	a := &Attestor{node: cfg.Node, pods: client.For(cfg.Client, client.Pods), index: "citadel/attest"}
	a.view = a.pods.Informer(a.options(cfg.Node))
	a.view.AddIndex(a.index, func(o client.Object) []string {
		p, ok := o.(*corev1.Pod)
		if !ok || !holds(p) {
			return nil
		}
		return []string{indexKey(p.Spec.NodeName, IdentityOf(p))}
	})
	return a, nil
}

// Synced is closed when the first list of pods is complete.
func (a *Attestor) Synced() <-chan struct{} { return a.view.Synced() }

// Attest returns nil if the node may have the identity. A pod that the view has
// not seen yet is looked up: a pod that was bound this instant is not refused.
func (a *Attestor) Attest(ctx context.Context, node string, id ca.Identity) error {
	if node == "" {
		return errors.New("attest: the caller is not a node")
	}
	if a.node != "" && node != a.node {
		return &Denied{Node: node, Identity: id}
	}
	if len(a.view.ByIndex(a.index, indexKey(node, id))) > 0 {
		return nil
	}
	opts := a.options(node)
	opts.Namespace = id.Namespace
	pods, err := a.pods.List(ctx, opts)
	if err != nil {
		return fmt.Errorf("attest %s on node %s: %w", id, node, err)
	}
	for _, p := range pods {
		if holds(p) && p.Spec.NodeName == node && IdentityOf(p) == id {
			return nil
		}
	}
	return &Denied{Node: node, Identity: id}
}

func (a *Attestor) options(node string) client.ListOptions {
	if node == "" {
		return client.ListOptions{}
	}
	return client.ListOptions{FieldSelector: "spec.nodeName=" + node}
}

// holds reports whether a pod still gives its node an identity.
func holds(p *corev1.Pod) bool {
	return p.Spec.NodeName != "" && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
}

// IdentityOf is the identity of a pod.
func IdentityOf(p *corev1.Pod) ca.Identity {
	sa := p.Spec.ServiceAccountName
	if sa == "" {
		sa = "default"
	}
	return ca.Identity{Namespace: p.Namespace, ServiceAccount: sa}
}

func indexKey(node string, id ca.Identity) string { return node + "/" + id.String() }
