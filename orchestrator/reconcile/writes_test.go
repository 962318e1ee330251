package reconcile_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/reconcile"
)

func object(name, version string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), ResourceVersion: version}}
}

// names prints a list, with ! for what is being deleted and the versions.
func names(list []*corev1.ConfigMap) string {
	var out []string
	for _, o := range list {
		s := o.Name + "@" + o.ResourceVersion
		if o.DeletionTimestamp != nil {
			s += "!"
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestWrites(t *testing.T) {
	owner := key("owner")
	w := reconcile.NewWrites()
	see := w.Keys(reconcile.Self)
	check := func(when, want string, shown ...*corev1.ConfigMap) {
		t.Helper()
		if got := names(reconcile.Over(w, owner, shown)); got != want {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	a, b := object("a", "5"), object("b", "6")

	w.Wrote(owner, a)
	w.Wrote(owner, b)
	check("created, not shown", "a@5 b@6")
	if got := reconcile.Over[*corev1.ConfigMap](w, key("other"), nil); len(got) > 0 {
		t.Errorf("another owner sees %s", names(got))
	}

	see(client.Event{Type: client.Added, Object: a})
	check("one shown", "a@5 b@6", a)

	w.Wrote(owner, object("a", "7"))
	check("updated, not shown", "a@7 b@6", a)

	w.Deleted(owner, "b")
	check("deleted before it was shown", "a@7", a)
	see(client.Event{Type: client.Added, Object: b})
	check("shown after it was deleted", "a@7 b@6!", a, b)

	see(client.Event{Type: client.Modified, Old: a, Object: object("a", "8")})
	gone := b.DeepCopy()
	gone.ResourceVersion = "9"
	see(client.Event{Type: client.Deleted, Object: gone})
	check("all shown", "a@8", object("a", "8"))
	if d := w.Settle(owner); d != 0 {
		t.Errorf("still pending: look again in %s", d)
	}

	w.Wrote(owner, object("c", "10"))
	see(client.Event{Type: client.Added, Object: object("d", "11")})
	check("gone before it was shown", "")
}
