package pod

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Status says what the API shows of a pod. It is pure: the same observation gives
// the same status. Conditions keep their transition times from shown, the status
// before, and those of other writers are passed through from pod.Status.
func Status(pod *corev1.Pod, o *Observed, shown []corev1.PodCondition, hostIPs []string, now time.Time) corev1.PodStatus {
	s := corev1.PodStatus{
		QOSClass:                   pod.Status.QOSClass,
		NominatedNodeName:          pod.Status.NominatedNodeName,
		ResourceClaimStatuses:      pod.Status.ResourceClaimStatuses,
		EphemeralContainerStatuses: pod.Status.EphemeralContainerStatuses,
		ObservedGeneration:         pod.Generation,
		Phase:                      phase(pod, o),
	}
	if o.End != nil {
		s.Reason, s.Message = o.End.Reason, o.End.Message
		if o.End.Reason != "" {
			s.Phase = corev1.PodFailed
		}
	}
	if !o.StartedAt.IsZero() {
		t := metav1.NewTime(o.StartedAt)
		s.StartTime = &t
	}
	for _, ip := range hostIPs {
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: ip})
	}
	s.HostIP = first(hostIPs)
	for _, ip := range o.Sandbox.IPs {
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
	}
	s.PodIP = first(o.Sandbox.IPs)
	for i := range pod.Spec.InitContainers {
		s.InitContainerStatuses = append(s.InitContainerStatuses, containerStatus(pod, o, &pod.Spec.InitContainers[i], now))
	}
	for i := range pod.Spec.Containers {
		s.ContainerStatuses = append(s.ContainerStatuses, containerStatus(pod, o, &pod.Spec.Containers[i], now))
	}
	conditions(&s, pod, o, shown, now)
	return s
}

func first(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}

// phase follows the rules of the pod lifecycle.
// https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase
func phase(pod *corev1.Pod, o *Observed) corev1.PodPhase {
	if finished(pod, o) || (o.End != nil && ended(pod, o)) {
		for _, c := range append(pod.Spec.InitContainers[:len(pod.Spec.InitContainers):len(pod.Spec.InitContainers)], pod.Spec.Containers...) {
			if u := o.unit(c.Name); !(IsSidecar(&c) && isInit(pod, &c)) && u.Stage == Exited && u.ExitCode != 0 {
				return corev1.PodFailed
			}
		}
		return corev1.PodSucceeded
	}
	if !initialized(pod, o) {
		return corev1.PodPending
	}
	any := false
	for _, c := range pod.Spec.Containers {
		if o.unit(c.Name).Attempt == 0 {
			return corev1.PodPending
		}
		any = true
	}
	if !any {
		return corev1.PodPending
	}
	return corev1.PodRunning
}

// ended says whether every app container has run and none runs any more.
func ended(pod *corev1.Pod, o *Observed) bool {
	for _, c := range pod.Spec.Containers {
		if o.unit(c.Name).Stage != Exited {
			return false
		}
	}
	return true
}

func initialized(pod *corev1.Pod, o *Observed) bool {
	if o.Initialized {
		return true
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		u := o.unit(c.Name)
		if IsSidecar(c) {
			if !u.Started {
				return false
			}
		} else if u.Stage != Exited || u.ExitCode != 0 {
			return false
		}
	}
	return true
}

func containerStatus(pod *corev1.Pod, o *Observed, c *corev1.Container, now time.Time) corev1.ContainerStatus {
	u := o.unit(c.Name)
	s := corev1.ContainerStatus{
		Name: c.Name, Image: c.Image, ImageID: u.ImageID, RestartCount: int32(max(0, u.Attempt-1)),
	}
	if u.Image != "" {
		s.Image = u.Image
	}
	if u.ID != "" {
		s.ContainerID = "containerd://" + u.ID
	}
	started := u.Stage == Running && u.Started
	s.Started = &started
	s.Ready = u.Stage == Running && u.Ready
	if isInit(pod, c) && !IsSidecar(c) {
		s.Ready = u.Stage == Exited && u.ExitCode == 0
	}
	if u.Last != nil {
		s.LastTerminationState.Terminated = u.Last
	}
	switch u.Stage {
	case Running, Stopping:
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(u.StartedAt)}
	case Exited:
		exited(&s, pod, o, c, u, now)
	case Starting:
		if u.Attempt > 0 {
			s.State.Terminated = Terminated(u)
			break
		}
		s.State.Waiting = waiting(pod, o, c, u, now)
	default:
		s.State.Waiting = waiting(pod, o, c, u, now)
	}
	return s
}

// exited shows the exit, or, where the container will be started again, what it
// waits for, with the exit as the last state.
func exited(s *corev1.ContainerStatus, pod *corev1.Pod, o *Observed, c *corev1.Container, u *Unit, now time.Time) {
	t := Terminated(u)
	if o.End != nil || !restarts(pod, c, u.ExitCode) || finished(pod, o) || (isInit(pod, c) && !IsSidecar(c) && o.Initialized) {
		s.State.Terminated = t
		return
	}
	wait := waiting(pod, o, c, u, now)
	delay := backoff(u.Crashes - 1)
	switch {
	case u.Failures > 0:
	case delay > 0 && now.Before(u.FinishedAt.Add(delay)):
		wait = &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: fmt.Sprintf(
			"back-off %s restarting failed container=%s pod=%s_%s(%s)", delay, c.Name, pod.Name, pod.Namespace, pod.UID)}
	default:
		s.State.Terminated = t
		return
	}
	s.State.Waiting = wait
	s.LastTerminationState.Terminated = t
}

// Terminated is the API's form of an exit.
func Terminated(u *Unit) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: int32(u.ExitCode), Reason: u.Reason, Message: u.Message,
		StartedAt: metav1.NewTime(u.StartedAt), FinishedAt: metav1.NewTime(u.FinishedAt),
	}
	if u.ID != "" {
		t.ContainerID = "containerd://" + u.ID
	}
	return t
}

// errorShown is how long a failed pull shows as what it is before it shows as waiting.
const errorShown = 2 * time.Second

func waiting(pod *corev1.Pod, o *Observed, c *corev1.Container, u *Unit, now time.Time) *corev1.ContainerStateWaiting {
	w := &corev1.ContainerStateWaiting{Reason: u.Wait, Message: u.WaitMessage}
	switch {
	case u.Wait == "ErrImagePull" && !now.Before(u.FailedAt.Add(errorShown)):
		w.Reason = "ImagePullBackOff"
		w.Message = fmt.Sprintf("Back-off pulling image %q: %s", c.Image, u.WaitMessage)
	case u.Wait != "":
	case (!isInit(pod, c) && !initialized(pod, o)) || (isInit(pod, c) && o.Sandbox.Stage != Made) || waitsForInit(pod, o, c):
		w.Reason = "PodInitializing"
	default:
		w.Reason = "ContainerCreating"
	}
	if w.Reason == "PodInitializing" && len(pod.Spec.InitContainers) == 0 {
		w.Reason = "ContainerCreating"
	}
	return w
}

func waitsForInit(pod *corev1.Pod, o *Observed, c *corev1.Container) bool {
	return isInit(pod, c) && o.unit(c.Name).Stage == Idle
}

func conditions(s *corev1.PodStatus, pod *corev1.Pod, o *Observed, shown []corev1.PodCondition, now time.Time) {
	for _, c := range pod.Status.Conditions {
		if !ours[c.Type] {
			s.Conditions = append(s.Conditions, c)
		}
	}
	set := func(t corev1.PodConditionType, ok bool, reason, message string) {
		c := corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: pod.Generation}
		if ok {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, "", ""
		}
		if s.Phase == corev1.PodSucceeded && reason != "" && t != corev1.PodReadyToStartContainers {
			c.Reason, c.Message = "PodCompleted", ""
		}
		c.LastTransitionTime = metav1.NewTime(now)
		for _, old := range shown {
			if old.Type == t && old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
		}
		s.Conditions = append(s.Conditions, c)
	}
	set(corev1.PodReadyToStartContainers, o.Sandbox.Stage == Made, "", "")
	inits := pending(pod.Spec.InitContainers, func(c *corev1.Container) bool {
		u := o.unit(c.Name)
		return o.Initialized || (IsSidecar(c) && u.Started) || (u.Stage == Exited && u.ExitCode == 0)
	})
	set(corev1.PodInitialized, initialized(pod, o) || len(inits) == 0, "ContainersNotInitialized",
		fmt.Sprintf("containers with incomplete status: [%s]", strings.Join(inits, " ")))
	ready := func(c *corev1.Container) bool { u := o.unit(c.Name); return u.Stage == Running && u.Ready }
	unready := pending(sidecars(pod), ready)
	unready = append(unready, pending(pod.Spec.Containers, ready)...)
	note := fmt.Sprintf("containers with unready status: [%s]", strings.Join(unready, " "))
	allReady := len(unready) == 0 && s.Phase == corev1.PodRunning
	reason := "ContainersNotReady"
	if s.Phase == corev1.PodFailed {
		reason, note = "PodFailed", ""
	}
	gates := missingGates(pod)
	if allReady && len(gates) > 0 {
		set(corev1.PodReady, false, "ReadinessGatesNotReady", strings.Join(gates, ", "))
	} else {
		set(corev1.PodReady, allReady, reason, note)
	}
	set(corev1.ContainersReady, allReady, reason, note)
}

var ours = map[corev1.PodConditionType]bool{
	corev1.PodReadyToStartContainers: true, corev1.PodInitialized: true, corev1.PodReady: true, corev1.ContainersReady: true,
}

func sidecars(pod *corev1.Pod) []corev1.Container {
	var out []corev1.Container
	for _, c := range pod.Spec.InitContainers {
		if IsSidecar(&c) {
			out = append(out, c)
		}
	}
	return out
}

func pending(list []corev1.Container, done func(*corev1.Container) bool) []string {
	var out []string
	for i := range list {
		if !done(&list[i]) {
			out = append(out, list[i].Name)
		}
	}
	return out
}

func missingGates(pod *corev1.Pod) []string {
	var out []string
	for _, g := range pod.Spec.ReadinessGates {
		ok := false
		for _, c := range pod.Status.Conditions {
			ok = ok || (c.Type == g.ConditionType && c.Status == corev1.ConditionTrue)
		}
		if !ok {
			out = append(out, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist or is not true.", g.ConditionType))
		}
	}
	return out
}

// addresses are a sandbox's addresses as the API writes them.
func addresses(list []netip.Addr) []string {
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.String()
	}
	return out
}
