package xds_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/pilot/describe"
	"github.com/xebec-mesh/xebec/pilot/simulate"
	"github.com/xebec-mesh/xebec/tests/script"
)

// TestScripts runs configuration through the whole control plane:
//
//	apply FILE                            applies the objects of a YAML file at once
//	delete FILE                           deletes them
//	xds client=NS/POD type=KIND [GREP]    prints what the pod's proxy gets
//	call client=NS/POD [dst=IP] [header=value]... METHOD URL
//	                                      says where a call lands
//	touched                               prints the resources rebuilt since it was last called
//	refused                               prints what was found invalid
func TestScripts(t *testing.T) {
	script.Run(t, "testdata/*.txtar", func(t *testing.T) map[string]script.Command {
		w := &scripted{mesh: newMesh(t), pods: map[string]*corev1.Pod{}, held: map[*corev1.Pod]bool{}}
		w.server.Touched()
		return map[string]script.Command{
			"apply":  func(s *script.State, args []string) (string, error) { return "", w.change(s, args[0], client.Modified) },
			"delete": func(s *script.State, args []string) (string, error) { return "", w.change(s, args[0], client.Deleted) },
			"xds":    w.xds,
			"call":   w.call,
			"touched": func(*script.State, []string) (string, error) {
				return lines(w.server.Touched()), nil
			},
			"refused": func(*script.State, []string) (string, error) {
				var out []string
				for _, r := range w.rejections() {
					out = append(out, fmt.Sprintf("%v %s: %s", r.Objects, r.Resource, r.Detail))
				}
				return lines(out), nil
			},
		}
	})
}

type scripted struct {
	*mesh
	pods map[string]*corev1.Pod
	held map[*corev1.Pod]bool // followed, as with an open stream
	gen  int64
}

func lines(s []string) string {
	if len(s) == 0 {
		return ""
	}
	short := strings.NewReplacer("type.googleapis.com/envoy.config.", "")
	return short.Replace(strings.Join(s, "\n")) + "\n"
}

func (w *scripted) change(s *script.State, file string, how client.EventType) error {
	data, err := s.File(file)
	if err != nil {
		return err
	}
	decoder := serializer.NewCodecFactory(client.Scheme()).UniversalDeserializer()
	for _, doc := range strings.Split("\n"+string(data), "\n---\n") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		o, _, err := decoder.Decode([]byte(doc), nil, nil)
		if err != nil {
			return err
		}
		obj := o.(client.Object)
		if obj.GetNamespace() == "" {
			obj.SetNamespace("default")
		}
		w.gen++
		obj.SetGeneration(w.gen)
		if p, ok := o.(*corev1.Pod); ok {
			w.pods[p.Namespace+"/"+p.Name] = p
		}
		w.state.Apply(client.Event{Type: how, Object: obj})
	}
	w.server.Update(w.state.Commit())
	return nil
}

// words splits key=value arguments from the others.
func words(args []string) (map[string]string, []string) {
	named, rest := map[string]string{}, []string(nil)
	for _, a := range args {
		if k, v, ok := strings.Cut(a, "="); ok && !strings.Contains(k, "/") {
			named[k] = v
		} else {
			rest = append(rest, a)
		}
	}
	return named, rest
}

func (w *scripted) pod(name string) (*corev1.Pod, error) {
	if p := w.pods[name]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("no pod %q was applied", name)
}

func (w *scripted) xds(_ *script.State, args []string) (string, error) {
	named, grep := words(args)
	p, err := w.pod(named["client"])
	if err != nil {
		return "", err
	}
	if !w.held[p] {
		w.held[p] = true
		w.server.Hold(p)
	}
	out, in, err := w.server.Snapshots(p)
	if err != nil {
		return "", err
	}
	text, err := describe.Snapshots(named["type"], out, in)
	if err != nil || len(grep) == 0 {
		return text, err
	}
	var kept []string
	keep := false
	for _, l := range strings.SplitAfter(text, "\n") {
		if !strings.HasPrefix(l, " ") {
			keep = strings.Contains(l, grep[0])
		}
		if keep {
			kept = append(kept, l)
		}
	}
	return strings.Join(kept, ""), nil
}

func (w *scripted) call(_ *script.State, args []string) (string, error) {
	named, rest := words(args)
	p, err := w.pod(named["client"])
	if err != nil {
		return "", err
	}
	out, _, err := w.server.Snapshots(p)
	if err != nil {
		return "", err
	}
	c := simulate.Call{To: named["dst"], Method: rest[0], Headers: map[string]string{}, TCP: rest[0] == "TCP", Port: 80}
	for k, v := range named {
		if k != "client" && k != "dst" {
			c.Headers[k] = strings.ReplaceAll(v, "+", " ")
		}
	}
	hostport, path, _ := strings.Cut(strings.TrimPrefix(rest[1], "http://"), "/")
	c.Host, c.Path = hostport, "/"+path
	if _, port, ok := strings.Cut(hostport, ":"); ok {
		n, err := strconv.Atoi(port)
		if err != nil {
			return "", err
		}
		c.Port = uint32(n)
	}
	where, err := simulate.Run(out, c)
	return where + "\n", err
}
