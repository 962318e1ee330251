package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Spec describes an image to build: one layer of files, and how to start it. The
// same spec gives the same image.
type Spec struct {
	Ref        string // complete, with a tag: xebec.local/envoy:1.40.0
	Files      []File
	Entrypoint []string
	Cmd        []string
	Env        []string // NAME=value
	User       string   // "uid" or "uid:gid"
	WorkingDir string
	Labels     map[string]string
}

// File is a file, directory or symbolic link in an image.
type File struct {
	Path   string      // absolute
	Mode   fs.FileMode // permissions; with fs.ModeDir a directory
	Source string      // a file of this machine whose bytes it has
	Data   []byte      // its bytes, without Source
	Link   string      // the target, of a symbolic link
}

// Build writes the image as an archive that Import, `ctr` and Docker read.
func Build(spec Spec, w io.Writer) error {
	ref, err := name.NewTag(spec.Ref)
	if err != nil {
		return fmt.Errorf("build image %s: %w", spec.Ref, err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return layerOf(spec.Files), nil },
		tarball.WithCompressionLevel(1))
	if err != nil {
		return fmt.Errorf("build image %s: %w", spec.Ref, err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return fmt.Errorf("build image %s: %w", spec.Ref, err)
	}
	img, err = mutate.ConfigFile(img, configOf(spec, img))
	if err != nil {
		return fmt.Errorf("build image %s: %w", spec.Ref, err)
	}
	if err := tarball.Write(ref, img, w); err != nil {
		return fmt.Errorf("build image %s: %w", spec.Ref, err)
	}
	return nil
}

func configOf(spec Spec, img v1.Image) *v1.ConfigFile {
	old, err := img.ConfigFile()
	if err != nil {
		old = &v1.ConfigFile{}
	}
	cfg := old.DeepCopy()
	cfg.Architecture, cfg.OS = runtime.GOARCH, "linux"
	cfg.Config = v1.Config{
		Entrypoint: spec.Entrypoint, Cmd: spec.Cmd, Env: spec.Env, User: spec.User,
		WorkingDir: spec.WorkingDir, Labels: spec.Labels,
	}
	return cfg
}

// layerOf streams the files as a tar archive, parents first.
func layerOf(files []File) io.ReadCloser {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	r, w := io.Pipe()
	go func() {
		t := tar.NewWriter(w)
		made := map[string]bool{"": true}
		for _, f := range files {
			if err := writeFile(t, f, made); err != nil {
				w.CloseWithError(fmt.Errorf("add %s: %w", f.Path, err))
				return
			}
		}
		w.CloseWithError(t.Close())
	}()
	return r
}

func writeFile(t *tar.Writer, f File, made map[string]bool) error {
	p := strings.TrimPrefix(path.Clean("/"+f.Path), "/")
	if err := writeParents(t, path.Dir(p), made); err != nil {
		return err
	}
	h := &tar.Header{Name: p, Mode: int64(f.Mode.Perm()), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Size: int64(len(f.Data))}
	var body io.Reader = bytes.NewReader(f.Data)
	switch {
	case f.Link != "":
		h.Typeflag, h.Linkname, h.Size, h.Mode = tar.TypeSymlink, f.Link, 0, 0o777
	case f.Mode.IsDir():
		if made[p] {
			return nil
		}
		made[p] = true
		h.Typeflag, h.Name, h.Size = tar.TypeDir, p+"/", 0
		h.Mode = int64(f.Mode.Perm())
		if f.Mode&fs.ModeSticky != 0 {
			h.Mode |= 0o1000
		}
	case f.Source != "":
		src, err := os.Open(f.Source)
		if err != nil {
			return err
		}
		defer src.Close()
		st, err := src.Stat()
		if err != nil {
			return err
		}
		h.Size, body = st.Size(), src
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	_, err := io.Copy(t, body)
	return err
}

func writeParents(t *tar.Writer, dir string, made map[string]bool) error {
	if dir == "." || dir == "/" || made[dir] {
		return nil
	}
	if err := writeParents(t, path.Dir(dir), made); err != nil {
		return err
	}
	made[dir] = true
	return t.WriteHeader(&tar.Header{Name: dir + "/", Mode: 0o755, Typeflag: tar.TypeDir, ModTime: time.Unix(0, 0)})
}
