package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func openLeases(t testing.TB, dir string, cidrs ...string) *leases {
	t.Helper()
	var ranges []netip.Prefix
	for _, c := range cidrs {
		ranges = append(ranges, netip.MustParsePrefix(c))
	}
	l := &leases{dir: dir, first: 2, last: capacity(ranges)}
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestNth(t *testing.T) {
	for _, c := range []struct {
		prefix string
		index  int
		want   string
	}{
		{"10.244.0.0/24", 1, "10.244.0.1"}, {"10.244.0.0/16", 256, "10.244.1.0"}, {"10.244.3.7/24", 2, "10.244.3.2"},
		{"fd00::/64", 1, "fd00::1"}, {"fd00::/64", 65536, "fd00::1:0"}, {"10.244.255.0/24", 254, "10.244.255.254"},
	} {
		if got := nth(netip.MustParsePrefix(c.prefix), c.index); got.String() != c.want {
			t.Errorf("address %d of %s: %s, want %s", c.index, c.prefix, got, c.want)
		}
	}
}

func TestCapacity(t *testing.T) {
	for cidrs, want := range map[string]int{
		"10.244.0.0/24": 254, "10.244.0.0/30": 2, "10.244.0.0/24 fd00::/64": 254, "fd00::/64": 65536, "fd00::/124": 15, "10.0.0.0/8": 65536,
	} {
		var ranges []netip.Prefix
		for _, c := range strings.Fields(cidrs) {
			ranges = append(ranges, netip.MustParsePrefix(c))
		}
		if got := capacity(ranges); got != want {
			t.Errorf("%s: the last index is %d, want %d", cidrs, got, want)
		}
	}
}

// TestLeases: each attachment has its own address, the same one when it asks
// again, and the addresses run out with a clear error and come back.
func TestLeases(t *testing.T) {
	l := openLeases(t, t.TempDir(), "10.244.0.0/29") // indices 2 to 6
	seen := map[int]string{}
	for i := range 5 {
		id := fmt.Sprint("pod/", i)
		le, isNew, err := l.acquire(id, "eth0", "/ns")
		if err != nil || !isNew || seen[le.Index] != "" {
			t.Fatalf("%s: %+v, new %v, taken by %q, %v", id, le, isNew, seen[le.Index], err)
		}
		seen[le.Index] = id
	}
	again, isNew, err := l.acquire("pod/3", "eth0", "/other")
	if err != nil || isNew || seen[again.Index] != "pod/3" || again.NetNS != "/other" {
		t.Errorf("again: %+v, new %v, %v", again, isNew, err)
	}
	if _, _, err := l.acquire("one too many", "eth0", "/ns"); err == nil || !strings.Contains(err.Error(), "all 5") {
		t.Errorf("one too many: %v", err)
	}
	if err := errors.Join(l.release("pod/0", "eth0"), l.release("pod/0", "eth0"), l.release("unknown", "eth0")); err != nil {
		t.Error(err)
	}
	le, _, err := l.acquire("next", "eth0", "/ns")
	if err != nil || seen[le.Index] != "pod/0" {
		t.Errorf("after a release: %+v, %v", le, err)
	}
}

// TestLeaseIsNotUsedAgainSoon: a freed address comes last.
func TestLeaseIsNotUsedAgainSoon(t *testing.T) {
	l := openLeases(t, t.TempDir(), "10.244.0.0/24")
	last := 0
	for i := range 600 {
		le, _, err := l.acquire(fmt.Sprint(i), "eth0", "/ns")
		if err != nil {
			t.Fatal(err)
		}
		if le.Index == last {
			t.Fatalf("index %d twice in a row", last)
		}
		last = le.Index
		if err := l.release(fmt.Sprint(i), "eth0"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLeasesAfterCrash: an address that was claimed without a lease is freed, and
// an unreadable lease can be released.
func TestLeasesAfterCrash(t *testing.T) {
	dir := t.TempDir()
	l := openLeases(t, dir, "10.244.0.0/30") // index 2 only
	if err := os.WriteFile(l.address(2), []byte("nobody"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.acquire("a", "eth0", "/ns"); err == nil {
		t.Fatal("the address is taken")
	}
	l = openLeases(t, dir, "10.244.0.0/30")
	if _, _, err := l.acquire("a", "eth0", "/ns"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.path(leaseName("a", "eth0")), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	all, err := l.list()
	if err != nil || len(all) != 1 || all[0].ID != "a" {
		t.Fatalf("leases %+v, %v", all, err)
	}
	if err := l.release("a", "eth0"); err != nil {
		t.Fatal(err)
	}
	l = openLeases(t, dir, "10.244.0.0/30")
	if _, _, err := l.acquire("b", "eth0", "/ns"); err != nil {
		t.Fatal(err)
	}
}

// TestLeasesShared: two processes never give the same address.
func TestLeasesShared(t *testing.T) {
	dir := t.TempDir()
	a, b := openLeases(t, dir, "10.244.0.0/24"), openLeases(t, dir, "10.244.0.0/24")
	var mu sync.Mutex
	seen := map[int]bool{}
	var wg sync.WaitGroup
	for i, l := range []*leases{a, b, a, b} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range 50 {
				le, _, err := l.acquire(fmt.Sprintf("%d-%d", i, j), "eth0", "/ns")
				mu.Lock()
				if err != nil || seen[le.Index] {
					t.Errorf("%d-%d: %+v, %v", i, j, le, err)
				}
				seen[le.Index] = true
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	if files, _ := filepath.Glob(filepath.Join(dir, "addresses", "*")); len(files) != 200 {
		t.Errorf("%d addresses are taken, want 200", len(files))
	}
}

func TestNames(t *testing.T) {
	a, b := makeNames("a", "eth0"), makeNames("a", "eth1")
	if a.host == b.host || a.peerMAC.String() == b.peerMAC.String() || len(a.host) != 14 {
		t.Errorf("%+v, %+v: want different names of 14 bytes", a, b)
	}
	for _, mac := range []string{a.hostMAC.String(), a.peerMAC.String()} {
		if !strings.HasPrefix(mac, "0a:") {
			t.Errorf("%s is not locally administered", mac)
		}
	}
}

func TestConfigMistakes(t *testing.T) {
	for what, c := range map[string]Config{
		"no range":        {},
		"two of a family": {PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("10.1.0.0/24")}},
		"too small":       {PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/31")}},
		"not valid":       {PodCIDRs: []netip.Prefix{{}}},
		"too many ranges": {PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, Cluster: make([]netip.Prefix, 9)},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func BenchmarkLease(b *testing.B) {
	l := openLeases(b, b.TempDir(), "10.244.0.0/24")
	for i := range 200 {
		if _, _, err := l.acquire(fmt.Sprint("other", i), "eth0", "/ns"); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("others=200", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := l.acquire("a", "eth0", "/ns"); err != nil {
				b.Fatal(err)
			}
			if err := l.release("a", "eth0"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
