package pod

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Stage is how far a container has come.
//
//	        start           started            exited
//	Idle ──────────▶ Starting ─────▶ Running ──────────▶ Exited
//	 ▲                  │              │ stop              ▲ │
//	 └──── failed ──────┘              └──────▶ Stopping ──┘ │
//	                    ▲                                    │
//	                    └──────────── start again ───────────┘
//
// Starting, Stopping: an operation is under way, and its end will be reported.
type Stage uint8

const (
	Idle Stage = iota
	Starting
	Running
	Stopping
	Exited
)

var stageNames = [...]string{"idle", "starting", "running", "stopping", "exited"}

func (s Stage) String() string { return stageNames[s] }

// Unit is what is known of one named container of a pod.
type Unit struct {
	Stage   Stage
	ID      string // of the container at hand, in containerd
	Image   string // reference, as the spec has it
	ImageID string

	Attempt    int // containers made so far
	Crashes    int // in a row, for the back-off
	StartedAt  time.Time
	FinishedAt time.Time
	ExitCode   int
	Reason     string // of the exit: Completed, Error, OOMKilled, …
	Message    string
	Last       *corev1.ContainerStateTerminated // of the attempt before

	Started bool   // its startup probe has passed, or it has none
	Ready   bool   // its readiness probe passes, or it has none
	Kill    string // why it must be stopped: a probe or hook that failed

	Wait        string // why it is not started: ErrImagePull, CreateContainerConfigError, …
	WaitMessage string
	Failures    int       // of that kind in a row
	FailedAt    time.Time // when it last failed to start
	StopBy      time.Time // Stopping: when it will be killed
}

// SandboxStage is how far a pod's namespaces, network and volumes have come.
//
//	None ──▶ Making ──▶ Made ──▶ Removing ──▶ None
//	  ▲         │
//	  └─ failed ┘
type SandboxStage uint8

const (
	None SandboxStage = iota
	Making
	Made
	Removing
)

var sandboxNames = [...]string{"none", "making", "made", "removing"}

func (s SandboxStage) String() string { return sandboxNames[s] }

// Sandbox is what is known of it.
type Sandbox struct {
	Stage    SandboxStage
	IPs      []string
	Failures int
	FailedAt time.Time
	Clean    bool // nothing is left to remove
}

// Termination says that the pod must end, and by when.
type Termination struct {
	By      time.Time // when whatever still runs is killed
	Reason  string    // for status.reason: Evicted, DeadlineExceeded; "" for a deletion
	Message string
}

// Observed is the state of a pod on this node. Its actor is the only writer.
type Observed struct {
	Sandbox     Sandbox
	Units       map[string]*Unit // by container name; never nil for a name in the spec
	Initialized bool             // the app containers may run: init is over for good
	StartedAt   time.Time        // when the agent accepted the pod
	End         *Termination
}

func (o *Observed) unit(name string) *Unit {
	u := o.Units[name]
	if u == nil {
		u = &Unit{}
		o.Units[name] = u
	}
	return u
}

// IsSidecar says whether an init container is a native sidecar.
func IsSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}
