package pod

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/xebec-mesh/xebec/nodeagent/probe"
	"github.com/xebec-mesh/xebec/tests/script"
)

// story is a pod whose life a script tells.
//
//	pod FILE                      the pod
//	plan                          what is to be done now; it is begun
//	wait DURATION                 time passes
//	made | not-made | removed     the sandbox
//	started NAME                  a container runs; its startup probe passes unless it has one
//	failed NAME [REASON]          it could not be started; without a reason for want of a sandbox
//	exited NAME CODE
//	probe NAME KIND ok|bad
//	delete DURATION               the pod is deleted, with this grace period
//	status                        what the API shows
type story struct {
	pod *corev1.Pod
	o   Observed
	now time.Time
}

func TestPlan(t *testing.T) {
	script.Run(t, "testdata/*.txtar", func(t *testing.T) map[string]script.Command {
		s := &story{o: Observed{Units: map[string]*Unit{}, Sandbox: Sandbox{Clean: true}}, now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)}
		tell := func(f func(args []string) error) script.Command {
			return func(_ *script.State, args []string) (string, error) { return "", f(args) }
		}
		return map[string]script.Command{
			"pod": func(st *script.State, args []string) (string, error) {
				b, err := st.File(args[0])
				if err != nil {
					return "", err
				}
				s.pod = &corev1.Pod{}
				return "", yaml.UnmarshalStrict(b, s.pod)
			},
			"plan":   func(*script.State, []string) (string, error) { return s.plan(), nil },
			"status": func(*script.State, []string) (string, error) { return s.status(), nil },
			"wait":   tell(s.wait),
			"made":   tell(func([]string) error { s.o.Sandbox.Stage, s.o.Sandbox.Failures = Made, 0; return nil }),
			"not-made": tell(func([]string) error {
				s.o.Sandbox.Stage = None
				s.o.Sandbox.Failures++
				s.o.Sandbox.FailedAt = s.now
				return nil
			}),
			"removed": tell(func([]string) error { s.o.Sandbox.Stage, s.o.Sandbox.Clean = None, true; return nil }),
			"started": tell(s.started),
			"failed": tell(func(a []string) error {
				s.o.notStarted(a[0], "", strings.Join(a[1:], ""), "it says", false, s.now)
				return nil
			}),
			"exited": tell(s.exited),
			"probe":  tell(s.probe),
			"delete": tell(func(a []string) error {
				d, err := time.ParseDuration(a[0])
				s.o.End = &Termination{By: s.now.Add(d)}
				return err
			}),
		}
	})
}

func (s *story) plan() string {
	p := compute(s.pod, &s.o, s.now)
	for _, a := range p.Actions {
		s.o.begin(a, s.now)
	}
	if s.o.End != nil && len(p.Actions) == 1 && p.Actions[0].Verb == Finish {
		return p.String() // the actor ends here
	}
	if again := compute(s.pod, &s.o, s.now); len(again.Actions) > 0 {
		return p.String() + "NOT CONVERGED: then\n" + again.String()
	}
	return p.String()
}

func (s *story) wait(args []string) error {
	d, err := time.ParseDuration(args[0])
	s.now = s.now.Add(d)
	return err
}

func (s *story) started(args []string) error {
	name := args[0]
	s.o.started(name, fmt.Sprintf("%s-%d", name, s.o.unit(name).Attempt), containerOf(s.pod, name).Image, "", s.now)
	c := containerOf(s.pod, name)
	if c.StartupProbe == nil {
		s.o.probed(name, probe.Result{Kind: probe.Startup, OK: true})
	}
	if c.ReadinessProbe == nil {
		s.o.probed(name, probe.Result{Kind: probe.Readiness, OK: true})
	}
	s.o.Initialized = s.o.Initialized || initialized(s.pod, &s.o)
	return nil
}

func (s *story) exited(args []string) error {
	code, err := strconv.Atoi(args[1])
	s.o.exited(args[0], record{Code: code, Reason: map[bool]string{true: "Completed", false: "Error"}[code == 0], FinishedAt: s.now})
	s.o.Initialized = s.o.Initialized || initialized(s.pod, &s.o)
	return err
}

func (s *story) probe(args []string) error {
	s.o.probed(args[0], probe.Result{Kind: probe.Kind(args[1]), OK: args[2] == "ok"})
	s.o.Initialized = s.o.Initialized || initialized(s.pod, &s.o)
	return nil
}

func (s *story) status() string {
	st := Status(s.pod, &s.o, s.pod.Status.Conditions, nil, s.now)
	var b strings.Builder
	fmt.Fprint(&b, st.Phase)
	for _, c := range st.Conditions {
		if c.Status == corev1.ConditionTrue {
			fmt.Fprintf(&b, " %s", c.Type)
		}
	}
	b.WriteByte('\n')
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, c := range append(st.InitContainerStatuses, st.ContainerStatuses...) {
		state := "running"
		if c.State.Waiting != nil {
			state = "waiting:" + c.State.Waiting.Reason
		}
		if t := c.State.Terminated; t != nil {
			state = fmt.Sprintf("terminated:%s:%d", t.Reason, t.ExitCode)
		}
		last := "-"
		if t := c.LastTerminationState.Terminated; t != nil {
			last = fmt.Sprintf("%s:%d", t.Reason, t.ExitCode)
		}
		fmt.Fprintf(w, "%s\t%s\tready=%t\trestarts=%d\tlast=%s\n", c.Name, state, c.Ready, c.RestartCount, last)
	}
	w.Flush()
	return b.String()
}
