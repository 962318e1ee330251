package container

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/pkg/cap"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
)

// specVersion is what every runc since 1.0 accepts; nothing newer is used.
const specVersion = "1.0.2"

// Namespaces are the paths of what a pod's containers share; "" is the host's.
type Namespaces struct {
	Net, IPC, UTS string
	PID           string // with shareProcessNamespace only
}

// Request is all that makes one container.
type Request struct {
	ID        string
	Pod       *corev1.Pod
	Container *corev1.Container
	Attempt   int // how many containers of this name the pod has had before

	Image      ocispec.ImageConfig
	User       specs.User
	Env        []string // NAME=value, expanded
	Mounts     []specs.Mount
	Namespaces Namespaces
	Hostname   string
	Cgroup     string // path of the pod's cgroup, below every hierarchy's root
	Args       []string
	Shim       string // address of the pod's shim; "" lets containerd start one
	Host       Host
}

// Host is what a spec depends on beside the request.
type Host struct {
	MemoryBytes int64               // capacity, for the OOM score
	Devices     []specs.LinuxDevice // of the machine, for privileged containers
	LowerOOM    bool                // the process may lower OOM scores (CAP_SYS_RESOURCE)
	Seccomp     func(path string) (*specs.LinuxSeccomp, error)
}

// BuildSpec translates a container to what the OCI runtime is given.
func BuildSpec(r Request) (*specs.Spec, error) {
	args, err := command(r)
	if err != nil {
		return nil, err
	}
	sc := r.Container.SecurityContext
	if sc == nil {
		sc = &corev1.SecurityContext{}
	}
	privileged := sc.Privileged != nil && *sc.Privileged
	s := &specs.Spec{
		Version:  specVersion,
		Hostname: r.Hostname,
		Root:     &specs.Root{Path: "rootfs", Readonly: sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem},
		Process: &specs.Process{
			Terminal:        r.Container.TTY,
			User:            r.User,
			Args:            args,
			Env:             environment(r),
			Cwd:             firstOf(r.Container.WorkingDir, r.Image.WorkingDir, "/"),
			NoNewPrivileges: sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation && !privileged,
			OOMScoreAdj:     oomScore(r),
		},
		Linux: &specs.Linux{
			CgroupsPath: path.Join(r.Cgroup, r.ID),
			Namespaces:  namespaces(r),
			Resources:   resources(r.Container.Resources, privileged),
		},
		Annotations: annotations(r),
	}
	if r.Namespaces.UTS != "" {
		s.Hostname = "" // set when the namespace was made; runc may not change one that it joins
	}
	caps, err := capabilities(sc.Capabilities, privileged)
	if err != nil {
		return nil, err
	}
	s.Process.Capabilities = capSets(caps, r.User.UID == 0)
	s.Mounts = append(systemMounts(privileged), r.Mounts...)
	if err := harden(s, r, sc, privileged); err != nil {
		return nil, err
	}
	return s, nil
}

func command(r Request) ([]string, error) {
	entry, args := r.Container.Command, r.Container.Args
	if r.Args != nil {
		entry, args = r.Args, nil
	}
	if len(entry) == 0 {
		entry = r.Image.Entrypoint
		if len(args) == 0 {
			args = r.Image.Cmd
		}
	}
	all := slices.Concat(entry, args)
	if len(all) == 0 {
		return nil, fmt.Errorf("no command specified: neither the container nor the image %s names one", r.Container.Image)
	}
	if r.Args != nil {
		return all, nil
	}
	env := map[string]string{}
	for _, kv := range r.Env {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	for i, a := range all {
		all[i] = Expand(a, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	}
	return all, nil
}

// environment is the image's, overridden by the container's.
func environment(r Request) []string {
	const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	set := map[string]int{}
	var env []string
	add := func(kv string) {
		k, _, _ := strings.Cut(kv, "=")
		if i, ok := set[k]; ok {
			env[i] = kv
			return
		}
		set[k] = len(env)
		env = append(env, kv)
	}
	add(path)
	if r.Hostname != "" {
		add("HOSTNAME=" + r.Hostname)
	}
	if r.Container.TTY {
		add("TERM=xterm")
	}
	for _, kv := range r.Image.Env {
		add(kv)
	}
	for _, kv := range r.Env {
		add(kv)
	}
	return env
}

func annotations(r Request) map[string]string {
	return map[string]string{
		"io.kubernetes.cri.sandbox-id":        string(r.Pod.UID), // groups a pod's containers into one shim
		"io.kubernetes.cri.sandbox-name":      r.Pod.Name,
		"io.kubernetes.cri.sandbox-namespace": r.Pod.Namespace,
		"io.kubernetes.cri.container-name":    r.Container.Name,
		"io.kubernetes.cri.container-type":    "container",
		"io.kubernetes.cri.image-name":        r.Container.Image,
	}
}

func namespaces(r Request) []specs.LinuxNamespace {
	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	add := func(t specs.LinuxNamespaceType, path string, host bool) {
		if !host {
			ns = append(ns, specs.LinuxNamespace{Type: t, Path: path})
		}
	}
	p := r.Pod.Spec
	add(specs.NetworkNamespace, r.Namespaces.Net, p.HostNetwork)
	add(specs.PIDNamespace, r.Namespaces.PID, p.HostPID)
	add(specs.IPCNamespace, r.Namespaces.IPC, p.HostIPC)
	add(specs.UTSNamespace, r.Namespaces.UTS, p.HostNetwork)
	return ns
}

// resources translates requests and limits as the kubelet does.
func resources(r corev1.ResourceRequirements, privileged bool) *specs.LinuxResources {
	shares := uint64(2)
	if cpu := r.Requests.Cpu(); !cpu.IsZero() {
		shares = max(2, uint64(cpu.MilliValue())*1024/1000)
	} else if cpu := r.Limits.Cpu(); !cpu.IsZero() {
		shares = max(2, uint64(cpu.MilliValue())*1024/1000)
	}
	out := &specs.LinuxResources{
		CPU:     &specs.LinuxCPU{Shares: &shares},
		Devices: []specs.LinuxDeviceCgroup{{Allow: privileged, Access: "rwm"}},
	}
	if cpu := r.Limits.Cpu(); !cpu.IsZero() {
		period := uint64(100_000)
		quota := max(1000, cpu.MilliValue()*int64(period)/1000)
		out.CPU.Period, out.CPU.Quota = &period, &quota
	}
	if mem := r.Limits.Memory(); !mem.IsZero() {
		limit := mem.Value()
		out.Memory = &specs.LinuxMemory{Limit: &limit}
	}
	return out
}

// oomScore makes the kernel prefer best-effort pods and spare guaranteed ones.
// https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#node-out-of-memory-behavior
func oomScore(r Request) *int {
	score := 1000
	switch qos := r.Pod.Status.QOSClass; {
	case qos == corev1.PodQOSGuaranteed:
		score = -997
	case qos == corev1.PodQOSBurstable && r.Host.MemoryBytes > 0:
		request := r.Container.Resources.Requests.Memory().Value()
		score = min(999, max(3, int(1000-1000*request/r.Host.MemoryBytes)))
	}
	if !r.Host.LowerOOM {
		score = max(score, 0)
	}
	return &score
}

var defaultCaps = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

func capabilities(c *corev1.Capabilities, privileged bool) ([]string, error) {
	if privileged {
		return cap.Current() // all that this process may pass on
	}
	if c == nil {
		return defaultCaps, nil
	}
	known := cap.Known()
	set := map[string]bool{}
	for _, name := range defaultCaps {
		set[name] = true
	}
	change := func(names []corev1.Capability, to bool) error {
		for _, n := range names {
			name := "CAP_" + strings.TrimPrefix(strings.ToUpper(string(n)), "CAP_")
			switch {
			case name == "CAP_ALL":
				for _, k := range known {
					set[k] = to
				}
			case !slices.Contains(known, name):
				return fmt.Errorf("securityContext.capabilities: %q is no capability that this kernel knows", n)
			}
		}
		for _, n := range names {
			if name := "CAP_" + strings.TrimPrefix(strings.ToUpper(string(n)), "CAP_"); name != "CAP_ALL" {
				set[name] = to
			}
		}
		return nil
	}
	// "drop ALL, add X" and "add ALL, drop X" both mean what they say.
	first, then, firstTo := c.Drop, c.Add, false
	if slices.ContainsFunc(c.Add, isAll) {
		first, then, firstTo = c.Add, c.Drop, true
	}
	if err := change(first, firstTo); err != nil {
		return nil, err
	}
	if err := change(then, !firstTo); err != nil {
		return nil, err
	}
	maps.DeleteFunc(set, func(_ string, in bool) bool { return !in })
	return slices.Sorted(maps.Keys(set)), nil
}

func isAll(c corev1.Capability) bool {
	return strings.TrimPrefix(strings.ToUpper(string(c)), "CAP_") == "ALL"
}

// capSets gives capabilities to root at once, and to others only as a bound.
func capSets(caps []string, root bool) *specs.LinuxCapabilities {
	out := &specs.LinuxCapabilities{Bounding: caps}
	if root {
		out.Effective, out.Permitted = caps, caps
	}
	return out
}

func systemMounts(privileged bool) []specs.Mount {
	access := "ro"
	if privileged {
		access = "rw"
	}
	quiet := []string{"nosuid", "noexec", "nodev"}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: quiet},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: quiet},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: append(slices.Clone(quiet), access)},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: append(slices.Clone(quiet), "relatime", access)},
	}
}

// harden hides from unprivileged containers what they must not see.
func harden(s *specs.Spec, r Request, sc *corev1.SecurityContext, privileged bool) error {
	if privileged {
		s.Linux.Devices = r.Host.Devices
		return nil
	}
	if sc.ProcMount == nil || *sc.ProcMount != corev1.UnmaskedProcMount {
		s.Linux.MaskedPaths = []string{
			"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
			"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
		}
		s.Linux.ReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	}
	profile := sc.SeccompProfile
	if profile == nil && r.Pod.Spec.SecurityContext != nil {
		profile = r.Pod.Spec.SecurityContext.SeccompProfile
	}
	switch {
	case profile == nil || profile.Type == corev1.SeccompProfileTypeUnconfined:
	case profile.Type == corev1.SeccompProfileTypeRuntimeDefault:
		s.Linux.Seccomp = seccomp.DefaultProfile(s)
	case r.Host.Seccomp != nil && profile.LocalhostProfile != nil:
		p, err := r.Host.Seccomp(*profile.LocalhostProfile)
		if err != nil {
			return fmt.Errorf("load seccomp profile %q: %w", *profile.LocalhostProfile, err)
		}
		s.Linux.Seccomp = p
	default:
		return fmt.Errorf("seccompProfile: type %q is not supported here", profile.Type)
	}
	return nil
}

func firstOf(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}
