package node

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// Machine is what a node's object says of its machine.
type Machine struct {
	CPUs           int64
	Memory, Disk   int64 // bytes
	Arch           string
	Kernel, OS     string
	ID, UUID, Boot string
}

// ReadMachine reads it from the kernel.
func ReadMachine() (Machine, error) {
	m := Machine{CPUs: int64(runtime.NumCPU()), Arch: runtime.GOARCH}
	var err error
	if m.Memory, err = totalMemory(); err != nil {
		return m, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs("/", &fs); err != nil {
		return m, fmt.Errorf("stat /: %w", err)
	}
	m.Disk = int64(fs.Blocks) * fs.Bsize
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, fmt.Errorf("uname: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(u.Release[:])
	m.OS = osRelease()
	m.ID = line("/etc/machine-id")
	m.UUID = line("/sys/class/dmi/id/product_uuid")
	if m.UUID == "" {
		m.UUID = m.ID
	}
	m.Boot = line("/proc/sys/kernel/random/boot_id")
	return m, nil
}

func totalMemory() (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if v, ok := strings.CutPrefix(s.Text(), "MemTotal:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(v, "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("/proc/meminfo has no MemTotal")
}

func line(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func osRelease() string {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "Linux"
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(l), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return "Linux"
}

// Info is the API's form.
func (m Machine) Info(version, containers string) corev1.NodeSystemInfo {
	return corev1.NodeSystemInfo{
		MachineID: m.ID, SystemUUID: m.UUID, BootID: m.Boot, KernelVersion: m.Kernel, OSImage: m.OS,
		ContainerRuntimeVersion: containers, KubeletVersion: version, KubeProxyVersion: "", OperatingSystem: "linux", Architecture: m.Arch,
	}
}

// Addresses finds the machine's own addresses: those that packets to the world
// leave from, else the first global ones.
func Addresses() ([]string, error) {
	var out []string
	for _, to := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		c, err := net.Dial("udp", to) // sends nothing
		if err != nil {
			continue
		}
		if a, ok := c.LocalAddr().(*net.UDPAddr); ok && !a.IP.IsLoopback() && !a.IP.IsLinkLocalUnicast() {
			out = append(out, a.IP.String())
		}
		c.Close()
	}
	if len(out) > 0 {
		return out, nil
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return []string{n.IP.String()}, nil
		}
	}
	return []string{"127.0.0.1"}, nil
}
