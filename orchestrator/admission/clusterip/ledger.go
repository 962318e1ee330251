package clusterip

import (
	"k8s.io/apimachinery/pkg/types"
)

// ledger says who holds what. It is not safe for concurrent use.
//
// A holding is pending from the moment that a write asks for it until that
// write has ended; then it is stored, or free again. What is stored is given
// back when the service is seen to be gone.
type ledger[K comparable] struct{ held map[K]holding }

type holding struct {
	key     types.NamespacedName
	uid     types.UID // "" while the write is under way
	pending any       // the write, nil when stored
	before  *holding  // what a pending holding takes over if it succeeds
	gone    types.UID // a service that was seen to give it back while this was pending
}

func newLedger[K comparable]() ledger[K] { return ledger[K]{held: map[K]holding{}} }

func (l *ledger[K]) free(k K) bool {
	_, taken := l.held[k]
	return !taken
}

// take reserves k for a write on behalf of the service key. A service that is
// stored under the same name gives way: the write can only succeed once it is gone,
// or is an update of it.
func (l *ledger[K]) take(k K, key types.NamespacedName, write any) bool {
	h, taken := l.held[k]
	switch {
	case !taken:
		l.held[k] = holding{key: key, pending: write}
	case h.pending == write:
	case h.pending == nil && h.key == key:
		l.held[k] = holding{key: key, pending: write, before: &h}
	default:
		return false
	}
	return true
}

// settle ends a write's reservation of k.
func (l *ledger[K]) settle(k K, write any, uid types.UID, stored bool) {
	h, taken := l.held[k]
	switch {
	case !taken || h.pending != write:
	case stored && h.gone == uid && uid != "":
		// The watch was quicker than the write: it is over already.
		delete(l.held, k)
	case stored:
		l.held[k] = holding{key: h.key, uid: uid}
	case h.before != nil:
		l.held[k] = *h.before
	default:
		delete(l.held, k)
	}
}

// observe records that a stored service holds k. It returns the other holder if
// there is one: two services share an address, which must never be.
func (l *ledger[K]) observe(k K, key types.NamespacedName, uid types.UID) (other types.NamespacedName, clash bool) {
	h, taken := l.held[k]
	switch {
	case !taken:
		l.held[k] = holding{key: key, uid: uid}
	case h.key == key && h.pending != nil:
		// The write that is under way, or an older service of that name.
	case h.key == key:
		l.held[k] = holding{key: key, uid: uid}
	default:
		return h.key, true
	}
	return other, false
}

// release gives k back, if this very service holds it.
func (l *ledger[K]) release(k K, key types.NamespacedName, uid types.UID) {
	h, taken := l.held[k]
	switch {
	case !taken || h.key != key:
	case h.pending != nil:
		// Either whoever takes over does so from nobody now, or what is being
		// written is gone before its writer says that it is there.
		h.gone = uid
		if h.before != nil && h.before.uid == uid {
			h.before = nil
		}
		l.held[k] = h
	case h.uid == uid || h.uid == "":
		delete(l.held, k)
	}
}
