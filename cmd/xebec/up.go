package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
)

func upCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a cluster on this machine",
		Long: `Start a whole cluster on this machine: API server, scheduler, controllers, node
agent, service mesh and telemetry. It runs until it is told to stop; containers,
Services and sidecars go on when it does. With --background it returns when the
node is Ready.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("up: root is needed, to run containers and to load eBPF programs")
			}
			if s.Background {
				return upInBackground(cmd.Context(), s, cmd.OutOrStdout())
			}
			return up(cmd.Context(), s, cmd.OutOrStdout())
		},
	}
	s.upFlags(cmd.Flags())
	return cmd
}

// up runs a cluster until ctx ends.
func up(ctx context.Context, s *settings, out io.Writer) (err error) {
	waiting := parent()
	if waiting != nil {
		out = waiting
	}
	defer func() {
		if waiting != nil && err != nil {
			fmt.Fprintln(waiting, "xebec:", err)
		}
	}()
	lock, err := s.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	log, err := s.logger()
	if err != nil {
		return err
	}
	ready := func() {}
	if waiting != nil {
		ready = func() {
			fmt.Fprintln(waiting, readyLine)
			waiting.Close()
			waiting = nil
		}
	}
	err = newCluster(s, log, newProgress(out)).run(ctx, ready)
	if ctx.Err() != nil {
		log.Info("stopped")
		return nil
	}
	return err
}

func (s *settings) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.LogLevel)); err != nil {
		return nil, fmt.Errorf("--log-level: %q: want debug, info, warn or error", s.LogLevel)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})), nil
}
