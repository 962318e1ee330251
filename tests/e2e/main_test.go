// Package e2e tries the whole of Xebec as a person would: the binary is started,
// the sample deployed, and the world is looked at from outside, over HTTP, with
// kubectl and in the kernel.
//
// It needs root and the binaries that `make build` makes, and a machine on which
// no other Xebec runs. One cluster serves all tests; each leaves the sample as it
// found it.
package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

var (
	bin   = flag.String("bin", "../../bin", "folder of the built binaries")
	state = flag.String("state", "/var/lib/xebec-e2e", "folder for the cluster's state; it is removed first")
	keep  = flag.Bool("keep", false, "leave the cluster running when the tests end")
)

// cluster is the one that all tests share.
var cluster struct {
	api      kubernetes.Interface
	frontend string // the URL of the sample's page
}

const deploy = "../../samples/pictures/deploy/"

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if !*keep {
		defer func() {
			if out, err := xebec("reset", "--yes"); err != nil {
				fmt.Fprintf(os.Stderr, "reset: %v\n%s", err, out)
			}
		}()
	}
	if err := start(); err != nil {
		fmt.Fprintln(os.Stderr, "start the cluster:", err)
		dumpLog()
		return 1
	}
	code := m.Run()
	if code != 0 {
		dumpLog()
	}
	return code
}

// start brings up a fresh cluster with the sample in it.
func start() error {
	if out, err := xebec("reset", "--yes"); err != nil {
		return fmt.Errorf("reset: %w\n%s", err, out)
	}
	if err := up(); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(*state, "kubeconfig"))
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 1000, 1000
	if cluster.api, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	if err := images(); err != nil {
		return err
	}
	if out, err := xebec("kubectl", "apply", "-f", deploy+"app.yaml", "-f", deploy+"routes.yaml"); err != nil {
		return fmt.Errorf("deploy the sample: %w\n%s", err, out)
	}
	for _, d := range deployments {
		if out, err := xebec("kubectl", "-n", "pictures", "rollout", "status", "deployment", d, "--timeout=120s"); err != nil {
			return fmt.Errorf("rollout of %s: %w\n%s", d, err, out)
		}
	}
	ip, err := xebec("kubectl", "-n", "pictures", "get", "service", "frontend", "-o", "jsonpath={.spec.clusterIP}")
	if err != nil {
		return fmt.Errorf("address of frontend: %w", err)
	}
	cluster.frontend = "http://" + strings.TrimSpace(ip) + ":8080"
	return answers(60 * time.Second)
}

var deployments = []string{"frontend", "pictures-v1", "pictures-v2-alpha", "metadata"}

func up() error {
	out, err := xebec("up", "--background", "--envoy", filepath.Join(*bin, "envoy"))
	if err != nil {
		return fmt.Errorf("xebec up: %w\n%s", err, out)
	}
	return nil
}

// images builds those of the sample and of the tests' own probe.
func images() error {
	for image, program := range map[string]string{
		"xebec.local/pictures/frontend:v1":         "samples/frontend",
		"xebec.local/pictures/pictures:v1":         "samples/pictures-v1",
		"xebec.local/pictures/pictures:v2.0-alpha": "samples/pictures-v2.0-alpha",
		"xebec.local/pictures/metadata:v1":         "samples/metadata",
		"xebec.local/e2e/probe:v1":                 "probe",
	} {
		out, err := xebec("image", "build", "--tag", image, "--entrypoint", "/app", filepath.Join(*bin, program)+"=/app")
		if err != nil {
			return fmt.Errorf("image %s: %w\n%s", image, err, out)
		}
	}
	return nil
}

// xebec runs the binary against this cluster's state.
func xebec(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(*bin, "xebec"), args...)
	cmd.Env = append(os.Environ(), "XEBEC_STATE="+*state)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

func dumpLog() {
	data, err := os.ReadFile(filepath.Join(*state, "xebec.log"))
	if err != nil {
		return
	}
	if len(data) > 20_000 {
		data = data[len(data)-20_000:]
	}
	fmt.Fprintf(os.Stderr, "--- end of the cluster's log\n%s", data)
}
