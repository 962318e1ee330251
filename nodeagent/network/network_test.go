package network

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xebec-mesh/xebec/dataplane/network"
)

// A plugin of somebody else's, as a program in the standard folder.
const script = `#!/bin/sh
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS" >> "$LOG"
cat >/dev/null
if [ "$CNI_COMMAND" = ADD ]; then
	echo '{"cniVersion":"1.0.0","ips":[{"address":"192.0.2.7/24"},{"address":"2001:db8::7/64"}]}'
fi
`

func TestForeignPlugin(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	t.Setenv("LOG", log)
	for name, text := range map[string]string{
		"bin/theirs":              script,
		"net.d/20-second.conf":    `{"cniVersion":"1.0.0","name":"second","type":"absent"}`,
		"net.d/10-first.conflist": `{"cniVersion":"1.0.0","name":"first","plugins":[{"type":"theirs"}]}`,
	} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n, err := NewNetwork(Config{
		ConfDir: filepath.Join(dir, "net.d"), BinDirs: []string{filepath.Join(dir, "bin")}, CacheDir: filepath.Join(dir, "cache"),
		Plugin: func(context.Context, []byte, []string) ([]byte, error) {
			t.Error("our own plugin was called")
			return nil, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if n.Own() {
		t.Error("the configuration in the folder was not seen")
	}
	pod := Pod{UID: "u1", Name: "web-0", Namespace: "default", NetNS: "/run/ns"}
	got, err := n.Add(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].String() != "192.0.2.7" || got[1].String() != "2001:db8::7" {
		t.Errorf("addresses = %v", got)
	}
	if err := n.Del(t.Context(), pod); err != nil {
		t.Error(err)
	}
	b, _ := os.ReadFile(log)
	for _, want := range []string{"ADD u1 /run/ns eth0 ", "K8S_POD_NAME=web-0", "DEL u1 /run/ns eth0 "} {
		if !strings.Contains(string(b), want) {
			t.Errorf("the plugin was called as\n%s\nwant %q", b, want)
		}
	}
}

type attacher struct{ added, deleted []network.Attachment }

func (a *attacher) Add(_ context.Context, at network.Attachment) (*network.Interface, error) {
	a.added = append(a.added, at)
	return &network.Interface{
		Addrs:    []netip.Prefix{netip.MustParsePrefix("10.244.0.5/32"), netip.MustParsePrefix("fd00::5/128")},
		Gateways: []netip.Addr{netip.MustParseAddr("10.244.0.1"), netip.MustParseAddr("fd00::1")}, MAC: "02:00:00:00:00:01", HostName: "veth1",
	}, nil
}

func (a *attacher) Del(_ context.Context, at network.Attachment) error {
	a.deleted = append(a.deleted, at)
	return nil
}

func (a *attacher) Check(context.Context, network.Attachment) error { return nil }

func TestOwnNetwork(t *testing.T) {
	a := &attacher{}
	n, err := NewNetwork(Config{ConfDir: t.TempDir(), CacheDir: t.TempDir(), Plugin: Own(a)})
	if err != nil {
		t.Fatal(err)
	}
	if !n.Own() {
		t.Error("an empty folder has a configuration")
	}
	pod := Pod{UID: "u1", Name: "web-0", Namespace: "default", NetNS: "/run/ns"}
	if _, err := n.Add(t.Context(), pod); err == nil || !strings.Contains(err.Error(), "spec.podCIDRs") {
		t.Errorf("without address ranges: %v", err)
	}
	pod.PodCIDRs = []string{"10.244.0.0/24", "fd00::/64"}
	got, err := n.Add(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].String() != "10.244.0.5" {
		t.Errorf("addresses = %v", got)
	}
	if err := n.Del(t.Context(), pod); err != nil {
		t.Error(err)
	}
	want := network.Attachment{ID: "u1", NetNS: "/run/ns", IfName: "eth0"}
	if len(a.added) != 1 || a.added[0] != want || len(a.deleted) != 1 || a.deleted[0] != want {
		t.Errorf("added %v, deleted %v, want %v once each", a.added, a.deleted, want)
	}
}

// Namespaces stay without a process, keep their settings, and go.
func TestSpaces(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	s := SpacesAt(t.TempDir(), "u1")
	if err := s.Create("web-0", map[string]string{"net.core.somaxconn": "77", "kernel.msgmax": "9000"}); err != nil {
		t.Fatal(err)
	}
	defer s.Remove()
	if !s.Exist() {
		t.Error("the namespaces are not there")
	}
	got, err := Within(s.Net(), func() (string, error) {
		b, err := os.ReadFile("/proc/sys/net/core/somaxconn")
		return string(b), err
	})
	if err != nil || got != "77\n" {
		t.Errorf("somaxconn = %q, %v", got, err)
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil || unix.ByteSliceToString(u.Nodename[:]) == "web-0" {
		t.Errorf("the host's own name changed: %v", err)
	}
	if err := s.Remove(); err != nil {
		t.Error(err)
	}
	if err := s.Remove(); err != nil {
		t.Error("removing twice:", err)
	}
	if s.Exist() {
		t.Error("the namespaces are still there")
	}
	if err := s.Create("x", map[string]string{"net.no.such": "1"}); err == nil || s.Exist() {
		t.Errorf("an unknown sysctl: %v", err)
	}
}
