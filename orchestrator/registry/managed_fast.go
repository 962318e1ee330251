package registry

import (
	"errors"
	"reflect"
	"sort"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// tracker keeps managedFields for one kind and subresource on the common paths of
// create and update. What is rare it leaves to apimachinery's FieldManager, which
// defines what is right; errRare says so.
type tracker struct {
	kind        *resource.Kind
	subresource string
	shape       *shape
	resets      fieldpath.Filter // nil: the writer may set everything
	sets        *sets
}

var errRare = errors.New("left to the library")

// updatersMost is how many updaters an object remembers before the oldest are merged.
const updatersMost = 10

// never are the fields that nobody owns.
var never = fieldpath.NewSet(
	fieldpath.MakePathOrDie("apiVersion"),
	fieldpath.MakePathOrDie("kind"),
	fieldpath.MakePathOrDie("metadata"),
	fieldpath.MakePathOrDie("metadata", "name"),
	fieldpath.MakePathOrDie("metadata", "namespace"),
	fieldpath.MakePathOrDie("metadata", "creationTimestamp"),
	fieldpath.MakePathOrDie("metadata", "selfLink"),
	fieldpath.MakePathOrDie("metadata", "uid"),
	fieldpath.MakePathOrDie("metadata", "clusterName"),
	fieldpath.MakePathOrDie("metadata", "generation"),
	fieldpath.MakePathOrDie("metadata", "managedFields"),
	fieldpath.MakePathOrDie("metadata", "resourceVersion"),
)

// update is next's managedFields after manager has made it of old; old is an
// empty object on create. The two are not changed.
func (t *tracker) update(old, next resource.Object, manager string, now metav1.Time) ([]metav1.ManagedFieldsEntry, error) {
	entries, err := t.before(old, next)
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 && old.GetUID() != "" {
		return nil, nil // not tracked from its creation, so not at all
	}
	d := &difference{changed: fieldpath.NewSet(), removed: fieldpath.NewSet()}
	if err := d.compare(t.shape, someOf(reflect.ValueOf(old)), someOf(reflect.ValueOf(next))); err != nil {
		return nil, errRare
	}
	if t.resets != nil {
		d.changed, d.removed = t.resets.Filter(d.changed), t.resets.Filter(d.removed)
	}
	return t.merge(entries, d, manager, now)
}

// before is the entries that the write begins with.
func (t *tracker) before(old, next resource.Object) ([]metav1.ManagedFieldsEntry, error) {
	entries := old.GetManagedFields()
	if sent := next.GetManagedFields(); t.subresource == "" && sent != nil {
		if len(sent) == 0 || len(sent) == 1 && reflect.DeepEqual(sent[0], metav1.ManagedFieldsEntry{}) {
			return nil, errRare // a reset
		}
		if !sameEntries(sent, entries) {
			return nil, errRare
		}
	}
	version := t.kind.GroupVersion().String()
	updaters := 0
	for _, e := range entries {
		if e.APIVersion != version || e.FieldsType != "FieldsV1" || e.FieldsV1 == nil {
			return nil, errRare
		}
		if e.Operation == metav1.ManagedFieldsOperationUpdate {
			updaters++
		}
	}
	if updaters >= updatersMost {
		return nil, errRare
	}
	return entries, nil
}

func sameEntries(a, b []metav1.ManagedFieldsEntry) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := &a[i], &b[i]
		if x.Manager != y.Manager || x.Operation != y.Operation || x.Subresource != y.Subresource || x.APIVersion != y.APIVersion ||
			x.FieldsType != y.FieldsType || !x.Time.Equal(y.Time) || string(rawFields(*x)) != string(rawFields(*y)) {
			return false
		}
	}
	return true
}

// merge takes from everybody what has changed, and gives it to manager.
func (t *tracker) merge(entries []metav1.ManagedFieldsEntry, d *difference, manager string, now metav1.Time) ([]metav1.ManagedFieldsEntry, error) {
	mine := d.changed.Difference(never)
	out := make([]metav1.ManagedFieldsEntry, 0, len(entries)+1)
	claimed := mine.Empty()
	for _, e := range entries {
		set, err := t.sets.read(e.FieldsV1.Raw)
		if err != nil {
			return nil, errRare
		}
		own := !claimed && e.Manager == manager && e.Operation == metav1.ManagedFieldsOperationUpdate && e.Subresource == t.subresource
		left := set
		if touches(set, d.removed) || !(own && contains(set, mine)) && touches(set, d.changed) {
			left = set.Difference(d.changed).Difference(d.removed)
		}
		if own {
			claimed = true
			e.Time = &now
			if !contains(left, mine) {
				left = left.Union(mine)
			}
		}
		if left.Empty() {
			continue
		}
		if left != set {
			if err := t.setFields(&e, left); err != nil {
				return nil, errRare
			}
		}
		out = append(out, e)
	}
	if !claimed {
		e := metav1.ManagedFieldsEntry{
			Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, Subresource: t.subresource,
			APIVersion: t.kind.GroupVersion().String(), Time: &now, FieldsType: "FieldsV1",
		}
		if err := t.setFields(&e, mine); err != nil {
			return nil, errRare
		}
		out = append(out, e)
	}
	sort.SliceStable(out, func(i, j int) bool { return entryLess(&out[i], &out[j]) })
	return out, nil
}

func (t *tracker) setFields(e *metav1.ManagedFieldsEntry, set *fieldpath.Set) error {
	raw, err := t.sets.write(set)
	e.FieldsV1 = &metav1.FieldsV1{Raw: raw}
	return err
}

// touches says whether any path of few is in set.
func touches(set, few *fieldpath.Set) (hit bool) {
	few.Iterate(func(p fieldpath.Path) { hit = hit || set.Has(p) })
	return hit
}

// contains says whether all paths of few are in set.
func contains(set, few *fieldpath.Set) bool {
	all := true
	few.Iterate(func(p fieldpath.Path) { all = all && set.Has(p) })
	return all
}

// entryLess is the order in which entries are stored: by operation, time, name.
func entryLess(p, q *metav1.ManagedFieldsEntry) bool {
	if p.Operation != q.Operation {
		return p.Operation < q.Operation
	}
	if a, b := seconds(p.Time), seconds(q.Time); a != b {
		return a < b
	}
	if p.Manager != q.Manager {
		return p.Manager < q.Manager
	}
	if p.APIVersion != q.APIVersion {
		return p.APIVersion < q.APIVersion
	}
	return p.Subresource < q.Subresource
}

func seconds(t *metav1.Time) int64 {
	if t == nil {
		return 0
	}
	return t.Unix()
}
