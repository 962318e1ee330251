package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// list prints the visible files of a projected volume with their contents.
func list(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			data = []byte("directory")
		}
		b.WriteString(e.Name() + "=" + string(data) + "\n")
	}
	return b.String()
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "v")
	files := map[string]File{"a": {Data: []byte("1"), Mode: 0o644}, "d/b": {Data: []byte("2"), Mode: 0o400}}
	write := func() string {
		t.Helper()
		if err := Write(dir, files, nil); err != nil {
			t.Fatal(err)
		}
		version, err := os.Readlink(filepath.Join(dir, dataLink))
		if err != nil {
			t.Fatal(err)
		}
		return version
	}
	first := write()
	if got := list(t, dir); got != "a=1\nd=directory\n" {
		t.Errorf("first = %q", got)
	}
	if again := write(); again != first {
		t.Error("writing the same made a new version")
	}
	// A reader that has the old version open keeps it whole.
	old, err := os.Open(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	delete(files, "d/b")
	files["a"], files["c"] = File{Data: []byte("11"), Mode: 0o600}, File{Data: []byte("3"), Mode: 0o644}
	write()
	if got := list(t, dir); got != "a=11\nc=3\n" {
		t.Errorf("second = %q", got)
	}
	b := make([]byte, 2)
	if n, _ := old.Read(b); string(b[:n]) != "1" {
		t.Errorf("the open file changed to %q", b[:n])
	}
	if st, _ := os.Stat(filepath.Join(dir, "a")); st.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v", st.Mode())
	}
	if left, _ := filepath.Glob(dir + "/..2*"); len(left) != 1 {
		t.Errorf("versions left: %v", left)
	}
}

func TestPathsStayInside(t *testing.T) {
	c := &collector{files: map[string]File{}}
	for _, bad := range []string{"/etc/passwd", "../x", "a/../../x", "..", "..data/x", ""} {
		if err := c.add(bad, nil, nil); err == nil {
			t.Errorf("path %q was accepted", bad)
		}
	}
	if err := c.add("a/b.txt", nil, nil); err != nil {
		t.Error(err)
	}
}

// A link in a volume cannot lead a subPath out of it.
func TestSubPath(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	vol, outside := filepath.Join(dir, "vol"), filepath.Join(dir, "outside")
	for _, d := range []string{vol, outside, filepath.Join(vol, "in")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{filepath.Join(outside, "f"): "outside", filepath.Join(vol, "in/f"): "inside"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"good": "in", "bad": outside, "up": "../outside"} {
		if err := os.Symlink(target, filepath.Join(vol, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { UnmountBelow(dir) })
	pin := func(sub string) string {
		to := filepath.Join(dir, "pins", strings.ReplaceAll(sub, "/", "_"))
		at, err := pinSubPath(Mounted{Path: vol}, sub, to, false)
		if err != nil {
			return "error"
		}
		b, err := os.ReadFile(filepath.Join(at, "f"))
		if err != nil {
			return "no file"
		}
		return string(b)
	}
	for sub, want := range map[string]string{"in": "inside", "good": "inside", "new/dir": "no file", "../outside": "error", "/in": "error"} {
		if got := pin(sub); got != want {
			t.Errorf("subPath %s: %s, want %s", sub, got, want)
		}
	}
	for _, sub := range []string{"bad", "up"} {
		if got := pin(sub); got == "outside" {
			t.Errorf("subPath %s leads outside", sub)
		}
	}
}

func TestPropagation(t *testing.T) {
	if got := propagation(nil); got != "rprivate" {
		t.Error(got)
	}
	both := corev1.MountPropagationBidirectional
	if got := propagation(&both); got != "rshared" {
		t.Error(got)
	}
}
