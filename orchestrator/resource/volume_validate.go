package resource

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateVolumes checks a pod's volumes and gives them by name.
func validateVolumes(volumes []corev1.Volume, path *field.Path) (map[string]*corev1.VolumeSource, field.ErrorList) {
	var errs field.ErrorList
	byName := make(map[string]*corev1.VolumeSource, len(volumes))
	for i := range volumes {
		v, p := &volumes[i], path.Index(i)
		switch _, dup := byName[v.Name]; {
		case v.Name == "":
			errs = append(errs, field.Required(p.Child("name"), ""))
		case dup:
			errs = append(errs, field.Duplicate(p.Child("name"), v.Name))
		default:
			errs = append(errs, dnsLabel(p.Child("name"), v.Name)...)
			byName[v.Name] = &v.VolumeSource
		}
		errs = append(errs, validateVolume(&v.VolumeSource, p)...)
	}
	return byName, errs
}

// sourceCheck is one of the sources that T may have.
type sourceCheck[T any] struct {
	name  string
	set   func(s *T) bool
	check func(s *T, p *field.Path) field.ErrorList // may be nil
}

func validateVolume(s *corev1.VolumeSource, p *field.Path) field.ErrorList {
	return exactlyOne(s, p, "may not specify more than 1 volume type", "must specify a volume type", volumeSources)
}

type volumeSource = corev1.VolumeSource

var volumeSources = []sourceCheck[volumeSource]{
	{"emptyDir", func(s *volumeSource) bool { return s.EmptyDir != nil }, func(s *volumeSource, p *field.Path) field.ErrorList {
		return validateEmptyDir(s.EmptyDir, p)
	}},
	{"hostPath", func(s *volumeSource) bool { return s.HostPath != nil }, func(s *volumeSource, p *field.Path) field.ErrorList {
		return validateHostPath(s.HostPath, p)
	}},
	{"gitRepo", func(s *volumeSource) bool { return s.GitRepo != nil }, func(s *volumeSource, p *field.Path) field.ErrorList {
		return required(p.Child("repository"), s.GitRepo.Repository)
	}},
	{"secret", func(s *volumeSource) bool { return s.Secret != nil }, func(s *volumeSource, p *field.Path) field.ErrorList {
		return validateSecretVolume(s.Secret, p)
	}},
	{"nfs", func(s *volumeSource) bool { return s.NFS != nil }, func(s *volumeSource, p *field.Path) field.ErrorList {
		return validateNFS(s.NFS, p)
	}},
	{"persistentVolumeClaim", func(s *volumeSource) bool { return s.PersistentVolumeClaim != nil }, func(s *volumeSource, p *field.Path) field.ErrorList {
		return required(p.Child("claimName"), s.PersistentVolumeClaim.ClaimName)
	}},
	{"downwardAPI", func(s *volumeSource) bool { return s.DownwardAPI != nil }, func(s *volumeSource, p *field.Path) field.ErrorList {
		return append(checkFileMode(p.Child("defaultMode"), s.DownwardAPI.DefaultMode), validateDownwardItems(s.DownwardAPI.Items, p)...)
	}},
	{"configMap", func(s *volumeSource) bool { return s.ConfigMap != nil }, func(s *volumeSource, p *field.Path) field.ErrorList {
		return validateConfigMapVolume(s.ConfigMap, p)
	}},
	{"projected", func(s *volumeSource) bool { return s.Projected != nil }, func(s *volumeSource, p *field.Path) field.ErrorList {
		return validateProjected(s.Projected, p)
	}},
	{"csi", func(s *volumeSource) bool { return s.CSI != nil }, func(s *volumeSource, p *field.Path) field.ErrorList {
		return validateInlineCSI(s.CSI, p)
	}},
	{"ephemeral", func(s *volumeSource) bool { return s.Ephemeral != nil }, func(s *volumeSource, p *field.Path) field.ErrorList {
		if s.Ephemeral.VolumeClaimTemplate == nil {
			return field.ErrorList{field.Required(p.Child("volumeClaimTemplate"), "")}
		}
		return nil
	}},
	{"image", func(s *volumeSource) bool { return s.Image != nil }, func(s *volumeSource, p *field.Path) field.ErrorList {
		return append(required(p.Child("reference"), s.Image.Reference),
			oneOf(p.Child("pullPolicy"), s.Image.PullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
	}},
	// The in-tree network volumes have no checks of their own here: their
	// drivers are outside, and know better.
	{"gcePersistentDisk", func(s *volumeSource) bool { return s.GCEPersistentDisk != nil }, nil},
	{"awsElasticBlockStore", func(s *volumeSource) bool { return s.AWSElasticBlockStore != nil }, nil},
	{"iscsi", func(s *volumeSource) bool { return s.ISCSI != nil }, nil},
	{"glusterfs", func(s *volumeSource) bool { return s.Glusterfs != nil }, nil},
	{"rbd", func(s *volumeSource) bool { return s.RBD != nil }, nil},
	{"flexVolume", func(s *volumeSource) bool { return s.FlexVolume != nil }, nil},
	{"cinder", func(s *volumeSource) bool { return s.Cinder != nil }, nil},
	{"cephfs", func(s *volumeSource) bool { return s.CephFS != nil }, nil},
	{"flocker", func(s *volumeSource) bool { return s.Flocker != nil }, nil},
	{"fc", func(s *volumeSource) bool { return s.FC != nil }, nil},
	{"azureFile", func(s *volumeSource) bool { return s.AzureFile != nil }, nil},
	{"vsphereVolume", func(s *volumeSource) bool { return s.VsphereVolume != nil }, nil},
	{"quobyte", func(s *volumeSource) bool { return s.Quobyte != nil }, nil},
	{"azureDisk", func(s *volumeSource) bool { return s.AzureDisk != nil }, nil},
	{"photonPersistentDisk", func(s *volumeSource) bool { return s.PhotonPersistentDisk != nil }, nil},
	{"portworxVolume", func(s *volumeSource) bool { return s.PortworxVolume != nil }, nil},
	{"scaleIO", func(s *volumeSource) bool { return s.ScaleIO != nil }, nil},
	{"storageos", func(s *volumeSource) bool { return s.StorageOS != nil }, nil},
}

func validateNFS(n *corev1.NFSVolumeSource, p *field.Path) field.ErrorList {
	errs := append(required(p.Child("server"), n.Server), required(p.Child("path"), n.Path)...)
	if !strings.HasPrefix(n.Path, "/") {
		errs = append(errs, field.Invalid(p.Child("path"), n.Path, "must be an absolute path"))
	}
	return errs
}

// exactlyOne checks the one source that s has.
func exactlyOne[T any](s *T, p *field.Path, many, none string, sources []sourceCheck[T]) field.ErrorList {
	var errs field.ErrorList
	found := false
	for i := range sources {
		c := &sources[i]
		switch {
		case !c.set(s):
		case found:
			errs = append(errs, field.Forbidden(p.Child(c.name), many))
		default:
			found = true
			if c.check != nil {
				errs = append(errs, c.check(s, p.Child(c.name))...)
			}
		}
	}
	if !found {
		errs = append(errs, field.Required(p, none))
	}
	return errs
}

func validateEmptyDir(e *corev1.EmptyDirVolumeSource, p *field.Path) field.ErrorList {
	if e.SizeLimit != nil && e.SizeLimit.Sign() < 0 {
		return field.ErrorList{field.Forbidden(p.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity")}
	}
	return nil
}

func validateHostPath(h *corev1.HostPathVolumeSource, p *field.Path) field.ErrorList {
	if h.Path == "" {
		return field.ErrorList{field.Required(p.Child("path"), "")}
	}
	errs := noBacksteps(p.Child("path"), h.Path)
	if h.Type != nil {
		errs = append(errs, oneOfOrNone(p.Child("type"), *h.Type,
			corev1.HostPathBlockDev, corev1.HostPathCharDev, corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate,
			corev1.HostPathFile, corev1.HostPathFileOrCreate, corev1.HostPathSocket)...)
	}
	return errs
}

func validateSecretVolume(s *corev1.SecretVolumeSource, p *field.Path) field.ErrorList {
	errs := required(p.Child("secretName"), s.SecretName)
	errs = append(errs, checkFileMode(p.Child("defaultMode"), s.DefaultMode)...)
	return append(errs, validateKeys(s.Items, p.Child("items"))...)
}

func validateConfigMapVolume(c *corev1.ConfigMapVolumeSource, p *field.Path) field.ErrorList {
	errs := required(p.Child("name"), c.Name)
	errs = append(errs, checkFileMode(p.Child("defaultMode"), c.DefaultMode)...)
	return append(errs, validateKeys(c.Items, p.Child("items"))...)
}

func validateKeys(items []corev1.KeyToPath, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range items {
		k, p := &items[i], path.Index(i)
		errs = append(errs, required(p.Child("key"), k.Key)...)
		errs = append(errs, required(p.Child("path"), k.Path)...)
		errs = append(errs, notReserved(p.Child("path"), k.Path)...)
		errs = append(errs, checkFileMode(p.Child("mode"), k.Mode)...)
	}
	return errs
}

func validateDownwardItems(items []corev1.DownwardAPIVolumeFile, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range items {
		// Kubernetes names no index here.
		f, p := &items[i], path
		errs = append(errs, required(p.Child("path"), f.Path)...)
		errs = append(errs, notReserved(p.Child("path"), f.Path)...)
		switch {
		case f.FieldRef != nil:
			errs = append(errs, validateFieldRef(f.FieldRef, volumeFields, p.Child("fieldRef"))...)
			if f.ResourceFieldRef != nil {
				errs = append(errs, field.Invalid(p, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
			}
		case f.ResourceFieldRef != nil:
			errs = append(errs, validateResourceFieldRef(f.ResourceFieldRef, p.Child("resourceFieldRef"), true)...)
		default:
			errs = append(errs, field.Required(p, "one of fieldRef and resourceFieldRef is required"))
		}
		errs = append(errs, checkFileMode(p.Child("mode"), f.Mode)...)
	}
	return errs
}

func validateProjected(v *corev1.ProjectedVolumeSource, p *field.Path) field.ErrorList {
	errs := checkFileMode(p.Child("defaultMode"), v.DefaultMode)
	paths := map[string]bool{}
	for i := range v.Sources {
		errs = append(errs, validateProjection(&v.Sources[i], p.Child("sources").Index(i), paths)...)
	}
	return errs
}

// projection is one source of a projected volume, with the files of all of them.
type projection struct {
	*corev1.VolumeProjection
	paths map[string]bool
}

func validateProjection(v *corev1.VolumeProjection, p *field.Path, paths map[string]bool) field.ErrorList {
	return exactlyOne(&projection{v, paths}, p, "may not specify more than 1 volume type per source", "must specify a source", projections)
}

var projections = []sourceCheck[projection]{
	{"secret", func(s *projection) bool { return s.Secret != nil }, func(s *projection, p *field.Path) field.ErrorList {
		return s.keys(s.Secret.Name, s.Secret.Items, p)
	}},
	{"configMap", func(s *projection) bool { return s.ConfigMap != nil }, func(s *projection, p *field.Path) field.ErrorList {
		return s.keys(s.ConfigMap.Name, s.ConfigMap.Items, p)
	}},
	{"downwardAPI", func(s *projection) bool { return s.DownwardAPI != nil }, func(s *projection, p *field.Path) field.ErrorList {
		errs := validateDownwardItems(s.DownwardAPI.Items, p)
		for _, f := range s.DownwardAPI.Items {
			errs = append(errs, s.claim(f.Path, p)...)
		}
		return errs
	}},
	{"serviceAccountToken", func(s *projection) bool { return s.ServiceAccountToken != nil }, func(s *projection, p *field.Path) field.ErrorList {
		return append(validateTokenProjection(s.ServiceAccountToken, p), s.claim(s.ServiceAccountToken.Path, p)...)
	}},
	{"clusterTrustBundle", func(s *projection) bool { return s.ClusterTrustBundle != nil }, func(s *projection, p *field.Path) field.ErrorList {
		return append(required(p.Child("path"), s.ClusterTrustBundle.Path), s.claim(s.ClusterTrustBundle.Path, p)...)
	}},
	{"podCertificate", func(s *projection) bool { return s.PodCertificate != nil }, nil},
}

// claim takes a file's path, which no other source may have.
func (s *projection) claim(file string, p *field.Path) field.ErrorList {
	if file != "" && s.paths[file] {
		return field.ErrorList{field.Invalid(p, file, "conflicting duplicate paths")}
	}
	s.paths[file] = true
	return nil
}

func (s *projection) keys(name string, items []corev1.KeyToPath, p *field.Path) field.ErrorList {
	errs := append(required(p.Child("name"), name), validateKeys(items, p.Child("items"))...)
	for _, k := range items {
		errs = append(errs, s.claim(k.Path, p)...)
	}
	return errs
}

func validateTokenProjection(t *corev1.ServiceAccountTokenProjection, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch seconds := t.ExpirationSeconds; {
	case seconds == nil:
		errs = append(errs, field.Required(p.Child("expirationSeconds"), ""))
	case *seconds < 10*60:
		errs = append(errs, field.Invalid(p.Child("expirationSeconds"), *seconds, "may not specify a duration less than 10 minutes"))
	case *seconds > 1<<32:
		errs = append(errs, field.Invalid(p.Child("expirationSeconds"), *seconds, "may not specify a duration larger than 2^32 seconds"))
	}
	if t.Path == "" {
		return append(errs, field.Required(p.Child("path"), ""))
	}
	return append(errs, notReserved(p.Child("path"), t.Path)...)
}

func validateInlineCSI(c *corev1.CSIVolumeSource, p *field.Path) field.ErrorList {
	errs := validateDriverName(c.Driver, p.Child("driver"))
	if c.NodePublishSecretRef == nil {
		return errs
	}
	if c.NodePublishSecretRef.Name == "" {
		return append(errs, field.Required(p.Child("nodePublishSecretRef", "name"), ""))
	}
	return append(errs, dnsSubdomain(p.Child("name"), c.NodePublishSecretRef.Name)...)
}

func validateDriverName(driver string, p *field.Path) field.ErrorList {
	if driver == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	var errs field.ErrorList
	if len(driver) > 63 {
		errs = append(errs, field.TooLong(p, "", 63))
	}
	for _, m := range validation.IsDNS1123Subdomain(strings.ToLower(driver)) {
		errs = append(errs, field.Invalid(p, driver, m))
	}
	return errs
}
