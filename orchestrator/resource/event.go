package resource

import (
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Events are stored once, as core/v1, and served by two groups. They vanish
// after an hour.
const eventTTL = time.Hour

func eventKind() *Kind {
	return &Kind{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Event"),
		Resource:         "events",
		Singular:         "event",
		ShortNames:       []string{"ev"},
		Namespaced:       true,
		New:              func() Object { return &corev1.Event{} },
		NewList:          func() runtime.Object { return &corev1.EventList{} },
		CreateOnUpdate:   true,
		TTL:              eventTTL,
		ValidateCreate:   validateEvent,
		ValidateUpdate: func(o, _ Object) field.ErrorList {
			return validateEvent(o)
		},
		FieldNames: slices.Sorted(maps.Keys(eventFields(&corev1.Event{}))),
		Fields:     eventFields,
		Columns:    eventColumns,
		Row:        func(o Object, now time.Time) []any { return eventRow(o.(*corev1.Event), now) },
	}
}

// eventViewKind is events.k8s.io's face of the same events.
func eventViewKind(stored *Kind) *Kind {
	names := map[string]string{"reportingController": "reportingComponent"}
	for _, f := range []string{"kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"} {
		names["regarding."+f] = "involvedObject." + f
	}
	k := &Kind{
		GroupVersionKind: eventsv1.SchemeGroupVersion.WithKind("Event"),
		Resource:         "events",
		Singular:         "event",
		ShortNames:       []string{"ev"},
		Namespaced:       true,
		New:              func() Object { return &eventsv1.Event{} },
		NewList:          func() runtime.Object { return &eventsv1.EventList{} },
		CreateOnUpdate:   true,
		TTL:              eventTTL,
		View: &View{
			Of:         stored,
			To:         func(face Object) (Object, error) { return coreEvent(face.(*eventsv1.Event)), nil },
			From:       func(o Object) (Object, error) { return newEvent(o.(*corev1.Event)), nil },
			FieldNames: names,
			Validate:   validateNewEvent,
		},
		FieldNames: append(slices.Sorted(maps.Keys(names)), "reason", "type"),
		Fields: func(o Object) fields.Set {
			set := eventFields(coreEvent(o.(*eventsv1.Event)))
			for face, of := range names {
				set[face] = set[of]
			}
			return set
		},
		Columns: eventColumns,
		Row:     func(o Object, now time.Time) []any { return eventRow(coreEvent(o.(*eventsv1.Event)), now) },
	}
	return k
}

func coreEvent(e *eventsv1.Event) *corev1.Event {
	c := &corev1.Event{
		ObjectMeta: e.ObjectMeta, InvolvedObject: e.Regarding, Related: e.Related,
		Reason: e.Reason, Message: e.Note, Type: e.Type, Action: e.Action,
		Source: e.DeprecatedSource, FirstTimestamp: e.DeprecatedFirstTimestamp,
		LastTimestamp: e.DeprecatedLastTimestamp, Count: e.DeprecatedCount,
		EventTime: e.EventTime, ReportingController: e.ReportingController, ReportingInstance: e.ReportingInstance,
	}
	if e.Series != nil {
		c.Series = &corev1.EventSeries{Count: e.Series.Count, LastObservedTime: e.Series.LastObservedTime}
	}
	return c
}

func newEvent(c *corev1.Event) *eventsv1.Event {
	e := &eventsv1.Event{
		ObjectMeta: c.ObjectMeta, Regarding: c.InvolvedObject, Related: c.Related,
		Reason: c.Reason, Note: c.Message, Type: c.Type, Action: c.Action,
		DeprecatedSource: c.Source, DeprecatedFirstTimestamp: c.FirstTimestamp,
		DeprecatedLastTimestamp: c.LastTimestamp, DeprecatedCount: c.Count,
		EventTime: c.EventTime, ReportingController: c.ReportingController, ReportingInstance: c.ReportingInstance,
	}
	if c.Series != nil {
		e.Series = &eventsv1.EventSeries{Count: c.Series.Count, LastObservedTime: c.Series.LastObservedTime}
	}
	return e
}

func eventFields(o Object) fields.Set {
	e := o.(*corev1.Event)
	source := e.Source.Component
	if source == "" {
		source = e.ReportingController
	}
	s := make(fields.Set, 13)
	s["metadata.name"], s["metadata.namespace"] = e.Name, e.Namespace
	s["involvedObject.kind"] = e.InvolvedObject.Kind
	s["involvedObject.namespace"] = e.InvolvedObject.Namespace
	s["involvedObject.name"] = e.InvolvedObject.Name
	s["involvedObject.uid"] = string(e.InvolvedObject.UID)
	s["involvedObject.apiVersion"] = e.InvolvedObject.APIVersion
	s["involvedObject.resourceVersion"] = e.InvolvedObject.ResourceVersion
	s["involvedObject.fieldPath"] = e.InvolvedObject.FieldPath
	s["reason"], s["type"] = e.Reason, e.Type
	s["reportingComponent"], s["source"] = e.ReportingController, source
	return s
}

// validateEvent asks more of events that have an eventTime: the older sort has not.
func validateEvent(o Object) field.ErrorList {
	e := o.(*corev1.Event)
	var errs field.ErrorList
	about, path := e.InvolvedObject.Namespace, field.NewPath("involvedObject", "namespace")
	clusterScoped := about == "" && (e.Namespace == metav1.NamespaceDefault || e.Namespace == metav1.NamespaceSystem && !e.EventTime.IsZero())
	if about != e.Namespace && !clusterScoped {
		errs = append(errs, field.Invalid(path, about, "does not match event.namespace"))
	}
	if e.EventTime.IsZero() {
		return errs
	}
	if e.ReportingController == "" {
		errs = append(errs, field.Required(field.NewPath("reportingController"), ""))
	}
	errs = append(errs, invalid(field.NewPath("reportingController"), e.ReportingController, validation.IsQualifiedName(e.ReportingController))...)
	for _, f := range []struct {
		name, value string
		max         int
	}{{"reportingInstance", e.ReportingInstance, 128}, {"action", e.Action, 128}, {"reason", e.Reason, 128}} {
		errs = append(errs, required(field.NewPath(f.name), f.value)...)
		if len(f.value) > f.max {
			errs = append(errs, field.Invalid(field.NewPath(f.name), "", fmt.Sprintf("can have at most %d characters", f.max)))
		}
	}
	if len(e.Message) > 1024 {
		errs = append(errs, field.Invalid(field.NewPath("message"), "", "can have at most 1024 characters"))
	}
	return errs
}

// validateNewEvent is what only events.k8s.io asks.
func validateNewEvent(o Object) field.ErrorList {
	e := o.(*eventsv1.Event)
	var errs field.ErrorList
	if e.EventTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	if e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), "", fmt.Sprintf("has invalid value: %v", e.Type)))
	}
	if !e.DeprecatedFirstTimestamp.IsZero() || !e.DeprecatedLastTimestamp.IsZero() {
		errs = append(errs, field.Invalid(field.NewPath("deprecatedFirstTimestamp"), "", "needs to be unset"))
	}
	if e.DeprecatedCount != 0 {
		errs = append(errs, field.Invalid(field.NewPath("deprecatedCount"), "", "needs to be unset"))
	}
	return errs
}

var eventColumns = columns(
	col("Last Seen", "string", corev1.Event{}.SwaggerDoc()["lastTimestamp"]),
	col("Type", "string", corev1.Event{}.SwaggerDoc()["type"]),
	col("Reason", "string", corev1.Event{}.SwaggerDoc()["reason"]),
	col("Object", "string", corev1.Event{}.SwaggerDoc()["involvedObject"]),
	wide("Subobject", "string", corev1.Event{}.InvolvedObject.SwaggerDoc()["fieldPath"]),
	wide("Source", "string", corev1.Event{}.SwaggerDoc()["source"]),
	col("Message", "string", corev1.Event{}.SwaggerDoc()["message"]),
	wide("First Seen", "string", corev1.Event{}.SwaggerDoc()["firstTimestamp"]),
	wide("Count", "string", corev1.Event{}.SwaggerDoc()["count"]),
	wide("Name", "string", docName),
)

func eventRow(e *corev1.Event, now time.Time) []any {
	first := ageAt(e.FirstTimestamp.Time, now)
	if e.FirstTimestamp.IsZero() {
		first = ageAt(e.EventTime.Time, now)
	}
	last := ageAt(e.LastTimestamp.Time, now)
	if e.LastTimestamp.IsZero() {
		last = first
	}
	count := e.Count
	switch {
	case e.Series != nil:
		count = e.Series.Count
		last = ageAt(e.Series.LastObservedTime.Time, now)
	case count == 0:
		count = 1
	}
	object := e.InvolvedObject.Name
	if e.InvolvedObject.Kind != "" {
		object = fmt.Sprintf("%s/%s", lower(e.InvolvedObject.Kind), e.InvolvedObject.Name)
	}
	source := e.Source.Component
	if source == "" {
		source = e.ReportingController
	}
	host := e.Source.Host
	if host == "" {
		host = e.ReportingInstance
	}
	if host != "" {
		source += ", " + host
	}
	return []any{last, e.Type, e.Reason, object, e.InvolvedObject.FieldPath, source, trimmed(e.Message), first, int64(count), e.Name}
}

func ageAt(t, now time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(t))
}
