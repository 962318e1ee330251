// Package script runs tests that are written as text: a txtar archive whose
// comment is a list of commands and whose files are their input and the output
// that is expected.
//
//	in:   testdata/*.txtar and a package's own commands
//	out:  one subtest an archive
//
// Built in are
//
//	cmp stdout FILE   the last command printed exactly FILE
//	stdout TEXT       the last command printed TEXT somewhere
//	! COMMAND         the command returns an error; its text becomes stdout
//	# ...             a comment
//
// With -update, cmp rewrites FILE in the archive instead of comparing.
package script

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite the expected files of script tests with what was printed")

// State is what one script has at hand.
type State struct {
	T     *testing.T
	files map[string][]byte
}

// File returns a file of the archive, or an error that names it.
func (s *State) File(name string) ([]byte, error) {
	data, ok := s.files[name]
	if !ok {
		return nil, fmt.Errorf("the script has no file %q", name)
	}
	return data, nil
}

// Command runs one line and returns what it prints.
type Command func(s *State, args []string) (stdout string, err error)

// Run runs every archive that matches glob. setup makes the commands afresh for each.
func Run(t *testing.T, glob string, setup func(t *testing.T) map[string]Command) {
	t.Helper()
	paths, err := filepath.Glob(glob)
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		t.Fatalf("no script matches %s", glob)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".txtar")
		t.Run(name, func(t *testing.T) { run(t, path, setup(t)) })
	}
}

// RunInBubble is Run with each script, its commands and what they start in a
// testing/synctest bubble of its own: time passes only when a command sleeps.
func RunInBubble(t *testing.T, glob string, setup func(t *testing.T) map[string]Command) {
	t.Helper()
	paths, err := filepath.Glob(glob)
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		t.Fatalf("no script matches %s", glob)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".txtar")
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { run(t, path, setup(t)) })
		})
	}
}

// From makes Commands of functions that do not know this package: file reads a
// file of the archive.
func From(plain map[string]func(file func(string) ([]byte, error), args []string) (string, error)) map[string]Command {
	out := make(map[string]Command, len(plain))
	for name, f := range plain {
		out[name] = func(s *State, args []string) (string, error) { return f(s.File, args) }
	}
	return out
}

func run(t *testing.T, path string, commands map[string]Command) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &State{T: t, files: map[string][]byte{}}
	for _, f := range archive.Files {
		s.files[f.Name] = f.Data
	}
	stdout, changed := "", false
	for i, line := range strings.Split(string(archive.Comment), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		args := strings.Fields(line)
		switch args[0] {
		case "cmp":
			changed = compare(t, path, i+1, args, archive, stdout) || changed
		case "stdout":
			if text := strings.TrimSpace(strings.TrimPrefix(line, "stdout")); !strings.Contains(stdout, text) {
				t.Fatalf("%s:%d: stdout has no %q:\n%s", path, i+1, text, stdout)
			}
		default:
			stdout = call(t, s, fmt.Sprintf("%s:%d", path, i+1), commands, args)
		}
	}
	if changed {
		if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func call(t *testing.T, s *State, where string, commands map[string]Command, args []string) string {
	t.Helper()
	wantError := args[0] == "!"
	if wantError {
		args = args[1:]
	}
	command := commands[args[0]]
	if command == nil {
		t.Fatalf("%s: no command %q", where, args[0])
	}
	stdout, err := command(s, args[1:])
	switch {
	case wantError && err == nil:
		t.Fatalf("%s: %s: no error, printed:\n%s", where, strings.Join(args, " "), stdout)
	case wantError:
		return err.Error() + "\n"
	case err != nil:
		t.Fatalf("%s: %s: %v", where, strings.Join(args, " "), err)
	}
	return stdout
}

// compare holds stdout against a file, or rewrites it; it says whether the archive changed.
func compare(t *testing.T, path string, line int, args []string, archive *txtar.Archive, stdout string) bool {
	t.Helper()
	if len(args) != 3 || args[1] != "stdout" {
		t.Fatalf("%s:%d: want: cmp stdout FILE", path, line)
	}
	if stdout != "" && !strings.HasSuffix(stdout, "\n") {
		stdout += "\n"
	}
	for i := range archive.Files {
		f := &archive.Files[i]
		if f.Name != args[2] {
			continue
		}
		if string(f.Data) == stdout {
			return false
		}
		if !*update {
			t.Fatalf("%s:%d: printed:\n%s\nwant %s:\n%s", path, line, stdout, f.Name, f.Data)
		}
		f.Data = []byte(stdout)
		return true
	}
	if !*update {
		t.Fatalf("%s:%d: the script has no file %q", path, line, args[2])
	}
	archive.Files = append(archive.Files, txtar.File{Name: args[2], Data: []byte(stdout)})
	return true
}
