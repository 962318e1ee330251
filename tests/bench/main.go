// Command bench measures a whole cluster and prints the table of
// docs/benchmarks.md.
//
//	in:   the built binaries; root; a machine on which no other Xebec runs
//	out:  one line for each figure, with the unit, as Markdown
//
// It starts a cluster with state of its own, measures, and removes it. Where a
// figure is a comparison, both sides are measured in turns within the same run.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	b := &bench{}
	flag.StringVar(&b.bin, "bin", "bin", "folder of the built binaries")
	flag.StringVar(&b.state, "state", "/var/lib/xebec-bench", "folder for the cluster's state; it is removed")
	only := flag.String("only", "", "measure only the parts whose name contains this")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := b.run(ctx, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	bin, state string
	config     *rest.Config
	api        kubernetes.Interface
	frontend   string
}

// part is one group of figures.
type part struct {
	name string
	run  func(context.Context) error
}

func (b *bench) run(ctx context.Context, only string) error {
	defer b.xebec("reset", "--yes")
	if out, err := b.xebec("reset", "--yes"); err != nil {
		return fmt.Errorf("reset: %w\n%s", err, out)
	}
	fmt.Printf("%s, %d cores, %s\n\n| what | measured |\n| --- | --- |\n", kernel(), runtime.NumCPU(), runtime.Version())
	if err := b.start(ctx); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	for _, p := range []part{
		{"api", b.apiServer},
		{"scheduling", b.scheduling},
		{"pods", b.podStart},
		{"services", b.services},
		{"mesh", b.mesh},
	} {
		if !strings.Contains(p.name, only) {
			continue
		}
		if err := p.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// row prints one figure.
func row(what, format string, args ...any) {
	fmt.Printf("| %s | %s |\n", what, fmt.Sprintf(format, args...))
}

func (b *bench) xebec(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(b.bin, "xebec"), args...)
	cmd.Env = append(os.Environ(), "XEBEC_STATE="+b.state)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (b *bench) kubectl(args ...string) error {
	if out, err := b.xebec(append([]string{"kubectl"}, args...)...); err != nil {
		return fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (b *bench) up() error {
	if out, err := b.xebec("up", "--background", "--envoy", filepath.Join(b.bin, "envoy")); err != nil {
		return fmt.Errorf("xebec up: %w\n%s", err, out)
	}
	return nil
}

// start measures the way to Ready with an empty and with a warm image store, the
// memory, and the way to the first meshed answer.
func (b *bench) start(ctx context.Context) error {
	begun := time.Now()
	if err := b.up(); err != nil {
		return err
	}
	row("xebec up to Ready, first start (builds the sidecar image)", "%.2f s", time.Since(begun).Seconds())
	if err := b.connect(); err != nil {
		return err
	}
	if err := b.images(); err != nil {
		return err
	}
	if out, err := b.xebec("down"); err != nil {
		return fmt.Errorf("down: %w\n%s", err, out)
	}
	begun = time.Now()
	if err := b.up(); err != nil {
		return err
	}
	row("xebec up to Ready, warm image store", "%.2f s", time.Since(begun).Seconds())
	if err := settle(ctx, quiet); err != nil {
		return err
	}
	if err := b.memory("resident memory, idle"); err != nil {
		return err
	}
	if err := b.sample(ctx); err != nil {
		return err
	}
	row("xebec up to the first meshed answer, images present", "%.2f s", time.Since(begun).Seconds()-quiet.Seconds())
	if err := settle(ctx, quiet); err != nil {
		return err
	}
	return b.memory("resident memory, with the sample")
}

// quiet is how long the cluster is left alone before its memory is read.
const quiet = 20 * time.Second

// settle lets what was started come to rest, so that memory is that of rest.
func settle(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (b *bench) connect() error {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(b.state, "kubeconfig"))
	if err != nil {
		return err
	}
	config.QPS = -1
	config.DisableCompression = true // on loopback it costs more than it saves
	config.ContentType = "application/vnd.kubernetes.protobuf"
	b.config = config
	b.api, err = kubernetes.NewForConfig(config)
	return err
}

// images builds the sample's images and the probe's.
func (b *bench) images() error {
	for tag, program := range map[string]string{
		"pictures/frontend:v1": "samples/frontend", "pictures/metadata:v1": "samples/metadata",
		"pictures/pictures:v1": "samples/pictures-v1", "pictures/pictures:v2.0-alpha": "samples/pictures-v2.0-alpha",
		"e2e/probe:v1": "probe",
	} {
		out, err := b.xebec("image", "build", "--tag", "xebec.local/"+tag, "--entrypoint", "/app", filepath.Join(b.bin, program)+"=/app")
		if err != nil {
			return fmt.Errorf("image %s: %w\n%s", tag, err, out)
		}
	}
	return nil
}

func kernel() string {
	out, err := exec.Command("uname", "-sr").Output()
	if err != nil {
		return "Linux"
	}
	return strings.TrimSpace(string(out))
}
