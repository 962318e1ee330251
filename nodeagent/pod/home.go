package pod

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/nodeagent/network"
	"github.com/xebec-mesh/xebec/nodeagent/shim"
)

// home is where a pod's state lies.
//
//	<state>/pod.json                     the pod, and its sandbox when that is made
//	<state>/exits/<container id>.json    how a container ended
//	<state>/messages/<container id>      terminationMessagePath
//	<state>/etc/{hosts,resolv.conf,hostname}
//	<state>/volumes/…
//	<run>/                               what a reboot ends
type home struct {
	state, run, ns string
	uid            types.UID
}

func (m *Manager) home(uid types.UID) home {
	return home{
		state: filepath.Join(m.cfg.StateDir, string(uid)), run: filepath.Join(m.cfg.RunDir, string(uid)),
		ns: filepath.Join(filepath.Dir(m.cfg.RunDir), "netns"), uid: uid,
	}
}

func (h home) spaces() network.Spaces { return network.SpacesAt(h.ns, string(h.uid)) }

func (h home) etc(name string) string { return filepath.Join(h.state, "etc", name) }

func (h home) message(id string) string { return filepath.Join(h.state, "messages", id) }

func (h home) exit(id string) string { return filepath.Join(h.state, "exits", id+".json") }

func (h home) shm() string { return filepath.Join(h.run, "shm") }

func (h home) attach(id string) string { return filepath.Join(h.run, id[:12]+".sock") }

func (h home) shim() string { return filepath.Join(h.run, "shim") }

// takeShim gives the pod a shim, and notes which.
func (h home) takeShim(ctx context.Context, shims Shims) (string, error) {
	if shims == nil {
		return "", nil
	}
	if b, err := os.ReadFile(h.shim()); err == nil && shim.Alive(string(b)) {
		return string(b), nil // of an attempt that failed, or of an agent that was killed
	}
	s, err := shims.Take(ctx)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(h.shim(), []byte(s.Address), 0o600); err != nil {
		shim.End(s.Address)
		return "", fmt.Errorf("note the pod's shim: %w", err)
	}
	return s.Address, nil
}

// Shims are the addresses of the shims that pods of this node have.
func (m *Manager) Shims() []string {
	files, _ := filepath.Glob(filepath.Join(m.cfg.RunDir, "*", "shim"))
	var out []string
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil {
			out = append(out, string(b))
		}
	}
	return out
}

// saved is what a new agent needs to know of a pod that the last one ran.
type saved struct {
	Pod         *corev1.Pod `json:"pod"`
	IPs         []string    `json:"ips,omitempty"` // of a sandbox that is made
	Made        bool        `json:"made,omitempty"`
	PodCIDRs    []string    `json:"podCIDRs,omitempty"`
	Initialized bool        `json:"initialized,omitempty"`
	StartedAt   time.Time   `json:"startedAt"`
}

func (h home) save(s *saved) error { return writeJSON(filepath.Join(h.state, "pod.json"), s) }

func (h home) load() (*saved, error) {
	var s saved
	if ok, err := readJSON(filepath.Join(h.state, "pod.json"), &s); !ok {
		return nil, err
	}
	return &s, nil
}

// record is how a container ended.
type record struct {
	Name       string    `json:"name"`
	Attempt    int       `json:"attempt"`
	Code       int       `json:"code"`
	Reason     string    `json:"reason"`
	Message    string    `json:"message,omitempty"`
	StartedAt  time.Time `json:"startedAt"`
	FinishedAt time.Time `json:"finishedAt"`
	Crashes    int       `json:"crashes,omitempty"`
}

// exits are how the pod's containers ended, by id.
func (h home) exits() map[string]record {
	out := map[string]record{}
	files, _ := filepath.Glob(h.exit("*"))
	for _, f := range files {
		var r record
		if ok, err := readJSON(f, &r); ok && err == nil {
			out[strings.TrimSuffix(filepath.Base(f), ".json")] = r
		}
	}
	return out
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	tmp := path + "." + strconv.FormatInt(time.Now().UnixNano(), 36)
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func readJSON(path string, v any) (bool, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	return true, nil
}
