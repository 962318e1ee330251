package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

// TestNoFirewallRules holds that the sample runs without one rule of iptables or
// nftables, on the host and in a pod.
func TestNoFirewallRules(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Fatalf("nft is needed to look: %v", err)
	}
	pod := podOf(t, "pictures", "v1")
	inside := "/proc/" + itoa(firstProcess(t, pod)) + "/ns/net"
	for _, where := range []struct {
		name   string
		prefix []string
	}{{"host", nil}, {"pod", []string{"nsenter", "--net=" + inside}}} {
		if out := output(t, append(where.prefix, "nft", "list", "ruleset")); strings.TrimSpace(out) != "" {
			t.Errorf("nftables on the %s:\n%s", where.name, out)
		}
		for _, save := range []string{"iptables-legacy-save", "ip6tables-legacy-save", "iptables-save", "ip6tables-save"} {
			for line := range strings.Lines(output(t, append(where.prefix, save))) {
				if strings.HasPrefix(line, "-A") {
					t.Errorf("%s on the %s: %s", save, where.name, line)
				}
			}
		}
	}
}

func output(t *testing.T, command []string) string {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).Output()
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(command, " "), err)
	}
	return string(out)
}
