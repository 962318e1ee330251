package container

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what the processes of a cgroup have used.
type Usage struct {
	CPU        time.Duration // since it exists
	Memory     uint64        // bytes, with caches
	WorkingSet uint64        // bytes that cannot be reclaimed easily
}

// ReadUsage reads a cgroup's usage, of v2 or of v1. What cannot be read is zero.
func ReadUsage(path string) Usage {
	var u Usage
	if dir := filepath.Join(cgroupRoot, path); exists(filepath.Join(dir, "memory.current")) {
		u.CPU = time.Duration(number(field(filepath.Join(dir, "cpu.stat"), "usage_usec"))) * time.Microsecond
		u.Memory = number(text(filepath.Join(dir, "memory.current")))
		u.WorkingSet = less(u.Memory, number(field(filepath.Join(dir, "memory.stat"), "inactive_file")))
		return u
	}
	memory := filepath.Join(cgroupRoot, "memory", path)
	u.CPU = time.Duration(number(text(filepath.Join(cgroupRoot, "cpuacct", path, "cpuacct.usage"))))
	u.Memory = number(text(filepath.Join(memory, "memory.usage_in_bytes")))
	u.WorkingSet = less(u.Memory, number(field(filepath.Join(memory, "memory.stat"), "total_inactive_file")))
	return u
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func text(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// field reads a field of a flat file; "" where there is none.
func field(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if v, ok := strings.CutPrefix(s.Text(), name+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func number(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func less(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}
