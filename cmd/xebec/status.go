package main

import (
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	corev1 "k8s.io/api/core/v1"
)

func statusCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Say whether the cluster runs, and how it is", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			pid := s.running()
			if pid == 0 {
				return fmt.Errorf("no cluster runs at %s: start one with `xebec up`", s.State)
			}
			config, err := s.rest()
			if err != nil {
				return err
			}
			api, err := kubernetes.NewForConfig(config)
			if err != nil {
				return err
			}
			nodes, err := api.CoreV1().Nodes().List(cmd.Context(), metav1.ListOptions{})
			if err != nil {
				return fmt.Errorf("process %d runs, but its API does not answer: %w (its log is %s)", pid, err, s.logFile())
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "process\t%d\nAPI\t%s\nkubeconfig\t%s\nlog\t%s\n", pid, config.Host, s.kubeconfig(), s.logFile())
			if address, err := os.ReadFile(s.dashboardFile()); err == nil {
				fmt.Fprintf(w, "dashboard\t%s\n", address)
			}
			for _, n := range nodes.Items {
				fmt.Fprintf(w, "node %s\t%s\n", n.Name, condition(&n))
			}
			return w.Flush()
		},
	}
}

// condition is a node's state in words.
func condition(n *corev1.Node) string {
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if c.Status == corev1.ConditionTrue {
			return "Ready"
		}
		return fmt.Sprintf("not Ready: %s", c.Message)
	}
	return "not Ready: it has not said so yet"
}
