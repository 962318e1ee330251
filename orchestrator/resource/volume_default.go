package resource

import corev1 "k8s.io/api/core/v1"

const (
	fileMode     int32 = 0o644 // of files made from Secrets, ConfigMaps, the downward API
	tokenSeconds int64 = 3600  // of projected service account tokens
)

func defaultVolume(v *corev1.Volume) {
	s := &v.VolumeSource
	if *s == (corev1.VolumeSource{}) {
		s.EmptyDir = &corev1.EmptyDirVolumeSource{}
		return
	}
	switch {
	case s.HostPath != nil:
		setDefault(&s.HostPath.Type, corev1.HostPathUnset)
	case s.Secret != nil:
		setDefault(&s.Secret.DefaultMode, fileMode)
	case s.ConfigMap != nil:
		setDefault(&s.ConfigMap.DefaultMode, fileMode)
	case s.DownwardAPI != nil:
		setDefault(&s.DownwardAPI.DefaultMode, fileMode)
		defaultDownward(s.DownwardAPI.Items)
	case s.Projected != nil:
		defaultProjected(s.Projected)
	case s.Image != nil:
		if s.Image.PullPolicy == "" {
			s.Image.PullPolicy = pullPolicy(s.Image.Reference)
		}
	case s.Ephemeral != nil:
		if t := s.Ephemeral.VolumeClaimTemplate; t != nil {
			setDefault(&t.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
			roundResources(t.Spec.Resources.Limits)
			roundResources(t.Spec.Resources.Requests)
		}
	default:
		defaultNetworkVolume(s)
	}
}

func defaultProjected(p *corev1.ProjectedVolumeSource) {
	setDefault(&p.DefaultMode, fileMode)
	for i := range p.Sources {
		if t := p.Sources[i].ServiceAccountToken; t != nil {
			setDefault(&t.ExpirationSeconds, tokenSeconds)
		}
		if d := p.Sources[i].DownwardAPI; d != nil {
			defaultDownward(d.Items)
		}
	}
}

func defaultDownward(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		defaultFieldRef(items[i].FieldRef)
	}
}

// defaultNetworkVolume defaults the in-tree network volumes, which only remain
// as names for CSI drivers.
func defaultNetworkVolume(s *corev1.VolumeSource) {
	switch {
	case s.ISCSI != nil:
		defaultString(&s.ISCSI.ISCSIInterface, "default")
	case s.RBD != nil:
		defaultString(&s.RBD.RBDPool, "rbd")
		defaultString(&s.RBD.RadosUser, "admin")
		defaultString(&s.RBD.Keyring, "/etc/ceph/keyring")
	case s.AzureDisk != nil:
		setDefault(&s.AzureDisk.CachingMode, corev1.AzureDataDiskCachingReadWrite)
		setDefault(&s.AzureDisk.Kind, corev1.AzureSharedBlobDisk)
		setDefault(&s.AzureDisk.FSType, "ext4")
		setDefault(&s.AzureDisk.ReadOnly, false)
	case s.ScaleIO != nil:
		defaultString(&s.ScaleIO.StorageMode, "ThinProvisioned")
		defaultString(&s.ScaleIO.FSType, "xfs")
	}
}

func defaultString(s *string, value string) {
	if *s == "" {
		*s = value
	}
}
