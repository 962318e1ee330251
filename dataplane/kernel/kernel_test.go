package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

func TestCgroup2Mount(t *testing.T) {
	for line, want := range map[string]string{
		"35 25 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate": "/sys/fs/cgroup",
		"43 32 0:27 / /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw": "/sys/fs/cgroup/unified",
		"35 25 0:30 /docker/abc /sys/fs/cgroup ro,nosuid shared:9 - cgroup2 cgroup rw":   "",
		"36 32 0:28 / /sys/fs/cgroup/cpu rw,relatime shared:11 - cgroup cgroup rw,cpu":   "",
		"20 1 8:1 / / rw,relatime - ext4 /dev/sda rw":                                    "",
		"": "", " - ": "", "1 2 3 - cgroup2": "", "a b c / e - cgroup2 x": "e",
	} {
		got, ok := cgroup2Mount(line)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v; want %q", line, got, ok, want)
		}
	}
}

func FuzzCgroup2Mount(f *testing.F) {
	f.Add("35 25 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate")
	f.Fuzz(func(t *testing.T, line string) {
		if path, ok := cgroup2Mount(line); ok && path == "" {
			t.Errorf("%q: an empty mount point", line)
		}
	})
}

func root(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func TestProbe(t *testing.T) {
	root(t)
	if err := Probe(); err != nil {
		t.Error(err)
	}
	saved := needed
	defer func() { needed = saved }()
	needed = append(needed, feature{"time travel", "9.9", func() error { return ebpf.ErrNotSupported }})
	if err := Probe(); err == nil || !strings.Contains(err.Error(), "lacks time travel (since Linux 9.9); Xebec needs Linux") {
		t.Errorf("a kernel that lacks something: %v", err)
	}
}

// pins is a pin directory of this test.
func pins(t *testing.T) string {
	t.Helper()
	root(t)
	if err := MountBPFFS(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(BPFFS, "xebectest-"+strings.ReplaceAll(t.Name(), "/", "-"))
	if err := Unpin(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Unpin(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func spec(valueSize uint32) *ebpf.CollectionSpec {
	return &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{
			"table": {Name: "table", Type: ebpf.Hash, KeySize: 4, ValueSize: valueSize, MaxEntries: 8},
			"other": {Name: "other", Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 8},
		},
		Programs: map[string]*ebpf.ProgramSpec{
			"connect": {
				Name: "connect", Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "GPL",
				Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
			},
		},
	}
}

type objects struct {
	Table   *ebpf.Map     `ebpf:"table"`
	Other   *ebpf.Map     `ebpf:"other"`
	Connect *ebpf.Program `ebpf:"connect"`
}

// TestLoadAdopts: contents survive, and a map of another shape begins anew.
func TestLoadAdopts(t *testing.T) {
	dir := pins(t)
	var o objects
	load := func(valueSize uint32) bool {
		t.Helper()
		adopted, err := Load(spec(valueSize), &o, dir)
		if err != nil {
			t.Fatal(err)
		}
		return adopted
	}
	if load(4) {
		t.Error("adopted what was not there")
	}
	if err := o.Table.Put(uint32(1), uint32(2)); err != nil {
		t.Fatal(err)
	}
	o.Table.Close()
	o.Connect.Close()
	if !load(4) {
		t.Error("not adopted")
	}
	var v uint32
	if err := o.Table.Lookup(uint32(1), &v); err != nil || v != 2 {
		t.Errorf("the adopted map has %d (%v), want 2", v, err)
	}
	if err := o.Other.Put(uint32(3), uint32(4)); err != nil {
		t.Fatal(err)
	}
	if load(8) {
		t.Error("adopted a map of another shape")
	}
	if err := o.Other.Lookup(uint32(3), &v); err != nil || v != 4 {
		t.Errorf("the map beside it has %d (%v), want 4", v, err)
	}
}

// TestLinks: attaching again updates, another cgroup replaces, a removed cgroup
// leaves a dead link.
func TestLinks(t *testing.T) {
	dir := pins(t)
	var o objects
	if _, err := Load(spec(4), &o, dir); err != nil {
		t.Fatal(err)
	}
	cgroupRoot, err := CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	first, second := filepath.Join(cgroupRoot, "xebectest-links-1"), filepath.Join(cgroupRoot, "xebectest-links-2")
	for _, c := range []string{first, second} {
		_ = os.Remove(c)
		if err := os.Mkdir(c, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(c)
	}
	pin := filepath.Join(dir, "link")
	for _, c := range []string{first, first, second} {
		if err := AttachCgroup(pin, c, ebpf.AttachCGroupInet4Connect, o.Connect); err != nil {
			t.Fatalf("%s: %v", c, err)
		}
		if !LinkAlive(pin) {
			t.Errorf("%s: the link is dead", c)
		}
	}
	if err := UpdateLink(pin, o.Connect); err != nil {
		t.Error(err)
	}
	if err := AttachCgroup(pin, "/none", ebpf.AttachCGroupInet4Connect, o.Connect); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a cgroup that does not exist: %v", err)
	}
	if LinkAlive(filepath.Join(dir, "none")) || LinkAlive(filepath.Join(dir, "table")) {
		t.Error("what is no link is alive")
	}
	if _, err := Cgroup("/xebectest-links-1"); err != nil {
		t.Error(err)
	}
	if _, err := Cgroup("/xebectest-none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a cgroup that does not exist: %v", err)
	}
}
