// Package arch holds the table of docs/architecture.md over the real imports: who
// may import whom, with the reason for each edge that is forbidden.
package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/xebec-mesh/xebec/"

// rule is what packages below a path may import of this module, beside
// themselves. The rule of the longest matching path counts.
type rule struct {
	path   string
	may    []string
	reason string
}

var rules = []rule{
	{"orchestrator", nil, "the API server serves any cluster: it knows nothing of the mesh, nodes or kernel"},
	{"dataplane", nil, "the kernel's tables are filled with plain values, so that they can be tested without an API"},
	{"galley", []string{"galley"}, "mesh configuration is checked the same way in any cluster, without a client"},
	{"galley/status", []string{"galley", "orchestrator/client", "orchestrator/reconcile"}, "writes conditions through the client, reads reports through an interface of its own"},
	{"citadel", []string{"citadel", "orchestrator/client", "orchestrator/reconcile"}, "identity depends on who exists, not on how traffic is routed"},
	{"mixer", []string{"mixer", "orchestrator/client", "orchestrator/reconcile"}, "telemetry depends on who exists, not on how traffic is routed"},
	{"pilot", []string{"pilot", "orchestrator/client", "orchestrator/reconcile", "galley/config", "galley/schema"}, "routing reads checked configuration; what checks it stays apart"},
	{"nodeagent", []string{"nodeagent", "orchestrator/client", "orchestrator/reconcile", "dataplane"}, "a node runs pods; xDS and identity reach it through interfaces that it declares"},
	{"samples", []string{"samples"}, "samples are users"},
	{"tests/script", nil, "offered to every package's tests: must not drag one in"},
	{"tests/build", nil, "offered to every package's tests: must not drag one in"},
	{"tests", []string{""}, ""},
	{"cmd", []string{""}, ""},
}

// onlyCmd are packages that nothing but the wiring may link.
var onlyCmd = map[string]string{
	"orchestrator/client/local": "whoever imports it links etcd and the API server",
}

// servers are packages that are whole servers for tests, and are linked by tests only.
var servers = map[string]bool{"orchestrator/apiserver/apitest": true}

type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func TestImports(t *testing.T) {
	for _, p := range list(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		r := ruleFor(from)
		if r == nil {
			t.Errorf("%s: no rule says what it may import: the top-level folders are fixed", from)
			continue
		}
		for _, i := range p.Imports {
			check(t, r, from, i, false)
		}
		for _, i := range append(p.TestImports, p.XTestImports...) {
			check(t, r, from, i, true)
		}
	}
}

func check(t *testing.T, r *rule, from, imported string, test bool) {
	t.Helper()
	to, local := strings.CutPrefix(imported, module)
	if !local {
		return
	}
	if !test && servers[to] && !servers[from] {
		t.Errorf("%s imports %s: only tests may", from, to)
	}
	if test && (below(to, "tests/script") || below(to, "tests/build") || below(to, "orchestrator/client")) {
		return
	}
	if why, ok := onlyCmd[to]; ok && !below(from, "cmd") && !below(from, "tests") && !below(from, to) && !servers[from] {
		t.Errorf("%s imports %s: %s", from, to, why)
	}
	if below(to, strings.SplitN(from, "/", 2)[0]) && r.may == nil {
		return // inside its own folder
	}
	for _, allowed := range r.may {
		if below(to, allowed) {
			return
		}
	}
	t.Errorf("%s imports %s: %s", from, to, r.reason)
}

func below(path, root string) bool {
	return root == "" || path == root || strings.HasPrefix(path, root+"/")
}

func ruleFor(path string) *rule {
	var best *rule
	for i := range rules {
		if below(path, rules[i].path) && (best == nil || len(rules[i].path) > len(best.path)) {
			best = &rules[i]
		}
	}
	return best
}

func list(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) == 0 {
		t.Fatal("go list found no package")
	}
	return pkgs
}
