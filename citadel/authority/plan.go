package authority

import (
	"fmt"
	"strings"
	"time"
)

// Stage is where a key slot stands.
//
//	prepared ──(propagated everywhere)──▶ active ──(another is active)──▶ retiring ──(nothing signed with it lives)──▶ gone
type Stage string

// The stages. All three are in the trust bundle; only the active one signs.
const (
	Prepared Stage = "prepared"
	Active   Stage = "active"
	Retiring Stage = "retiring"
)

// Policy is when key slots move on.
type Policy struct {
	Propagate time.Duration // from prepared to active: every verifier must have the new root by then
	LeafTTL   time.Duration // the longest life of anything signed now
	SelfMade  bool          // the authority makes its own roots, and a new one at half-life
}

// view is what the plan needs to know of a slot.
type view struct {
	ID                  string
	Stage               Stage
	Since               time.Time // when it came to its stage
	NotBefore, NotAfter time.Time
	Leaf                time.Duration // the longest life of anything that it signed
}

// Plan is what to do with the slots now. The zero Plan, but for Next, means converged.
type Plan struct {
	Prepare  bool   // make a new slot
	Activate string // slot that becomes active; the one that is retires
	Remove   []string
	Next     time.Time // when to look again; zero if nothing will change by time alone
}

// Empty reports whether there is nothing to do.
func (p Plan) Empty() bool { return !p.Prepare && p.Activate == "" && len(p.Remove) == 0 }

// String prints one line an action.
func (p Plan) String() string {
	var b strings.Builder
	if p.Prepare {
		b.WriteString("prepare\n")
	}
	if p.Activate != "" {
		fmt.Fprintf(&b, "activate %s\n", p.Activate)
	}
	for _, id := range p.Remove {
		fmt.Fprintf(&b, "remove %s\n", id)
	}
	return b.String()
}

// compute decides what to do now. wanted asks for a rotation regardless of age.
func compute(slots []view, policy Policy, wanted bool, now time.Time) Plan {
	var p Plan
	active, prepared := find(slots, Active), find(slots, Prepared)
	look := func(at time.Time) {
		if p.Next.IsZero() || at.Before(p.Next) {
			p.Next = at
		}
	}
	for _, s := range slots {
		if s.Stage != Retiring {
			continue
		}
		if gone := s.Since.Add(max(s.Leaf, policy.LeafTTL)); gone.After(now) {
			look(gone)
		} else {
			p.Remove = append(p.Remove, s.ID)
		}
	}
	switch {
	case active == nil && prepared == nil:
		p.Prepare = policy.SelfMade
	case active == nil:
		p.Activate = prepared.ID // nobody has trusted anything else yet
	case prepared != nil:
		if due := prepared.Since.Add(policy.Propagate); due.After(now) && active.NotAfter.After(now) {
			look(due)
		} else {
			p.Activate = prepared.ID
		}
	case policy.SelfMade:
		half := active.NotBefore.Add(active.NotAfter.Sub(active.NotBefore) / 2)
		if wanted || !half.After(now) {
			p.Prepare = true
		} else {
			look(half)
		}
	}
	return p
}

func find(slots []view, stage Stage) *view {
	for i := range slots {
		if slots[i].Stage == stage {
			return &slots[i]
		}
	}
	return nil
}
