package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// Mounts are the mounts of one container: its volumes where it wants them.
// expand resolves $(NAME) in subPathExpr.
func (m *Manager) Mounts(pod *corev1.Pod, c *corev1.Container, at map[string]Mounted, expand func(string) string) ([]specs.Mount, error) {
	var out []specs.Mount
	for i, vm := range c.VolumeMounts {
		vol, ok := at[vm.Name]
		if !ok {
			return nil, fmt.Errorf("volumeMounts[%d]: the pod has no volume %q", i, vm.Name)
		}
		src := vol.Path
		sub := vm.SubPath
		if vm.SubPathExpr != "" {
			sub = expand(vm.SubPathExpr)
		}
		if sub != "" {
			var err error
			to := filepath.Join(m.cfg.StateDir, string(pod.UID), "subpaths", c.Name, strconv.Itoa(i))
			if src, err = pinSubPath(vol, sub, to, vm.ReadOnly); err != nil {
				return nil, fmt.Errorf("prepare subPath for volumeMount %q of container %q: %w", vm.Name, c.Name, err)
			}
		}
		opts := []string{"rbind", propagation(vm.MountPropagation)}
		if vm.ReadOnly || vol.ReadOnly {
			opts = append(opts, "ro")
		} else {
			opts = append(opts, "rw")
		}
		out = append(out, specs.Mount{Destination: destination(vm.MountPath), Type: "bind", Source: src, Options: opts})
	}
	return out, nil
}

func destination(p string) string {
	if !filepath.IsAbs(p) {
		return "/" + p
	}
	return p
}

func propagation(p *corev1.MountPropagationMode) string {
	switch {
	case p == nil:
		return "rprivate"
	case *p == corev1.MountPropagationBidirectional:
		return "rshared"
	case *p == corev1.MountPropagationHostToContainer:
		return "rslave"
	}
	return "rprivate"
}

// pinSubPath binds a path inside a volume to a place that the container cannot
// change. The kernel resolves it and refuses to leave the volume by a link, so that
// whoever writes to the volume gains nothing by racing us.
func pinSubPath(vol Mounted, sub, to string, readOnly bool) (string, error) {
	if filepath.IsAbs(sub) || strings.Contains("/"+sub+"/", "/../") {
		return "", fmt.Errorf("subPath %q: want a relative path with no .. in it", sub)
	}
	root, err := unix.Open(vol.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open volume: %w", err)
	}
	defer unix.Close(root)
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(root, sub, how)
	if errors.Is(err, unix.ENOENT) && !vol.ReadOnly {
		if err := makeInside(vol.Path, sub); err != nil {
			return "", err
		}
		fd, err = unix.Openat2(root, sub, how)
	}
	if err != nil {
		return "", fmt.Errorf("open subPath %q: %w", sub, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if err := mountpoint(to, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return "", err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("bind subPath %q: %w", sub, err)
	}
	return to, nil
}

// makeInside makes a directory in a volume without leaving it by a link.
func makeInside(volume, sub string) error {
	r, err := os.OpenRoot(volume)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.MkdirAll(sub, 0o750); err != nil {
		return fmt.Errorf("make subPath %q: %w", sub, err)
	}
	return r.Chmod(sub, 0o777)
}

// mountpoint makes an empty file or directory to bind something over; what an
// earlier attempt of the container had there goes.
func mountpoint(to string, dir bool) error {
	if err := UnmountBelow(to); err != nil {
		return err
	}
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if dir {
		return os.MkdirAll(to, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, nil, 0o644)
}
