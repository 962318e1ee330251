package reconcile

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/client"
)

const (
	seriesEnds   = 6 * time.Minute  // an event that has not recurred for this long starts anew
	seriesFlush  = 10 * time.Second // how often a recurring event's count is written
	objectBurst  = 25               // events about one object before they are thinned out
	objectRefill = 30 * time.Second // for each further event about it
	noteMax      = 1024             // bytes, the API's limit
)

// RecorderConfig says whose events a Recorder writes.
type RecorderConfig struct {
	Client     client.Interface
	Controller string // reportingController, such as "deployment-controller"
	Instance   string // reportingInstance, such as the node's name; default Controller
	Log        *slog.Logger
}

// Recorder writes events.k8s.io/v1 Events; kubectl describe reads the same objects
// as core/v1.
//
// Event never blocks and never fails: what cannot be written is dropped. The same
// event about the same object becomes a series with a count, and an object that
// causes many different ones is limited to a trickle.
type Recorder struct {
	cfg    RecorderConfig
	events client.Typed[*eventsv1.Event]
	in     chan occurrence
	named  int64 // nanoseconds in the last event's name; owned by Run
}

type occurrence struct {
	regarding corev1.ObjectReference
	related   *corev1.ObjectReference
	kind      string
	reason    string
	action    string
	note      string
	at        time.Time
}

// identity is what makes two occurrences the same event.
type identity struct {
	regarding, related         corev1.ObjectReference
	kind, reason, action, note string
}

// series is an event that was written and may recur.
type series struct {
	namespace, name string
	count           int32
	last            time.Time
	written         int32 // count that the API server knows
}

// allowance is an object's token bucket.
type allowance struct {
	tokens float64
	at     time.Time
}

// NewRecorder checks the configuration. Nothing is written before Run.
func NewRecorder(cfg RecorderConfig) (*Recorder, error) {
	if cfg.Client == nil || cfg.Controller == "" {
		return nil, fmt.Errorf("recorder %q: client and controller are required", cfg.Controller)
	}
	if cfg.Instance == "" {
		cfg.Instance = cfg.Controller
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Recorder{cfg: cfg, events: client.For(cfg.Client, client.Events), in: make(chan occurrence, 1024)}, nil
}

// Event records that something happened to an object. kind is corev1.EventTypeNormal
// or EventTypeWarning; reason is in UpperCamelCase; action says what was attempted.
// A nil Recorder records nothing.
func (r *Recorder) Event(regarding client.Object, kind, reason, action, format string, args ...any) {
	if r != nil {
		r.EventFor(Reference(regarding), nil, kind, reason, action, format, args...)
	}
}

// EventFor is Event about a reference, such as one container of a pod by its
// fieldPath, and optionally about a second object.
func (r *Recorder) EventFor(regarding corev1.ObjectReference, related *corev1.ObjectReference, kind, reason, action, format string, args ...any) {
	if r == nil {
		return
	}
	note := format
	if len(args) > 0 {
		note = fmt.Sprintf(format, args...)
	}
	if len(note) > noteMax {
		note = note[:noteMax-3] + "..."
	}
	regarding.ResourceVersion = ""
	select {
	case r.in <- occurrence{regarding, related, kind, reason, action, note, time.Now()}:
	default:
	}
}

// Run writes events until ctx ends. It is the only owner of the series.
func (r *Recorder) Run(ctx context.Context) error {
	known := map[identity]*series{}
	objects := map[corev1.ObjectReference]*allowance{}
	flush := time.NewTicker(seriesFlush)
	defer flush.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case o := <-r.in:
			r.record(ctx, known, objects, o)
		case now := <-flush.C:
			r.flush(ctx, known, now)
			for ref, a := range objects {
				if a.refill(now) >= objectBurst {
					delete(objects, ref)
				}
			}
		}
	}
}

func (r *Recorder) record(ctx context.Context, known map[identity]*series, objects map[corev1.ObjectReference]*allowance, o occurrence) {
	id := identity{regarding: o.regarding, kind: o.kind, reason: o.reason, action: o.action, note: o.note}
	if o.related != nil {
		id.related = *o.related
	}
	if s := known[id]; s != nil && o.at.Sub(s.last) < seriesEnds {
		s.count++
		s.last = o.at
		if s.count == 2 { // show at once that it recurs; later counts are batched
			r.writeSeries(ctx, s)
		}
		return
	}
	a := objects[o.regarding]
	if a == nil {
		a = &allowance{tokens: objectBurst, at: o.at}
		objects[o.regarding] = a
	}
	if a.refill(o.at) < 1 {
		return
	}
	a.tokens--
	ev := r.event(o)
	if _, err := r.events.Create(ctx, ev); err != nil {
		if ctx.Err() == nil && !apierrors.IsForbidden(err) { // a namespace that is being deleted takes no events
			r.cfg.Log.Info("create event", "object", o.regarding.Kind+" "+o.regarding.Namespace+"/"+o.regarding.Name, "reason", o.reason, "err", err)
		}
		return
	}
	known[id] = &series{namespace: ev.Namespace, name: ev.Name, count: 1, written: 1, last: o.at}
}

func (r *Recorder) event(o occurrence) *eventsv1.Event {
	ns := o.regarding.Namespace
	if ns == "" {
		ns = metav1.NamespaceDefault
	}
	r.named = max(r.named+1, o.at.UnixNano()) // two events of one instant are two
	return &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: fmt.Sprintf("%s.%x", o.regarding.Name, r.named)},
		EventTime:  metav1.NewMicroTime(o.at),
		Regarding:  o.regarding, Related: o.related,
		Type: o.kind, Reason: o.reason, Action: o.action, Note: o.note,
		ReportingController: r.cfg.Controller, ReportingInstance: r.cfg.Instance,
	}
}

func (r *Recorder) flush(ctx context.Context, known map[identity]*series, now time.Time) {
	for id, s := range known {
		if s.count > s.written {
			r.writeSeries(ctx, s)
		}
		if now.Sub(s.last) >= seriesEnds {
			delete(known, id)
		}
	}
}

func (r *Recorder) writeSeries(ctx context.Context, s *series) {
	ev, err := r.events.Get(ctx, s.namespace, s.name)
	if err == nil {
		ev = ev.DeepCopy()
		ev.Series = &eventsv1.EventSeries{Count: s.count, LastObservedTime: metav1.NewMicroTime(s.last)}
		_, err = r.events.Update(ctx, ev)
	}
	if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) {
		r.cfg.Log.Info("update event", "event", s.namespace+"/"+s.name, "err", err)
		return
	}
	s.written = s.count
}

func (a *allowance) refill(now time.Time) float64 {
	a.tokens = min(objectBurst, a.tokens+now.Sub(a.at).Seconds()/objectRefill.Seconds())
	a.at = now
	return a.tokens
}

// Reference names an object in an event or an owner reference.
func Reference(o client.Object) corev1.ObjectReference {
	gvk := o.GetObjectKind().GroupVersionKind()
	if gvk.Empty() {
		if kinds, _, err := client.Scheme().ObjectKinds(o); err == nil && len(kinds) > 0 {
			gvk = kinds[0]
		}
	}
	return corev1.ObjectReference{
		APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind,
		Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(),
		ResourceVersion: o.GetResourceVersion(),
	}
}
