package enrich

import (
	"net/netip"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

// Directory follows all pods and finds workloads by address.
type Directory struct {
	pods     client.View[*corev1.Pod]
	services client.View[*corev1.Service]

	mu    sync.Mutex
	known map[string]entry // by namespace/name
}

// entry is a workload made from a pod of that resource version.
type entry struct {
	version  string
	workload *Workload
}

const (
	byIP      = "mixer/ip"
	byAccount = "mixer/serviceaccount"
)

// NewDirectory begins to follow the pods.
func NewDirectory(c client.Interface) *Directory {
	d := &Directory{
		pods:     client.For(c, client.Pods).Informer(client.ListOptions{}),
		services: client.For(c, client.Services).Informer(client.ListOptions{}),
		known:    map[string]entry{},
	}
	d.pods.AddIndex(byIP, func(o client.Object) []string {
		p, ok := o.(*corev1.Pod)
		if !ok || p.Spec.HostNetwork {
			return nil // its address says only which node
		}
		var ips []string
		for _, ip := range p.Status.PodIPs {
			ips = append(ips, ip.IP)
		}
		if len(ips) == 0 && p.Status.PodIP != "" {
			ips = append(ips, p.Status.PodIP)
		}
		return ips
	})
	d.pods.AddIndex(byAccount, func(o client.Object) []string {
		p, ok := o.(*corev1.Pod)
		if !ok {
			return nil
		}
		sa := p.Spec.ServiceAccountName
		if sa == "" {
			sa = "default"
		}
		return []string{p.Namespace + "/" + sa}
	})
	d.pods.Subscribe(func(ev client.Event) {
		if p, ok := ev.Object.(*corev1.Pod); ok && ev.Type == client.Deleted {
			d.mu.Lock()
			delete(d.known, p.Namespace+"/"+p.Name)
			d.mu.Unlock()
		}
	})
	return d
}

// ByIP is the workload that has an address now, nil if no pod has. Of pods that
// have ended an address counts only if no living pod has it.
func (d *Directory) ByIP(ip netip.Addr) *Workload {
	if d == nil || !ip.IsValid() || ip.IsLoopback() {
		return nil
	}
	var last *corev1.Pod
	for _, p := range d.pods.ByIndex(byIP, ip.Unmap().String()) {
		if last == nil || ended(last) && !ended(p) {
			last = p
		}
	}
	return d.Of(last)
}

// ByPrincipal is the workload with a SPIFFE ID, nil unless all its pods are of one
// workload: then an identity says as much as an address. Version is kept only if
// all pods have it.
func (d *Directory) ByPrincipal(principal string) *Workload {
	account, ok := AccountOf(principal)
	if d == nil || !ok {
		return nil
	}
	var found *Workload
	for _, p := range d.pods.ByIndex(byAccount, account) {
		w := d.Of(p)
		switch {
		case found == nil:
			found = w
		case found.App != w.App:
			return nil
		case found.Version != w.Version || found.Name != w.Name:
			same := *found
			same.Version, same.Name = "", ""
			found = &same
		}
	}
	return found
}

// HasService reports whether there is such a Service.
func (d *Directory) HasService(namespace, name string) bool {
	_, ok := d.services.Get(namespace, name)
	return ok
}

// AccountOf is namespace/serviceaccount of a SPIFFE ID of Kubernetes' form.
func AccountOf(principal string) (string, bool) {
	_, rest, ok := strings.Cut(principal, "/ns/")
	namespace, account, ok2 := strings.Cut(rest, "/sa/")
	if !ok || !ok2 || !strings.HasPrefix(principal, "spiffe://") || namespace == "" || account == "" {
		return "", false
	}
	return namespace + "/" + account, true
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// Of is a pod's workload, made once for each version of the pod.
func (d *Directory) Of(p *corev1.Pod) *Workload {
	if p == nil {
		return nil
	}
	if d == nil {
		return FromPod(p)
	}
	key := p.Namespace + "/" + p.Name
	d.mu.Lock()
	defer d.mu.Unlock()
	if e, ok := d.known[key]; ok && e.version == p.ResourceVersion && e.workload.UID == string(p.UID) {
		return e.workload
	}
	w := FromPod(p)
	d.known[key] = entry{p.ResourceVersion, w}
	return w
}

// Current is the newest workload of a pod that somebody holds an older version of.
func (d *Directory) Current(p *corev1.Pod) *Workload {
	if d != nil {
		if now, ok := d.pods.Get(p.Namespace, p.Name); ok && now.UID == p.UID {
			return d.Of(now)
		}
	}
	return d.Of(p)
}

// Workloads lists the workload of every pod that has not ended.
func (d *Directory) Workloads() []*Workload {
	var out []*Workload
	for _, p := range d.pods.List("") {
		if !ended(p) {
			out = append(out, d.Of(p))
		}
	}
	return out
}

// Synced is closed when all pods are known.
func (d *Directory) Synced() <-chan struct{} { return d.pods.Synced() }
