package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
)

// kubectl runs the kubectl that is built in, for this cluster unless KUBECONFIG
// names another.
func kubectl(args []string) int {
	if os.Getenv("KUBECONFIG") == "" {
		s := &settings{State: defaultState()}
		if err := os.Setenv("KUBECONFIG", s.kubeconfig()); err != nil {
			return 1
		}
	}
	os.Args = args
	return cli.Run(cmd.NewDefaultKubectlCommand())
}
