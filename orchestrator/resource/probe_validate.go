package resource

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateHooks checks the probes and hooks of a container that keeps running.
func (s *podScope) validateHooks(c *corev1.Container, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if c.Lifecycle != nil {
		errs = append(errs, validateHandler(handlerOf(c.Lifecycle.PostStart), s.grace, p.Child("lifecycle", "postStart"))...)
		errs = append(errs, validateHandler(handlerOf(c.Lifecycle.PreStop), s.grace, p.Child("lifecycle", "preStop"))...)
		if c.Lifecycle.StopSignal != nil {
			errs = append(errs, field.Forbidden(p.Child("lifecycle", "stopSignal"), "stop signals are not supported"))
		}
	}
	errs = append(errs, validateLiveness(c.LivenessProbe, s.grace, p.Child("livenessProbe"))...)
	errs = append(errs, validateProbe(c.ReadinessProbe, s.grace, p.Child("readinessProbe"))...)
	if c.ReadinessProbe != nil && c.ReadinessProbe.TerminationGracePeriodSeconds != nil {
		errs = append(errs, field.Invalid(p.Child("readinessProbe", "terminationGracePeriodSeconds"),
			*c.ReadinessProbe.TerminationGracePeriodSeconds, "must not be set for readinessProbes"))
	}
	return append(errs, validateLiveness(c.StartupProbe, s.grace, p.Child("startupProbe"))...)
}

// validateLiveness checks a probe whose failure kills: one success ends the failure.
func validateLiveness(probe *corev1.Probe, grace *int64, p *field.Path) field.ErrorList {
	errs := validateProbe(probe, grace, p)
	if probe != nil && probe.SuccessThreshold != 1 {
		errs = append(errs, field.Invalid(p.Child("successThreshold"), probe.SuccessThreshold, "must be 1"))
	}
	return errs
}

func validateProbe(probe *corev1.Probe, grace *int64, p *field.Path) field.ErrorList {
	if probe == nil {
		return nil
	}
	h := handler{exec: probe.Exec, http: probe.HTTPGet, tcp: probe.TCPSocket, grpc: probe.GRPC}
	errs := validateHandler(&h, grace, p)
	errs = append(errs, notNegative(p.Child("initialDelaySeconds"), probe.InitialDelaySeconds)...)
	errs = append(errs, notNegative(p.Child("timeoutSeconds"), probe.TimeoutSeconds)...)
	errs = append(errs, notNegative(p.Child("periodSeconds"), probe.PeriodSeconds)...)
	errs = append(errs, notNegative(p.Child("successThreshold"), probe.SuccessThreshold)...)
	errs = append(errs, notNegative(p.Child("failureThreshold"), probe.FailureThreshold)...)
	if t := probe.TerminationGracePeriodSeconds; t != nil && *t <= 0 {
		errs = append(errs, field.Invalid(p.Child("terminationGracePeriodSeconds"), *t, "must be greater than 0"))
	}
	return errs
}

// handler is what probes and hooks can do, together.
type handler struct {
	exec  *corev1.ExecAction
	http  *corev1.HTTPGetAction
	tcp   *corev1.TCPSocketAction
	grpc  *corev1.GRPCAction
	sleep *corev1.SleepAction
}

func handlerOf(h *corev1.LifecycleHandler) *handler {
	if h == nil {
		return nil
	}
	return &handler{exec: h.Exec, http: h.HTTPGet, tcp: h.TCPSocket, sleep: h.Sleep}
}

func validateHandler(h *handler, grace *int64, p *field.Path) field.ErrorList {
	if h == nil {
		return nil
	}
	var errs field.ErrorList
	handlers := 0
	// one counts a handler; only the first of several is looked at.
	one := func(name string, check func(*field.Path) field.ErrorList) {
		if handlers++; handlers > 1 {
			errs = append(errs, field.Forbidden(p.Child(name), "may not specify more than 1 handler type"))
			return
		}
		errs = append(errs, check(p.Child(name))...)
	}
	if h.exec != nil {
		one("exec", h.validateExec)
	}
	if h.http != nil {
		one("httpGet", h.validateHTTP)
	}
	if h.tcp != nil {
		one("tcpSocket", func(p *field.Path) field.ErrorList { return portOrName(p.Child("port"), h.tcp.Port) })
	}
	if h.grpc != nil {
		one("grpc", h.validateGRPC)
	}
	if h.sleep != nil {
		one("sleep", func(p *field.Path) field.ErrorList { return validateSleep(h.sleep, grace, p) })
	}
	if handlers == 0 {
		errs = append(errs, field.Required(p, "must specify a handler type"))
	}
	return errs
}

func (h *handler) validateExec(p *field.Path) field.ErrorList {
	if len(h.exec.Command) == 0 {
		return field.ErrorList{field.Required(p.Child("command"), "")}
	}
	return nil
}

func (h *handler) validateHTTP(p *field.Path) field.ErrorList {
	errs := required(p.Child("path"), h.http.Path)
	errs = append(errs, portOrName(p.Child("port"), h.http.Port)...)
	errs = append(errs, oneOf(p.Child("scheme"), h.http.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)...)
	for i, header := range h.http.HTTPHeaders {
		errs = append(errs, invalid(p.Child("httpHeaders").Index(i).Child("name"), header.Name, validation.IsHTTPHeaderName(header.Name))...)
	}
	return errs
}

func (h *handler) validateGRPC(p *field.Path) field.ErrorList {
	return invalid(p.Child("port"), h.grpc.Port, validation.IsValidPortNum(int(h.grpc.Port)))
}

func validateSleep(s *corev1.SleepAction, grace *int64, p *field.Path) field.ErrorList {
	if grace == nil || s.Seconds >= 0 && s.Seconds <= *grace {
		return nil
	}
	return field.ErrorList{field.Invalid(p, s.Seconds, fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", *grace))}
}
