package admission

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Config lists the plugins, each list in the order in which they run.
type Config struct {
	Mutators   []Mutator
	Mutating   []Plugin
	Validators []Validator
	Validating []Plugin
	Log        *slog.Logger // required
}

// Chain runs all plugins on a write. It may be used by many goroutines.
type Chain struct{ cfg Config }

// New checks cfg.
func New(cfg Config) (*Chain, error) {
	if cfg.Log == nil {
		return nil, fmt.Errorf("make admission chain: no log given")
	}
	return &Chain{cfg: cfg}, nil
}

// Mutate lets every plugin amend a.Object. Afterwards it is fully defaulted.
func (c *Chain) Mutate(ctx context.Context, a *Attributes) error {
	if err := c.mutators(ctx, a); err != nil {
		return err
	}
	changed, err := c.mutating(ctx, a)
	if err != nil || !changed {
		return err
	}
	return c.mutators(ctx, a)
}

// Validate asks every plugin whether the write may happen. It is called when
// the object is in its final form.
func (c *Chain) Validate(ctx context.Context, a *Attributes) error {
	for _, v := range c.cfg.Validators {
		if err := c.guard(v.Name(), func() error { return v.Validate(ctx, a) }); err != nil {
			return err
		}
	}
	return c.validating(ctx, a)
}

func (c *Chain) mutators(ctx context.Context, a *Attributes) error {
	for _, m := range c.cfg.Mutators {
		if err := c.guard(m.Name(), func() error { return m.Mutate(ctx, a) }); err != nil {
			return err
		}
	}
	return nil
}

// guard turns a plugin's panic, and any error that is not meant for clients, into
// an internal error that names the plugin.
func (c *Chain) guard(plugin string, call func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.cfg.Log.Error("admission plugin panicked", "plugin", plugin, "panic", p, "stack", string(debug.Stack()))
			err = apierrors.NewInternalError(fmt.Errorf("admission plugin %q panicked; see the server's log", plugin))
		}
	}()
	err = call()
	if err == nil || apierrors.ReasonForError(err) != "" {
		return err
	}
	return apierrors.NewInternalError(fmt.Errorf("admission plugin %q: %w", plugin, err))
}

// Builtins are the built-in mutators in the order in which they must run. The
// allocator of service addresses (package clusterip) comes after them.
func Builtins() []Mutator {
	return []Mutator{NamespaceLifecycle{}, ServiceAccount{}, DefaultTolerationSeconds{}, PodPriority{}}
}
