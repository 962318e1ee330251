package bootstrap_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/xebec-mesh/xebec/orchestrator/admission"
	"github.com/xebec-mesh/xebec/orchestrator/bootstrap"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/local"
	"github.com/xebec-mesh/xebec/orchestrator/registry"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
	"github.com/xebec-mesh/xebec/orchestrator/store"
)

// server is an API without HTTP, over a store in memory.
func server(b *testing.B) (c client.Interface, stop func()) {
	log := slog.New(slog.DiscardHandler)
	chain, err := admission.New(admission.Config{Mutators: admission.Builtins(), Log: log})
	if err != nil {
		b.Fatal(err)
	}
	reg, err := registry.New(registry.Config{Store: store.NewMemory(), Kinds: resource.Kinds(), Admission: chain, Log: log})
	if err != nil {
		b.Fatal(err)
	}
	l, err := local.New(local.Config{Registry: reg, Log: log})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- reg.Run(ctx) }()
	return l, func() {
		cancel()
		<-done
		l.Close()
	}
}

// BenchmarkEnsure is what the default objects cost at the first start and at
// every later one.
func BenchmarkEnsure(b *testing.B) {
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			c, stop := server(b)
			b.StartTimer()
			if err := bootstrap.Ensure(b.Context(), c, bootstrap.Objects(config)); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			stop()
			b.StartTimer()
		}
	})
	b.Run("warm", func(b *testing.B) {
		c, stop := server(b)
		defer stop()
		for b.Loop() {
			if err := bootstrap.Ensure(b.Context(), c, bootstrap.Objects(config)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
