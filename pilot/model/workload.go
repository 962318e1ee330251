package model

import (
	corev1 "k8s.io/api/core/v1"
)

// What injection leaves on a pod, by which everybody knows a meshed one.
const (
	StatusAnnotation = "sidecar.istio.io/status"
	SidecarContainer = "istio-proxy"
)

// IsMeshed says whether a pod has a sidecar.
func IsMeshed(p *corev1.Pod) bool {
	if p.Annotations[StatusAnnotation] == "" || p.Spec.HostNetwork {
		return false
	}
	for _, c := range p.Spec.InitContainers {
		if c.Name == SidecarContainer {
			return true
		}
	}
	for _, c := range p.Spec.Containers {
		if c.Name == SidecarContainer {
			return true
		}
	}
	return false
}

// WorkloadOf returns what the mesh needs to know of a pod.
func WorkloadOf(p *corev1.Pod) *Workload {
	w := &Workload{
		Namespace:      p.Namespace,
		Name:           p.Name,
		Labels:         LabelsOf(p.Labels),
		ServiceAccount: p.Spec.ServiceAccountName,
		Meshed:         IsMeshed(p),
	}
	if w.ServiceAccount == "" {
		w.ServiceAccount = "default"
	}
	var ports []ContainerPort
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range list {
			if c.Name == SidecarContainer {
				continue
			}
			for _, cp := range c.Ports {
				if cp.Protocol == "" || cp.Protocol == corev1.ProtocolTCP {
					ports = append(ports, ContainerPort{cp.Name, uint32(cp.ContainerPort)})
				}
			}
		}
	}
	w.Ports = TupleOf(ports...)
	var addresses []string
	for _, ip := range p.Status.PodIPs {
		addresses = append(addresses, ip.IP)
	}
	w.Addresses = TupleOf(addresses...)
	return w
}

// Ended says whether a pod will never serve again, so that its address may be another's.
func Ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}
