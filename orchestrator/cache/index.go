package cache

import (
	"slices"
	"sort"
	"strings"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// An index is a tree with keys of value + "\x00" + object key. Its name is
// "field:" or "label:" and what it indexes. Indexes of fields are there from the
// start; those of labels come when selectors ask for them often enough that they
// pay, and only a few.
const (
	nodeNameIndex = "field:spec.nodeName"

	indexWorth = 500 // objects below which scanning all is as good
	indexAsked = 3   // selectors that must have wished for an index
	indexMost  = 8   // indexes for one resource
)

func firstIndexes(kind *resource.Kind) map[string]tree {
	if slices.Contains(kind.FieldNames, "spec.nodeName") {
		return map[string]tree{nodeNameIndex: {}}
	}
	return map[string]tree{}
}

// indexValue is an object's value under an index; ok is false if it has none.
func indexValue(kind *resource.Kind, name string, o *Object) (value string, ok bool) {
	if l, isLabel := strings.CutPrefix(name, "label:"); isLabel {
		value, ok = o.Obj.GetLabels()[l]
		return value, ok
	}
	return o.Fields()[strings.TrimPrefix(name, "field:")], true
}

func indexKey(value, key string) string { return value + "\x00" + key }

// reindex is the indexes after old has been replaced by obj; either may be nil.
func reindex(indexes map[string]tree, kind *resource.Kind, old, obj *Object) map[string]tree {
	if len(indexes) == 0 {
		return indexes
	}
	next := make(map[string]tree, len(indexes))
	for name, t := range indexes {
		var was, is string
		var had, has bool
		if old != nil {
			was, had = indexValue(kind, name, old)
		}
		if obj != nil {
			is, has = indexValue(kind, name, obj)
		}
		if had && (!has || was != is) {
			t, _ = t.del(indexKey(was, old.Key))
		}
		if has {
			t, _ = t.set(indexKey(is, obj.Key), obj)
		}
		next[name] = t
	}
	return next
}

func buildIndex(kind *resource.Kind, name string, items []item) tree {
	var out []item
	for _, it := range items {
		if v, ok := indexValue(kind, name, it.obj); ok {
			out = append(out, item{indexKey(v, it.key), it.obj})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].key < out[j].key })
	return buildTree(out)
}

// lookup finds, in order, a superset of what the selectors select by an index of
// s; ok is false if there is none that helps.
func (r *Resource) lookup(s *state, q *Query) (found []*Object, ok bool) {
	if len(s.indexes) == 0 && s.objects.len() < indexWorth {
		return nil, false
	}
	if q.Fields != nil {
		if v, exact := q.Fields.RequiresExactMatch("spec.nodeName"); exact {
			if t, has := s.indexes[nodeNameIndex]; has {
				return collect(t, []string{v}, q.Namespace), true
			}
		}
	}
	if q.Labels == nil || s.objects.len() < indexWorth {
		return nil, false
	}
	reqs, _ := q.Labels.Requirements()
	for _, req := range reqs {
		switch req.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
		default:
			continue
		}
		if t, has := s.indexes["label:"+req.Key()]; has {
			return collect(t, req.ValuesUnsorted(), q.Namespace), true
		}
		r.wish(req.Key())
	}
	return nil, false
}

// collect gathers the objects under values, sorted by key.
func collect(t tree, values []string, namespace string) []*Object {
	var out []*Object
	for _, v := range values {
		prefix := indexKey(v, "")
		if namespace != "" {
			prefix += namespace + "/"
		}
		t.ascend(prefix, func(it item) bool {
			if !strings.HasPrefix(it.key, prefix) {
				return false
			}
			out = append(out, it.obj)
			return true
		})
	}
	if len(values) > 1 {
		sort.Slice(out, func(i, j int) bool { return out[i].Key < out[j].Key })
	}
	return out
}

// wish counts that an index of a label would have helped, and makes it in time.
func (r *Resource) wish(label string) {
	c, _ := r.wanted.LoadOrStore(label, new(int32))
	if n := atomic.AddInt32(c.(*int32), 1); n < indexAsked {
		return
	}
	r.wanted.Delete(label)
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state.Load()
	if len(s.indexes) >= indexMost {
		return
	}
	name := "label:" + label
	next := &state{rv: s.rv, objects: s.objects, indexes: map[string]tree{}}
	for n, t := range s.indexes {
		next.indexes[n] = t
	}
	var items []item
	s.objects.ascend("", func(it item) bool { items = append(items, it); return true })
	next.indexes[name] = buildIndex(r.Kind(), name, items)
	r.state.Store(next)
}

// matchesAll is true for a selector that selects everything.
func matchesAll(l labels.Selector) bool { return l == nil || l.Empty() }
