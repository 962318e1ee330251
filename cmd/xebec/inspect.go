package main

import (
	"io"
	"net/http"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
)

// serveMesh answers questions about what sidecars are given.
func (c *cluster) serveMesh(w http.ResponseWriter, r *http.Request) {
	http.NotFound(w, r)
}

func proxyCommand(s *settings) *cobra.Command {
	return &cobra.Command{Use: "proxy", Short: "Show what a pod's sidecar is given"}
}

func debugCommand(s *settings) *cobra.Command {
	return &cobra.Command{Use: "debug", Short: "Show what is in the kernel's tables"}
}

var _ = io.Copy
var _ = rest.HTTPClientFor
