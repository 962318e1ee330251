package authority

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xebec-mesh/xebec/citadel/ca"
	"github.com/xebec-mesh/xebec/tests/script"
)

// TestScripts: time passes, files change; slots out.
//
//	open          a process begins, or begins anew, with the same state
//	operator      the operator puts a new certificate authority into the directory
//	pass DURATION time passes (5y, 24h, 10m), and the authority looks again
//	rotate        somebody asks for a new root
//
// Each prints the slots, with their stage, and how many roots a workload trusts.
func TestScripts(t *testing.T) {
	script.Run(t, "testdata/*.txtar", func(t *testing.T) map[string]script.Command {
		w := &world{bench: bench{t, epoch, t.TempDir()}, operator: filepath.Join(t.TempDir(), "ca")}
		return map[string]script.Command{
			"open": func(*script.State, []string) (string, error) { return w.open() },
			"pass": func(_ *script.State, args []string) (string, error) { return w.pass(args[0]) },
			"operator": func(*script.State, []string) (string, error) {
				return "", w.put()
			},
			"rotate": func(*script.State, []string) (string, error) {
				if err := w.authority.Rotate(); err != nil {
					return "", err
				}
				return w.print(), nil
			},
		}
	})
}

// world is an authority and those around it.
type world struct {
	bench
	operator  string
	authority *Authority
}

func (w *world) open() (string, error) {
	cfg := Config{Dir: w.dir, Now: func() time.Time { return w.now }}
	if _, err := os.Stat(w.operator); err == nil {
		cfg.CADir = w.operator
	}
	var err error
	if w.authority, err = New(cfg); err != nil {
		return "", err
	}
	return w.print(), nil
}

func (w *world) pass(text string) (string, error) {
	years, rest, ok := strings.Cut(text, "y")
	if !ok {
		years, rest = "0", text
	}
	var n int
	if _, err := fmt.Sscan(years, &n); err != nil {
		return "", err
	}
	w.now = w.now.Add(time.Duration(n) * year)
	if rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil {
			return "", err
		}
		w.now = w.now.Add(d)
	}
	if _, err := w.authority.turn(); err != nil {
		return "", err
	}
	return w.print(), nil
}

func (w *world) put() error {
	root, err := ca.NewRoot("cluster.local", w.now, year)
	if err != nil {
		return err
	}
	key, err := ca.EncodeKey(root.Key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(w.operator, 0o700); err != nil {
		return err
	}
	pem := ca.EncodeCerts(root.Cert.Raw)
	for name, text := range map[string][]byte{"ca-cert.pem": pem, "root-cert.pem": pem, "ca-key.pem": key} {
		if err := os.WriteFile(filepath.Join(w.operator, name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) print() string {
	var b strings.Builder
	for _, s := range w.authority.state.Slots {
		fmt.Fprintf(&b, "%s %s\n", s.ID, s.Stage)
		if (s.Key == "") != (s.Stage == Retiring) {
			fmt.Fprintf(&b, "%s: key on disk: %t\n", s.ID, s.Key != "")
		}
	}
	fmt.Fprintf(&b, "%s signs, %d trusted\n", w.authority.active.Load().slot, roots(w.authority))
	return b.String()
}
