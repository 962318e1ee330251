// Command generate writes the OpenAPI definitions of Kubernetes' own types.
//
//	in:   the doc comments and tags of k8s.io/api, read by openapi-gen
//	out:  ../definitions_v2_gen.gz and ../definitions_v3_gen.gz: each model's schema on
//	      a line behind its name, with "#/definitions/" or "#/components/schemas/" references
//
// It runs openapi-gen into a folder that it removes again, and then the program
// in ./assemble over what came out. Run it by `go generate` after an upgrade of
// k8s.io/api; a kind added to orchestrator/resource needs no run.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// inputs are the packages whose types are served, and those that they use.
var inputs = []string{
	"k8s.io/api/admissionregistration/v1",
	"k8s.io/api/apidiscovery/v2",
	"k8s.io/api/apps/v1",
	"k8s.io/api/authentication/v1",
	"k8s.io/api/authorization/v1",
	"k8s.io/api/autoscaling/v1",
	"k8s.io/api/autoscaling/v2",
	"k8s.io/api/batch/v1",
	"k8s.io/api/certificates/v1",
	"k8s.io/api/coordination/v1",
	"k8s.io/api/core/v1",
	"k8s.io/api/discovery/v1",
	"k8s.io/api/events/v1",
	"k8s.io/api/flowcontrol/v1",
	"k8s.io/api/networking/v1",
	"k8s.io/api/node/v1",
	"k8s.io/api/policy/v1",
	"k8s.io/api/rbac/v1",
	"k8s.io/api/resource/v1",
	"k8s.io/api/scheduling/v1",
	"k8s.io/api/storage/v1",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1",
	"k8s.io/apimachinery/pkg/api/resource",
	"k8s.io/apimachinery/pkg/apis/meta/v1",
	"k8s.io/apimachinery/pkg/runtime",
	"k8s.io/apimachinery/pkg/util/intstr",
	"k8s.io/apimachinery/pkg/version",
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	scratch := filepath.Join("generate", "assemble", "definitions")
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return fmt.Errorf("create scratch folder: %w", err)
	}
	defer os.RemoveAll(scratch)
	args := append([]string{
		"tool", "openapi-gen", "--go-header-file", os.DevNull, "--report-filename", os.DevNull,
		"--output-dir", scratch, "--output-pkg", "github.com/xebec-mesh/xebec/orchestrator/openapi/generate/assemble/definitions",
		"--output-file", "definitions_gen.go",
	}, inputs...)
	if err := command("go", args...); err != nil {
		return fmt.Errorf("run openapi-gen: %w", err)
	}
	if err := command("go", "run", "-tags", "assemble", "./generate/assemble", "definitions_v2_gen.gz", "definitions_v3_gen.gz"); err != nil {
		return fmt.Errorf("assemble definitions: %w", err)
	}
	return nil
}

func command(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
