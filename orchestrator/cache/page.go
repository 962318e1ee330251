package cache

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// token is what continue carries: where the next page begins, and in which
// state. Clients must take it as opaque.
type token struct {
	RV    uint64 `json:"rv"`
	Start string `json:"start"`
	At    int64  `json:"at"` // seconds since 1970, when the first page was made
}

// anyRV in a token goes on in whatever state there is: what a client gets, with
// an error, when its own has been forgotten.
const anyRV = math.MaxUint64

const (
	maxToken  = 4096
	pagesMost = 256
)

func (t token) String() string {
	b, _ := json.Marshal(t) // of two numbers and a string: cannot fail
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseToken(s string) (token, error) {
	var t token
	if len(s) > maxToken {
		return t, errBadToken()
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil || json.Unmarshal(b, &t) != nil || t.RV == 0 || t.Start == "" {
		return t, errBadToken()
	}
	return t, nil
}

func errBadToken() error {
	return apierrors.NewBadRequest("continue key is not valid: it must be the value that the previous list returned")
}

// page is a state that the next page of a list goes on in.
type page struct {
	rv   uint64
	s    *state
	from time.Time
}

// keepPage remembers a state for the next page. States share nearly all of
// their memory.
func (r *Resource) keepPage(rv uint64, s *state) {
	r.pageMu.Lock()
	defer r.pageMu.Unlock()
	for _, p := range r.pages {
		if p.rv == rv {
			return
		}
	}
	if len(r.pages) == pagesMost {
		r.pages = append(r.pages[:0], r.pages[1:]...)
	}
	r.pages = append(r.pages, page{rv, s, time.Now()})
}

func (r *Resource) dropPages(now time.Time) {
	r.pageMu.Lock()
	defer r.pageMu.Unlock()
	n := 0
	for n < len(r.pages) && now.Sub(r.pages[n].from) > r.hub.cfg.PageAge {
		n++
	}
	r.pages = append([]page(nil), r.pages[n:]...)
}

// past is the state at a token's revision, or nil if it is forgotten.
func (r *Resource) past(t token) *state {
	if time.Since(time.Unix(t.At, 0)) > r.hub.cfg.PageAge {
		return nil
	}
	r.pageMu.Lock()
	for _, p := range r.pages {
		if p.rv == t.RV {
			r.pageMu.Unlock()
			return p.s
		}
	}
	r.pageMu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.hub.Progress()
	s := r.state.Load()
	switch {
	case t.RV < r.history.oldest || t.RV > max(p, s.rv):
		return nil
	case t.RV >= s.rv:
		return s
	}
	return r.history.rewind(s, t.RV)
}
