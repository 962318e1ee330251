package authority

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

type bench struct {
	*testing.T
	now time.Time
	dir string
}

func (b *bench) open(cadir string) *Authority {
	b.Helper()
	a, err := New(Config{Dir: b.dir, CADir: cadir, Now: func() time.Time { return b.now }})
	if err != nil {
		b.Fatal(err)
	}
	return a
}

// roots counts what a workload trusts now.
func roots(a *Authority) int {
	b, _ := a.Bundle().Get()
	return len(b.Roots)
}

func TestStateIsPrivate(t *testing.T) {
	b := &bench{t, epoch, filepath.Join(t.TempDir(), "citadel")}
	b.open("")
	for path, want := range map[string]os.FileMode{b.dir: 0o700, filepath.Join(b.dir, "authority.json"): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), want)
		}
	}
}

func TestDamagedStateSaysWhatToDoAndNoKey(t *testing.T) {
	b := &bench{t, epoch, t.TempDir()}
	b.open("")
	path := filepath.Join(b.dir, "authority.json")
	text, _ := os.ReadFile(path)
	if err := os.WriteFile(path, text[:len(text)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(Config{Dir: b.dir})
	if err == nil || !strings.Contains(err.Error(), "restore it") || strings.Contains(err.Error(), "PRIVATE") {
		t.Fatalf("got %v", err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Dir: b.dir, TrustDomain: "other.org"}); err == nil || !strings.Contains(err.Error(), `"cluster.local"`) {
		t.Fatalf("another trust domain: %v", err)
	}
}

// TestPlanProperties walks through twenty years in odd steps: at any time exactly
// one slot signs, and its root has been trusted for Propagate before (but the first).
func TestPlanProperties(t *testing.T) {
	policy := Policy{Propagate: 10 * time.Minute, LeafTTL: 24 * time.Hour, SelfMade: true}
	var slots []view
	made := 0
	now := epoch
	for i := range 5000 {
		p := compute(slots, policy, i%700 == 3, now)
		if p.String() != compute(slots, policy, i%700 == 3, now).String() {
			t.Fatal("same input, another plan")
		}
		if p.Prepare {
			made++
			slots = append(slots, view{ID: fmt.Sprint(made), Stage: Prepared, Since: now, NotBefore: now, NotAfter: now.Add(10 * year)})
		}
		var next []view
		for _, s := range slots {
			switch {
			case strings.Contains(p.String(), "remove "+s.ID+"\n"):
				continue
			case s.ID == p.Activate:
				if made > 1 && now.Sub(s.Since) < policy.Propagate {
					t.Fatalf("slot %s signs %s after it is trusted", s.ID, now.Sub(s.Since))
				}
				s.Stage, s.Since = Active, now
			case p.Activate != "" && s.Stage == Active:
				s.Stage, s.Since = Retiring, now
			}
			next = append(next, s)
		}
		slots = next
		active := 0
		for _, s := range slots {
			if s.Stage == Active {
				active++
			}
		}
		if i > 1 && active != 1 {
			t.Fatalf("%d slots are active at %s", active, now)
		}
		if p.Empty() {
			now = now.Add(35 * time.Hour)
		} else {
			now = now.Add(7 * time.Minute)
		}
	}
	if made < 3 {
		t.Fatalf("%d roots in twenty years", made)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"version":1,"trustDomain":"cluster.local","slots":[{"id":"x","stage":"active"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "authority.json"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := New(Config{Dir: dir})
		if err == nil && a.Issuer() == nil {
			t.Fatal("no issuer and no error")
		}
	})
}
