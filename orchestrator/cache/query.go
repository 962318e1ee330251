package cache

import (
	"context"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// Query says what a list or a watch is about. The zero value is everything, as
// new as it is.
type Query struct {
	// Kind is how the objects are shown; nil is as they are stored.
	Kind      *resource.Kind
	Namespace string          // "" is all
	Labels    labels.Selector // nil is all
	Fields    fields.Selector // nil is all

	// Limit and Continue page a list; 0 is no limit.
	Limit    int64
	Continue string

	// RV and Match say how new the answer is.
	RV    uint64
	Match Match
}

// Match says what Query.RV means.
type Match uint8

const (
	Newest   Match = iota // nothing older than what was acknowledged before the call
	Any                   // what is there
	NotOlder              // RV or newer
	Exact                 // exactly RV
)

// tooNewWait is how long a read waits for a revision that the cache has not reached.
const tooNewWait = 3 * time.Second

// List answers a query from one state.
func (r *Resource) List(ctx context.Context, q Query) (*List, error) {
	if q.Kind == nil {
		q.Kind = r.Kind()
	}
	start, s, rv, err := r.at(ctx, &q)
	if err != nil {
		return nil, err
	}
	l := &List{Kind: q.Kind, RV: rv}
	last, more := r.fillList(l, s, &q, start)
	for i, o := range l.Items {
		if l.Items[i], err = o.As(q.Kind); err != nil {
			return nil, err
		}
	}
	if more {
		l.Continue = token{RV: rv, Start: last + "\x00", At: time.Now().Unix()}.String()
		r.keepPage(rv, s)
		if q.everything() {
			n := int64(s.objects.rank(prefixEnd(q.prefix())) - s.objects.rank(last+"\x00"))
			l.Remaining = &n
		}
	}
	return l, nil
}

// at finds the state that a query is about, and its revision.
func (r *Resource) at(ctx context.Context, q *Query) (start string, s *state, rv uint64, err error) {
	start = q.prefix()
	if q.Continue != "" {
		t, err := parseToken(q.Continue)
		if err != nil {
			return "", nil, 0, err
		}
		start = max(t.Start, start)
		if t.RV != anyRV {
			s := r.past(t)
			if s == nil {
				return "", nil, 0, errPageGone(t)
			}
			return start, s, t.RV, nil
		}
	}
	switch q.Match {
	case Newest:
		_, err = r.hub.Fresh(ctx)
	case NotOlder, Exact:
		err = r.WaitFor(ctx, q.RV)
	}
	if err != nil {
		return "", nil, 0, err
	}
	if q.Match == Exact {
		if s = r.past(token{RV: q.RV, At: time.Now().Unix()}); s == nil {
			return "", nil, 0, errListGone()
		}
		return start, s, q.RV, nil
	}
	s, rv = r.now()
	return start, s, rv, nil
}

// now is the newest state and its revision: everything up to the revision is in
// it, and nothing after it. The progress must be read first.
func (r *Resource) now() (*state, uint64) {
	p := r.hub.Progress()
	s := r.state.Load()
	return s, max(p, s.rv)
}

// WaitFor waits for a revision that a client has seen somewhere, not for ever.
func (r *Resource) WaitFor(ctx context.Context, rv uint64) error {
	if r.hub.Progress() >= rv {
		return nil
	}
	short, cancel := context.WithTimeout(ctx, tooNewWait)
	defer cancel()
	if err := r.hub.Wait(short, rv); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return errTooNew(rv, r.hub.Progress())
	}
	return nil
}

// fillList collects what q selects from start on. If the limit leaves something
// out, more is true and last the key of the last item.
func (r *Resource) fillList(l *List, s *state, q *Query, start string) (last string, more bool) {
	if key, ok := q.one(); ok {
		if o := s.objects.get(key); o != nil && key >= start && q.selects(o) {
			l.Items = append(l.Items, o)
		}
		return "", false
	}
	if q.Limit == 0 && start == q.prefix() {
		if found, ok := r.lookup(s, q); ok {
			for _, o := range found {
				if q.selects(o) {
					l.Items = append(l.Items, o)
				}
			}
			return "", false
		}
	}
	prefix, all := q.prefix(), q.everything()
	if all && q.Limit == 0 {
		l.Items = make([]*Object, 0, s.objects.rank(prefixEnd(prefix))-s.objects.rank(start))
	}
	s.objects.ascend(start, func(it item) bool {
		if !strings.HasPrefix(it.key, prefix) {
			return false
		}
		if !all && !q.selects(it.obj) {
			return true
		}
		if q.Limit > 0 && int64(len(l.Items)) == q.Limit {
			more = true
			return false
		}
		l.Items = append(l.Items, it.obj)
		last = it.key
		return true
	})
	return last, more
}

// prefix opens the keys of the query's namespace.
func (q *Query) prefix() string {
	if q.Namespace == "" {
		return ""
	}
	return q.Namespace + "/"
}

// prefixEnd is the first key after all that begin with prefix.
func prefixEnd(prefix string) string {
	if prefix == "" {
		return "\xff"
	}
	return prefix[:len(prefix)-1] + string(prefix[len(prefix)-1]+1)
}

// everything says that there is no selector.
func (q *Query) everything() bool {
	return matchesAll(q.Labels) && (q.Fields == nil || q.Fields.Empty())
}

// one is the key of the only object that can match, if the fields name it.
func (q *Query) one() (key string, ok bool) {
	if q.Fields == nil || q.Fields.Empty() {
		return "", false
	}
	name, ok := q.Fields.RequiresExactMatch("metadata.name")
	if !ok {
		return "", false
	}
	ns := q.Namespace
	if ns == "" {
		if v, ok := q.Fields.RequiresExactMatch("metadata.namespace"); ok {
			ns = v
		}
	}
	if ns == "" && q.Kind.Namespaced {
		return "", false
	}
	return KeyOf(ns, name), true
}

// selects says whether an object is in the query's namespace and matches.
func (q *Query) selects(o *Object) bool {
	if q.Namespace != "" && !strings.HasPrefix(o.Key, q.prefix()) {
		return false
	}
	if !matchesAll(q.Labels) && !q.Labels.Matches(o.Labels()) {
		return false
	}
	if q.Fields == nil || q.Fields.Empty() {
		return true
	}
	// A field is named as the kind that was asked for names it.
	face, err := o.As(q.Kind)
	return err == nil && q.Fields.Matches(face.Fields())
}
