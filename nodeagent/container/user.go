package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
)

// UserFor decides as whom a container runs: its runAsUser, the pod's, the image's.
// Names, and the groups of numbers, are looked up in the container's own files;
// root's are not, so that the usual case mounts nothing.
func UserFor(ctx context.Context, pod *corev1.Pod, c *corev1.Container, imageUser string, root *Rootfs) (specs.User, error) {
	w := wish(pod, c, imageUser)
	if w.name != "" && w.needName && isTrue(runAsNonRoot(pod, c)) {
		return specs.User{}, configErrorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root (pod: \"%s_%s(%s)\", container: %s)", w.name, pod.Name, pod.Namespace, pod.UID, c.Name)
	}
	if !w.needName && w.uid == 0 && isTrue(runAsNonRoot(pod, c)) {
		what := "container has runAsNonRoot and image will run as root"
		if w.asked {
			what = "container's runAsUser breaks non-root policy"
		}
		return specs.User{}, configErrorf("%s (pod: \"%s_%s(%s)\", container: %s)", what, pod.Name, pod.Namespace, pod.UID, c.Name)
	}
	u := specs.User{UID: w.uid, GID: w.gid, AdditionalGids: supplemental(pod)}
	if w.needName || w.needGroup || (w.uid != 0 && !w.gidKnown) {
		err := mount.WithReadonlyTempMount(ctx, root.Mounts, func(dir string) error {
			r, err := os.OpenRoot(dir)
			if err != nil {
				return err
			}
			defer r.Close()
			return lookup(r.FS(), w, &u)
		})
		if err != nil {
			return specs.User{}, fmt.Errorf("find user %q of container %s: %w", w.name, c.Name, err)
		}
	}
	if !slices.Contains(u.AdditionalGids, u.GID) {
		u.AdditionalGids = append([]uint32{u.GID}, u.AdditionalGids...)
	}
	return u, nil
}

// wished is a user as it was written.
type wished struct {
	name, group         string
	uid, gid            uint32
	needName, needGroup bool
	gidKnown, asked     bool
}

func wish(pod *corev1.Pod, c *corev1.Container, imageUser string) wished {
	var w wished
	name, group, hasGroup := strings.Cut(imageUser, ":")
	uid, gid := runAs(pod, c)
	if uid != nil {
		w.uid, w.asked = uint32(*uid), true
	} else if name != "" {
		if n, err := strconv.ParseUint(name, 10, 32); err == nil {
			w.uid = uint32(n)
		} else {
			w.name, w.needName = name, true
		}
	}
	switch {
	case gid != nil:
		w.gid, w.gidKnown = uint32(*gid), true
	case uid == nil && hasGroup:
		w.gidKnown = true
		if n, err := strconv.ParseUint(group, 10, 32); err == nil {
			w.gid = uint32(n)
		} else {
			w.group, w.needGroup = group, true
		}
	}
	return w
}

func runAs(pod *corev1.Pod, c *corev1.Container) (uid, gid *int64) {
	if p := pod.Spec.SecurityContext; p != nil {
		uid, gid = p.RunAsUser, p.RunAsGroup
	}
	if s := c.SecurityContext; s != nil {
		if s.RunAsUser != nil {
			uid = s.RunAsUser
		}
		if s.RunAsGroup != nil {
			gid = s.RunAsGroup
		}
	}
	return uid, gid
}

func runAsNonRoot(pod *corev1.Pod, c *corev1.Container) *bool {
	if s := c.SecurityContext; s != nil && s.RunAsNonRoot != nil {
		return s.RunAsNonRoot
	}
	if p := pod.Spec.SecurityContext; p != nil {
		return p.RunAsNonRoot
	}
	return nil
}

func supplemental(pod *corev1.Pod) []uint32 {
	p := pod.Spec.SecurityContext
	if p == nil {
		return nil
	}
	var out []uint32
	for _, g := range p.SupplementalGroups {
		out = append(out, uint32(g))
	}
	if p.FSGroup != nil {
		out = append(out, uint32(*p.FSGroup))
	}
	return out
}

// lookup completes a user from /etc/passwd and /etc/group.
func lookup(root fs.FS, w wished, u *specs.User) error {
	found := false
	err := eachLine(root, "etc/passwd", func(f []string) bool {
		if len(f) < 4 || (w.needName && f[0] != w.name) || (!w.needName && f[2] != strconv.FormatUint(uint64(w.uid), 10)) {
			return true
		}
		uid, err1 := strconv.ParseUint(f[2], 10, 32)
		gid, err2 := strconv.ParseUint(f[3], 10, 32)
		if err1 != nil || err2 != nil {
			return true
		}
		found, u.UID, u.Username = true, uint32(uid), f[0]
		if !w.gidKnown {
			u.GID = uint32(gid)
		}
		return false
	})
	if err != nil {
		return err
	}
	if w.needName && !found {
		return fmt.Errorf("no user %q in /etc/passwd", w.name)
	}
	name := u.Username
	u.Username = "" // has no meaning to Linux runtimes
	foundGroup := false
	err = eachLine(root, "etc/group", func(f []string) bool {
		if len(f) < 3 {
			return true
		}
		gid, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil {
			return true
		}
		if w.needGroup && f[0] == w.group {
			u.GID, foundGroup = uint32(gid), true
		}
		if len(f) > 3 && name != "" && slices.Contains(strings.Split(f[3], ","), name) {
			u.AdditionalGids = append(u.AdditionalGids, uint32(gid))
		}
		return true
	})
	if err == nil && w.needGroup && !foundGroup {
		err = fmt.Errorf("no group %q in /etc/group", w.group)
	}
	return err
}

func eachLine(root fs.FS, name string, visit func(fields []string) bool) error {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" && line[0] != '#' && !visit(strings.Split(line, ":")) {
			return nil
		}
	}
	return s.Err()
}
