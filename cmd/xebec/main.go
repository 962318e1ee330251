// Command xebec is a Kubernetes-compatible cluster with an Istio-compatible
// service mesh in one process.
//
// This package is the only place where every part is known: flags, wiring and
// lifecycle. `xebec up` is a whole cluster; the other commands look at it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	if filepath.Base(os.Args[0]) == "kubectl" { // by a link of that name
		os.Exit(kubectl(os.Args))
	}
	if len(os.Args) > 1 && os.Args[1] == "kubectl" {
		os.Exit(kubectl(os.Args[1:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "xebec:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	s := &settings{}
	cmd := &cobra.Command{
		Use:           "xebec",
		Short:         "A Kubernetes-compatible cluster with an Istio-compatible mesh in one process",
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return s.complete()
		},
	}
	s.persistentFlags(cmd.PersistentFlags())
	cmd.AddCommand(
		upCommand(s), downCommand(s), resetCommand(s), statusCommand(s),
		imageCommand(s), tracesCommand(s), dashboardCommand(s), proxyCommand(s), debugCommand(s),
		versionCommand(),
		&cobra.Command{Use: "kubectl", Short: "kubectl, for this cluster", DisableFlagParsing: true},
	)
	return cmd
}

// version is set when the binary is built.
var version = "v0.1.0-dev"

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), version) },
	}
}
