// Package registry is what a verb means: the API's semantics over the strategy
// of a kind, the admission plugins, the watch cache and the store.
//
//	in:   verbs on objects, by who is authenticated and authorized to do so
//	out:  cache.Objects as they are stored; errors of k8s.io/apimachinery/pkg/api/errors
//
// The HTTP server and the in-process client are both thin layers over it, so a
// controller inside the process meets exactly the rules that kubectl meets.
//
// Invariants: every write goes through admission and validation and carries
// managedFields; a write that changes nothing is not stored and keeps the
// resourceVersion; an update whose resourceVersion is not the newest is refused,
// and one without is retried on the newest.
package registry

import (
	"fmt"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/clock"

	"github.com/xebec-mesh/xebec/orchestrator/admission"
	"github.com/xebec-mesh/xebec/orchestrator/cache"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
	"github.com/xebec-mesh/xebec/orchestrator/store"
)

// Config says what a Registry works on.
type Config struct {
	Store     store.Store               // required
	Kinds     []*resource.Kind          // kinds served from the start; more come by AddKind
	Admission *admission.Chain          // nil admits everything
	Types     TypeConverters            // for server-side apply; nil: the built-in types of client-go
	Clock     clock.PassiveClock        // default: the machine's
	Cache     cache.Config              // budgets of the watch cache; Store, Log and Clock are filled in
	Log       *slog.Logger              // required
	Version   func(group string) string // reserved: storage version by group; nil: the kind's own
}

// Request says on what a verb works and who asks.
type Request struct {
	Kind        *resource.Kind
	Namespace   string
	Name        string
	Subresource string // "", "status", "scale", and the names of Kind.Parts and Kind.Actions
	User        user.Info

	DryRun       bool
	FieldManager string // writes: who is recorded in managedFields
	// FieldValidation is Ignore, Warn or Strict; it concerns patches here, since
	// whole objects have been decoded by the caller.
	FieldValidation string
	// Warn takes what the client should be told although the verb succeeds; may be nil.
	Warn func(text string)
}

// Patch is a change to an object.
type Patch struct {
	Type types.PatchType
	Data []byte // JSON; for apply also YAML
	// Force takes over fields that other managers own; apply only.
	Force bool
	// FieldValidation: see Request.
}

// defaultTimeout bounds a verb whose context has no deadline.
const defaultTimeout = 60 * time.Second

func (c *Config) check() error {
	if c.Store == nil {
		return fmt.Errorf("make registry: no store given")
	}
	if c.Log == nil {
		return fmt.Errorf("make registry: no log given")
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	return nil
}
