package bpf_test

import (
	"testing"

	"github.com/cilium/ebpf"

	"github.com/xebec-mesh/xebec/dataplane/bpf"
	"github.com/xebec-mesh/xebec/dataplane/kernel/kerneltest"
)

// TestVerifierBudget holds how much the verifier has to look at: it is most of
// what loading costs, at every start.
func TestVerifierBudget(t *testing.T) {
	kerneltest.Root(t)
	for name, c := range map[string]struct {
		load   func() (*ebpf.CollectionSpec, error)
		budget uint32 // instructions that it goes through, all programs together
	}{
		"service":    {bpf.LoadService, 6000},
		"intercept":  {bpf.LoadIntercept, 4000},
		"lookup":     {bpf.LoadLookup, 1000},
		"masquerade": {bpf.LoadMasquerade, 20000},
		"sockets":    {bpf.LoadSockets, 500}, // needs Linux 6.5
	} {
		spec, err := c.load()
		if err != nil {
			t.Fatal(err)
		}
		all, err := ebpf.NewCollection(spec)
		if err != nil {
			t.Fatalf("%s: %+v", name, err)
		}
		defer all.Close()
		var total uint32
		for _, p := range all.Programs {
			info, err := p.Info()
			if err != nil {
				t.Fatal(err)
			}
			n, ok := info.VerifiedInstructions()
			if !ok {
				t.Skip("the kernel does not say (before Linux 5.16)")
			}
			t.Logf("%s: %s: %d", name, info.Name, n)
			total += n
		}
		if total > c.budget {
			t.Errorf("%s: the verifier goes through %d instructions, the budget is %d", name, total, c.budget)
		}
	}
}
