package container

import (
	"os"
	"path/filepath"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchies are the mounted cgroup hierarchies: one of v2, or those of v1 with
// perhaps one of v2 beside them.
func hierarchies() []string {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		return []string{cgroupRoot}
	}
	found, _ := filepath.Glob(cgroupRoot + "/*/cgroup.procs")
	for i := range found {
		found[i] = filepath.Dir(found[i])
	}
	return found
}

// OOMKilled says whether the kernel killed a process of a cgroup for want of memory.
func OOMKilled(path string) bool {
	for _, file := range []string{
		filepath.Join(cgroupRoot, path, "memory.events"),
		filepath.Join(cgroupRoot, "unified", path, "memory.events"),
		filepath.Join(cgroupRoot, "memory", path, "memory.oom_control"),
	} {
		if number(field(file, "oom_kill")) > 0 {
			return true
		}
	}
	return false
}

// RemoveCgroup removes a cgroup and those below it, which must be empty, from all
// hierarchies. What cannot be removed stays for the next time.
func RemoveCgroup(path string) {
	for _, h := range hierarchies() {
		var dirs []string
		_ = filepath.WalkDir(filepath.Join(h, path), func(p string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, p)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			_ = os.Remove(dirs[i])
		}
	}
}
