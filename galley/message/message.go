// Package message is the catalogue of what can be wrong with mesh configuration.
//
//	in:   where, what was found, what is accepted
//	out:  Message: a stable code, a severity, and a text for the person who wrote it
//
// Codes and names are Istio's where Istio has one for the same thing, so that what
// people have learned or scripted stays true. A code never changes its meaning.
package message

import (
	"fmt"
	"strings"
)

// Severity says what a message means for the object.
type Severity uint8

const (
	Info    Severity = iota + 1
	Warning          // it takes effect, though perhaps not as meant
	Error            // it cannot take effect
)

func (s Severity) String() string { return [...]string{"", "INFO", "WARNING", "ERROR"}[s] }

// Kind is one entry of the catalogue.
type Kind struct {
	Code     string
	Name     string
	Severity Severity
	URL      string // where it is explained
}

func kind(code, name string, s Severity) Kind {
	return Kind{code, name, s, "https://istio.io/latest/docs/reference/config/analysis/" + strings.ToLower(code) + "/"}
}

// The catalogue.
var (
	SchemaValidationError             = kind("IST0106", "SchemaValidationError", Error)
	ReferencedResourceNotFound        = kind("IST0101", "ReferencedResourceNotFound", Error)
	ConflictingMeshGatewayHosts       = kind("IST0109", "ConflictingMeshGatewayVirtualServiceHosts", Error)
	NoMatchingWorkloadsFound          = kind("IST0127", "NoMatchingWorkloadsFound", Warning)
	VirtualServiceUnreachableRule     = kind("IST0130", "VirtualServiceUnreachableRule", Warning)
	VirtualServiceDestinationAmbigous = kind("IST0112", "VirtualServiceDestinationPortSelectorRequired", Error)
	ConflictingPolicies               = kind("IST0110", "ConflictingSidecarWorkloadSelectors", Error)
	Deprecated                        = kind("IST0002", "Deprecated", Warning)
	Ignored                           = Kind{"XBC0001", "FieldHasNoEffect", Warning, ""}
	RejectedByProxy                   = Kind{"XBC0101", "RejectedByProxy", Error, ""}
)

// Message is one finding about one object.
type Message struct {
	Kind
	Path string // of the field: spec.http[0].route[1].weight
	Text string // what was found and what is accepted
}

// New says that a field has a value that is not accepted, and what would be.
func New(k Kind, path string, value any, accepted string, args ...any) Message {
	return Message{k, path, fmt.Sprintf("%s: ", show(value)) + fmt.Sprintf(accepted, args...)}
}

// Note says something about a field without a value.
func Note(k Kind, path, text string, args ...any) Message {
	return Message{k, path, fmt.Sprintf(text, args...)}
}

// String is path: value: what is accepted.
func (m Message) String() string {
	if m.Path == "" {
		return m.Text
	}
	return m.Path + ": " + m.Text
}

func show(value any) string {
	switch v := value.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case fmt.Stringer:
		return v.String()
	}
	return fmt.Sprint(value)
}

// List is several findings.
type List []Message

// Errors are those that keep the object from taking effect.
func (l List) Errors() List { return l.of(func(m Message) bool { return m.Severity == Error }) }

// Warnings are the others.
func (l List) Warnings() List { return l.of(func(m Message) bool { return m.Severity != Error }) }

func (l List) of(keep func(Message) bool) List {
	var out List
	for _, m := range l {
		if keep(m) {
			out = append(out, m)
		}
	}
	return out
}

func (l List) String() string {
	var lines []string
	for _, m := range l {
		lines = append(lines, m.String())
	}
	return strings.Join(lines, "\n")
}
