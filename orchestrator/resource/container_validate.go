package resource

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// podScope is what the containers of a pod may refer to.
type podScope struct {
	volumes     map[string]*corev1.VolumeSource
	claims      sets.Set[string]
	names       sets.Set[string] // of containers seen so far
	grace       *int64
	hostNetwork bool
}

func (s *podScope) validateContainers(containers []corev1.Container, path *field.Path) field.ErrorList {
	if len(containers) == 0 {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	for i := range containers {
		c, p := &containers[i], path.Index(i)
		errs = append(errs, s.validateContainer(c, p)...)
		errs = append(errs, s.validateHooks(c, p)...)
		if c.RestartPolicy != nil {
			errs = append(errs, field.Forbidden(p.Child("restartPolicy"), "may not be set for non-init containers"))
		}
	}
	return append(errs, uniqueHostPorts(containers, path)...)
}

// validateInitContainers checks init containers, among them native sidecars:
// those that are restarted always, and only those, have probes and hooks.
func (s *podScope) validateInitContainers(containers []corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range containers {
		c, p := &containers[i], path.Index(i)
		errs = append(errs, s.validateContainer(c, p)...)
		if c.RestartPolicy != nil {
			errs = append(errs, oneOf(p.Child("restartPolicy"), *c.RestartPolicy, corev1.ContainerRestartPolicyAlways)...)
		}
		if Sidecar(c) {
			errs = append(errs, s.validateHooks(c, p)...)
		} else {
			errs = append(errs, forbidHooks(c, p, "may not be set for init containers without restartPolicy=Always")...)
		}
		errs = append(errs, uniqueHostPorts(containers[i:i+1], path)...)
	}
	return errs
}

// Sidecar says whether an init container is a native sidecar: it runs beside the
// containers instead of before them.
func Sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func forbidHooks(c *corev1.Container, p *field.Path, why string) field.ErrorList {
	var errs field.ErrorList
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"lifecycle", c.Lifecycle != nil},
		{"livenessProbe", c.LivenessProbe != nil},
		{"readinessProbe", c.ReadinessProbe != nil},
		{"startupProbe", c.StartupProbe != nil},
	} {
		if f.set {
			errs = append(errs, field.Forbidden(p.Child(f.name), why))
		}
	}
	return errs
}

// validateContainer checks what all sorts of containers have.
func (s *podScope) validateContainer(c *corev1.Container, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case c.Name == "":
		errs = append(errs, field.Required(p.Child("name"), ""))
	case s.names.Has(c.Name):
		errs = append(errs, field.Duplicate(p.Child("name"), c.Name))
	default:
		errs = append(errs, dnsLabel(p.Child("name"), c.Name)...)
		s.names.Insert(c.Name)
	}
	errs = append(errs, required(p.Child("image"), c.Image)...)
	errs = append(errs, oneOf(p.Child("terminationMessagePolicy"), c.TerminationMessagePolicy,
		corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)...)
	errs = append(errs, s.validatePorts(c.Ports, p.Child("ports"))...)
	errs = append(errs, s.validateEnv(c.Env, p.Child("env"))...)
	errs = append(errs, validateEnvFrom(c.EnvFrom, p.Child("envFrom"))...)
	errs = append(errs, s.validateMounts(c, p.Child("volumeMounts"))...)
	errs = append(errs, s.validateDevices(c, p.Child("volumeDevices"))...)
	errs = append(errs, oneOf(p.Child("imagePullPolicy"), c.ImagePullPolicy,
		corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
	errs = append(errs, validateResources(&c.Resources, s.claims, p.Child("resources"), forContainer)...)
	errs = append(errs, validateSecurityContext(c.SecurityContext, p.Child("securityContext"))...)
	if len(c.RestartPolicyRules) > 0 {
		errs = append(errs, field.Forbidden(p.Child("restartPolicyRules"), "restart rules are not supported"))
	}
	return errs
}

func (s *podScope) validatePorts(ports []corev1.ContainerPort, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	var names sets.Set[string]
	for i := range ports {
		port, p := &ports[i], path.Index(i)
		if port.Name != "" {
			if names == nil {
				names = sets.New[string]()
			}
			if msgs := validation.IsValidPortName(port.Name); len(msgs) > 0 {
				errs = append(errs, invalid(p.Child("name"), port.Name, msgs)...)
			} else if names.Has(port.Name) {
				errs = append(errs, field.Duplicate(p.Child("name"), port.Name))
			}
			names.Insert(port.Name)
		}
		if port.ContainerPort == 0 {
			errs = append(errs, field.Required(p.Child("containerPort"), ""))
		} else {
			errs = append(errs, invalid(p.Child("containerPort"), port.ContainerPort, validation.IsValidPortNum(int(port.ContainerPort)))...)
		}
		if port.HostPort != 0 {
			errs = append(errs, invalid(p.Child("hostPort"), port.HostPort, validation.IsValidPortNum(int(port.HostPort)))...)
			if s.hostNetwork && port.HostPort != port.ContainerPort {
				errs = append(errs, field.Invalid(p.Child("containerPort"), port.ContainerPort, "must match `hostPort` when `hostNetwork` is true"))
			}
		}
		errs = append(errs, oneOf(p.Child("protocol"), port.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
		if port.HostIP != "" {
			errs = append(errs, validation.IsValidIPForLegacyField(p.Child("hostIP"), port.HostIP, false, nil)...)
		}
	}
	return errs
}

// uniqueHostPorts: a host's port belongs to one container.
func uniqueHostPorts(containers []corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	var taken sets.Set[string]
	for i := range containers {
		for j := range containers[i].Ports {
			port := &containers[i].Ports[j]
			if port.HostPort == 0 {
				continue
			}
			key := fmt.Sprintf("%s/%s/%d", port.Protocol, port.HostIP, port.HostPort)
			if taken == nil {
				taken = sets.New[string]()
			}
			if taken.Has(key) {
				errs = append(errs, field.Duplicate(path.Index(i).Child("ports").Index(j).Child("hostPort"), key))
			}
			taken.Insert(key)
		}
	}
	return errs
}

func (s *podScope) validateMounts(c *corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := make(map[string]struct{}, len(c.VolumeMounts))
	for i := range c.VolumeMounts {
		m, p := &c.VolumeMounts[i], path.Index(i)
		errs = append(errs, required(p.Child("name"), m.Name)...)
		if _, ok := s.volumes[m.Name]; !ok {
			errs = append(errs, field.NotFound(p.Child("name"), m.Name))
		}
		errs = append(errs, required(p.Child("mountPath"), m.MountPath)...)
		if _, dup := seen[m.MountPath]; dup {
			errs = append(errs, field.Invalid(p.Child("mountPath"), m.MountPath, "must be unique"))
		}
		seen[m.MountPath] = struct{}{}
		errs = append(errs, validateSubPath(m, p)...)
		errs = append(errs, validatePropagation(m, c, p)...)
		if m.RecursiveReadOnly != nil {
			errs = append(errs, validateRecursiveReadOnly(m, p.Child("recursiveReadOnly"))...)
		}
	}
	return errs
}

func validateSubPath(m *corev1.VolumeMount, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if m.SubPath != "" {
		errs = append(errs, descending(p.Child("subPath"), m.SubPath)...)
	}
	if m.SubPathExpr != "" {
		if m.SubPath != "" {
			errs = append(errs, field.Invalid(p.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive"))
		}
		errs = append(errs, descending(p.Child("subPathExpr"), m.SubPathExpr)...)
	}
	return errs
}

func validatePropagation(m *corev1.VolumeMount, c *corev1.Container, p *field.Path) field.ErrorList {
	if m.MountPropagation == nil {
		return nil
	}
	path := p.Child("mountPropagation")
	errs := oneOf(path, *m.MountPropagation, corev1.MountPropagationBidirectional,
		corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)
	privileged := c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
	if *m.MountPropagation == corev1.MountPropagationBidirectional && !privileged {
		errs = append(errs, field.Forbidden(path, "Bidirectional mount propagation is available only to privileged containers"))
	}
	return errs
}

func validateRecursiveReadOnly(m *corev1.VolumeMount, path *field.Path) field.ErrorList {
	errs := oneOf(path, *m.RecursiveReadOnly, corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible)
	if *m.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled {
		return errs
	}
	if !m.ReadOnly {
		errs = append(errs, field.Forbidden(path, "may only be specified when readOnly is true"))
	}
	if m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
		errs = append(errs, field.Forbidden(path, "may only be specified when mountPropagation is None or not specified"))
	}
	return errs
}

func (s *podScope) validateDevices(c *corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range c.VolumeDevices {
		d, p := &c.VolumeDevices[i], path.Index(i)
		errs = append(errs, required(p.Child("name"), d.Name)...)
		errs = append(errs, required(p.Child("devicePath"), d.DevicePath)...)
		if d.DevicePath != "" {
			errs = append(errs, noBacksteps(p.Child("devicePath"), d.DevicePath)...)
		}
		if v, ok := s.volumes[d.Name]; !ok {
			errs = append(errs, field.NotFound(p.Child("name"), d.Name))
		} else if v.PersistentVolumeClaim == nil && v.Ephemeral == nil {
			errs = append(errs, field.Invalid(p.Child("name"), d.Name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"))
		}
	}
	return errs
}
