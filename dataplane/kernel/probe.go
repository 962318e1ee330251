package kernel

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// Minimum is the oldest kernel that has every feature in use: bpf_set_retval,
// which tells an application "connection refused", came with it.
const Minimum = "5.18"

// A feature is one thing the kernel must have.
type feature struct {
	name  string
	since string
	probe func() error
}

func helper(name, since string, t ebpf.ProgramType, f asm.BuiltinFunc) feature {
	return feature{name, since, func() error { return features.HaveProgramHelper(t, f) }}
}

var needed = []feature{
	{"BPF programs on cgroup sockets", "4.17", func() error { return features.HaveProgramType(ebpf.CGroupSockAddr) }},
	{"BPF socket lookup", "5.9", func() error { return features.HaveProgramType(ebpf.SkLookup) }},
	{"BPF socket storage", "5.2", func() error { return features.HaveMapType(ebpf.SkStorage) }},
	{"BPF socket hashes", "4.18", func() error { return features.HaveMapType(ebpf.SockHash) }},
	helper("network namespace cookies at connect", "5.7", ebpf.CGroupSockAddr, asm.FnGetNetnsCookie),
	helper("network namespace cookies in socket callbacks", "5.15", ebpf.SockOps, asm.FnGetNetnsCookie),
	helper("network namespace cookies in socket options", "5.15", ebpf.CGroupSockopt, asm.FnGetNetnsCookie),
}

// Probe says everything that this kernel lacks, with the version that has it.
func Probe() error {
	var missing []string
	for _, f := range needed {
		err := f.probe()
		if errors.Is(err, ebpf.ErrNotSupported) {
			missing = append(missing, fmt.Sprintf("%s (since Linux %s)", f.name, f.since))
		} else if err != nil {
			return fmt.Errorf("probe the kernel for %s: %w", f.name, explain(err))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("this kernel (%s) lacks %s; Xebec needs Linux %s or later with BPF enabled",
			Release(), strings.Join(missing, ", "), Minimum)
	}
	return nil
}

// Release is the running kernel's version, such as 6.1.0-28-amd64.
func Release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// explain adds what a person can do to errors that the kernel states too briefly.
func explain(err error) error {
	var ve *ebpf.VerifierError
	switch {
	case errors.As(err, &ve):
		return fmt.Errorf("%+v", ve)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w (BPF needs root or CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN)", err)
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%w (this is Linux %s; needed is %s or later)", err, Release(), Minimum)
	}
	return err
}
