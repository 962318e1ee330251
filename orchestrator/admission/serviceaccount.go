package admission

import (
	"context"
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
)

const (
	tokenVolume  = "kube-api-access-" // and five characters
	tokenMount   = "/var/run/secrets/kubernetes.io/serviceaccount"
	tokenSeconds = 60*60 + 7 // an hour, and enough to tell it from one that a user asked for
	rootCAMap    = "kube-root-ca.crt"
)

// ServiceAccount gives every pod a service account, and mounts its token, the
// cluster's CA and the namespace's name where client libraries look for them.
type ServiceAccount struct{}

// Name is the plugin's name in errors.
func (ServiceAccount) Name() string { return "ServiceAccount" }

// Mutate completes new pods.
func (ServiceAccount) Mutate(ctx context.Context, a *Attributes) error {
	if !a.Is(podKind, admissionv1.Create) {
		return nil
	}
	pod, ok := a.Object.(*corev1.Pod)
	if !ok {
		return nil
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return mirrorPod(a, pod)
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = "default"
	}
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName
	sa, err := account(ctx, a, pod.Spec.ServiceAccountName)
	if err != nil {
		return Forbidden(a, fmt.Errorf("error looking up service account %s/%s: %w", a.Namespace, pod.Spec.ServiceAccountName, err))
	}
	if automount(sa, pod) {
		mountToken(pod)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, sa.ImagePullSecrets...)
	}
	return nil
}

// mirrorPod: what a node runs by itself has no identity in the cluster.
func mirrorPod(a *Attributes, pod *corev1.Pod) error {
	if pod.Spec.ServiceAccountName != "" {
		return Forbidden(a, fmt.Errorf("a mirror pod may not reference service accounts"))
	}
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil {
				return Forbidden(a, fmt.Errorf("a mirror pod may not use ServiceAccountToken volume projections"))
			}
		}
	}
	return nil
}

func account(ctx context.Context, a *Attributes, name string) (*corev1.ServiceAccount, error) {
	key := types.NamespacedName{Namespace: a.Namespace, Name: name}
	o, err := a.Reader.Get(ctx, serviceAccounts, key, false)
	if apierrors.IsNotFound(err) {
		o, err = a.Reader.Get(ctx, serviceAccounts, key, true)
	}
	if err != nil {
		return nil, err
	}
	sa, ok := o.(*corev1.ServiceAccount)
	if !ok {
		return nil, fmt.Errorf("%T is not a service account", o)
	}
	return sa, nil
}

// automount: the pod's word counts before its account's.
func automount(sa *corev1.ServiceAccount, pod *corev1.Pod) bool {
	if pod.Spec.AutomountServiceAccountToken != nil {
		return *pod.Spec.AutomountServiceAccountToken
	}
	return sa.AutomountServiceAccountToken == nil || *sa.AutomountServiceAccountToken
}

// mountToken mounts the volume in all containers that have nothing in its place.
// It finds the volume again when it is called again.
func mountToken(pod *corev1.Pod) {
	name := ""
	for _, v := range pod.Spec.Volumes {
		if strings.HasPrefix(v.Name, tokenVolume) {
			name = v.Name
			break
		}
	}
	exists := name != ""
	if !exists {
		name = tokenVolume + rand.String(5)
	}
	used := mountIn(pod.Spec.InitContainers, name)
	used = mountIn(pod.Spec.Containers, name) || used
	if used && !exists {
		pod.Spec.Volumes = append(pod.Spec.Volumes, tokenSource(name))
	}
}

func mountIn(containers []corev1.Container, name string) (used bool) {
	for i := range containers {
		c := &containers[i]
		taken := false
		for _, m := range c.VolumeMounts {
			taken = taken || m.MountPath == tokenMount
		}
		if !taken {
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: tokenMount})
			used = true
		}
	}
	return used
}

func tokenSource(name string) corev1.Volume {
	mode, seconds := corev1.ProjectedVolumeSourceDefaultMode, int64(tokenSeconds)
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: &mode,
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &seconds}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: rootCAMap},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
				Path:     "namespace",
				FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"},
			}}}},
		},
	}}}
}
