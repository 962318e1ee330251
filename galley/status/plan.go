package status

import (
	"fmt"
	"slices"
	"strings"
	"time"

	analysis "istio.io/api/analysis/v1alpha1"
	meta "istio.io/api/meta/v1alpha1"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-mesh/xebec/galley/message"
)

// Conditions that the writer sets.
const (
	Reconciled = "Reconciled" // it means something, and what it refers to exists
	Programmed = "Programmed" // no proxy refuses what is made from it
)

// Rejection is a proxy's refusal of something made from an object.
type Rejection struct {
	Kind, Namespace, Name string // of the object
	Generation            int64  // of the version meant; an older one's is forgotten
	Proxy                 string // namespace/name of the pod; "" if it was found before anybody was sent it
	TypeURL, Resource     string // what was refused
	Detail                string // in the proxy's words
	Resolved              bool   // it is no longer so
}

// compute returns what the status should be, which is old itself if nothing differs.
func compute(old *meta.IstioStatus, generation int64, found message.List, refused []Rejection, now time.Time) *meta.IstioStatus {
	next := &meta.IstioStatus{ObservedGeneration: generation}
	for _, c := range old.GetConditions() {
		if c.GetType() != Reconciled && c.GetType() != Programmed {
			next.Conditions = append(next.Conditions, c)
		}
	}
	next.Conditions = append(next.Conditions,
		condition(old, generation, reconciled(found), now),
		condition(old, generation, programmed(refused), now))
	if len(refused) > 0 {
		found = append(found[:len(found):len(found)], message.Note(message.RejectedByProxy, "", "%s", refused[0].Detail))
	}
	for _, m := range found {
		next.ValidationMessages = append(next.ValidationMessages, &analysis.AnalysisMessageBase{
			Type:             &analysis.AnalysisMessageBase_Type{Name: m.Name, Code: m.Code},
			Level:            analysis.AnalysisMessageBase_Level(analysis.AnalysisMessageBase_Level_value[m.Severity.String()]),
			DocumentationUrl: m.URL,
		})
	}
	if proto.Equal(old, next) {
		return old
	}
	return next
}

type verdict struct {
	name, reason, text string
	ok                 bool
}

func reconciled(found message.List) verdict {
	if len(found) == 0 {
		return verdict{Reconciled, "Valid", "everything that it refers to exists", true}
	}
	var lines []string
	for _, m := range found {
		lines = append(lines, m.String())
	}
	worst := found[0]
	for _, m := range found {
		if m.Severity > worst.Severity {
			worst = m
		}
	}
	return verdict{Reconciled, worst.Name, strings.Join(lines, "\n"), worst.Severity != message.Error}
}

func programmed(refused []Rejection) verdict {
	if len(refused) == 0 {
		return verdict{Programmed, "Accepted", "no proxy refuses what is made from it", true}
	}
	var lines []string
	for _, r := range refused {
		by := "before it was sent"
		if r.Proxy != "" {
			by = "by " + r.Proxy
		}
		lines = append(lines, fmt.Sprintf("%s %s was refused %s, the last good one stays in force: %s",
			short(r.TypeURL), r.Resource, by, r.Detail))
	}
	return verdict{Programmed, message.RejectedByProxy.Name, strings.Join(lines, "\n"), false}
}

func short(typeURL string) string {
	return typeURL[strings.LastIndexByte(typeURL, '.')+1:]
}

// condition keeps the time of the last change.
func condition(old *meta.IstioStatus, generation int64, v verdict, now time.Time) *meta.IstioCondition {
	c := &meta.IstioCondition{
		Type: v.name, Status: "False", Reason: v.reason, Message: v.text, ObservedGeneration: generation,
		LastTransitionTime: timestamppb.New(now.Truncate(time.Second)),
	}
	if v.ok {
		c.Status = "True"
	}
	for _, o := range old.GetConditions() {
		if o.GetType() == c.Type && o.GetStatus() == c.Status && o.GetLastTransitionTime() != nil {
			c.LastTransitionTime = o.GetLastTransitionTime()
		}
	}
	return c
}

func sorted(rs []Rejection) []Rejection {
	slices.SortFunc(rs, func(a, b Rejection) int {
		return strings.Compare(a.TypeURL+a.Resource, b.TypeURL+b.Resource)
	})
	return rs
}
