package volume

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const dataLink = "..data"

// Write makes a directory hold exactly files, by path, atomically: readers see the
// old contents or the new, never a mixture. A nil group leaves ownership alone.
//
//	dir/a        → ..data/a
//	dir/..data   → ..2026_01_02_15_04_05.123
//	dir/..2026…/a
func Write(dir string, files map[string]File, group *int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	old, _ := os.Readlink(filepath.Join(dir, dataLink))
	if old != "" && same(filepath.Join(dir, old), files, group) {
		return nil
	}
	fresh, err := os.MkdirTemp(dir, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	if err := fill(fresh, files, group); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	tmp := filepath.Join(dir, "..data_tmp")
	_ = os.Remove(tmp)
	if err := os.Symlink(filepath.Base(fresh), tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, dataLink)); err != nil {
		return err
	}
	if err := link(dir, files); err != nil {
		return err
	}
	if old != "" {
		return os.RemoveAll(filepath.Join(dir, old))
	}
	return nil
}

func mode(f File, group *int64) os.FileMode {
	if group != nil {
		return f.Mode | 0o440
	}
	return f.Mode
}

// same says whether a version holds exactly files.
func same(dir string, files map[string]File, group *int64) bool {
	found := 0
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		f, ok := files[rel]
		if !ok {
			return os.ErrExist
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if !bytes.Equal(b, f.Data) || st.Mode().Perm() != mode(f, group).Perm() {
			return os.ErrExist
		}
		found++
		return nil
	})
	return err == nil && found == len(files)
}

func fill(dir string, files map[string]File, group *int64) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for name, f := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, f.Data, 0o600); err != nil {
			return err
		}
		if group != nil {
			if err := os.Chown(p, -1, int(*group)); err != nil {
				return err
			}
		}
		if err := os.Chmod(p, mode(f, group)); err != nil {
			return fmt.Errorf("set mode of %s: %w", name, err)
		}
	}
	return nil
}

// link makes the visible names point through ..data, and removes those that are gone.
func link(dir string, files map[string]File) error {
	want := map[string]bool{}
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		want[top] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, "..") {
			continue
		}
		if want[name] {
			delete(want, name)
			continue
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	for name := range want {
		if err := os.Symlink(filepath.Join(dataLink, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
