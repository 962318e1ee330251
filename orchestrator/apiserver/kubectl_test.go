package apiserver_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xebec-mesh/xebec/orchestrator/apiserver/apitest"
	"github.com/xebec-mesh/xebec/tests/script"
)

// TestKubectl runs the kubectl that is on the machine, if there is one, as an
// administrator; @FILE is a file of the archive.
func TestKubectl(t *testing.T) {
	program, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("no kubectl on this machine")
	}
	script.Run(t, "testdata/kubectl/*.txtar", func(t *testing.T) map[string]script.Command {
		s := apitest.Start(t, nil)
		home := t.TempDir()
		return map[string]script.Command{"kubectl": func(st *script.State, args []string) (string, error) {
			for i, a := range args {
				name, ok := strings.CutPrefix(a, "@")
				if !ok {
					continue
				}
				data, err := st.File(name)
				if err != nil {
					return "", err
				}
				args[i] = filepath.Join(home, name)
				if err := os.WriteFile(args[i], data, 0o600); err != nil {
					return "", err
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, program, args...)
			cmd.Env = []string{"HOME=" + home, "KUBECONFIG=" + s.Kubeconfig, "PATH=" + os.Getenv("PATH")}
			out, err := cmd.CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%s%w", out, err)
			}
			return string(out), err
		}}
	})
}
