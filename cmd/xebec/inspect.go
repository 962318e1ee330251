package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	"github.com/xebec-mesh/xebec/dataplane/dns"
	"github.com/xebec-mesh/xebec/dataplane/intercept"
	"github.com/xebec-mesh/xebec/dataplane/network"
	"github.com/xebec-mesh/xebec/dataplane/service"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/pilot/describe"
)

// proxyKinds are what `xebec proxy config` shows, in this order.
var proxyKinds = []string{"listener", "route", "cluster", "endpoint"}

// serveMesh answers GET /mesh/proxies/{namespace}/{pod}/{kind} with what the pod's
// sidecar is given, as text.
func (c *cluster) serveMesh(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/mesh/proxies/"), "/")
	if !strings.HasPrefix(r.URL.Path, "/mesh/proxies/") || len(parts) != 3 || c.mesh.xds == nil {
		http.Error(w, "want /mesh/proxies/NAMESPACE/POD/KIND", http.StatusNotFound)
		return
	}
	pod, err := client.For(c.control.client, client.Pods).Get(r.Context(), parts[0], parts[1])
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	out, in, err := c.mesh.xds.Snapshots(pod)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	text, err := describe.Snapshots(parts[2], out, in)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, text)
}

func proxyCommand(s *settings) *cobra.Command {
	var namespace string
	cmd := &cobra.Command{Use: "proxy", Short: "Show what a pod's sidecar is given"}
	config := &cobra.Command{
		Use:   "config POD [" + strings.Join(proxyKinds, "|") + "]",
		Short: "Show a sidecar's configuration: what it means, not its protobuf",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			kinds := proxyKinds
			if len(args) == 2 {
				kind := strings.TrimSuffix(args[1], "s")
				if !slices.Contains(proxyKinds, kind) {
					return fmt.Errorf("%q: want one of %s", args[1], strings.Join(proxyKinds, ", "))
				}
				kinds = []string{kind}
			}
			for _, kind := range kinds {
				text, err := s.ask(cmd, "/mesh/proxies/"+namespace+"/"+args[0]+"/"+kind)
				if err != nil {
					return err
				}
				if len(kinds) > 1 {
					text = "# " + kind + "s\n" + text
				}
				fmt.Fprintln(cmd.OutOrStdout(), strings.TrimSpace(text))
			}
			return nil
		},
	}
	config.Flags().StringVarP(&namespace, "namespace", "n", "default", "the pod's namespace")
	cmd.AddCommand(config)
	return cmd
}

// ask gets a path of the API server as text.
func (s *settings) ask(cmd *cobra.Command, path string) (string, error) {
	config, err := s.rest()
	if err != nil {
		return "", err
	}
	h, err := rest.HTTPClientFor(config)
	if err != nil {
		return "", err
	}
	r, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, config.Host+path, nil)
	if err != nil {
		return "", err
	}
	answer, err := h.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 64<<20))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(strings.TrimSpace(string(body)))
	}
	return string(body), err
}

// debugCommand prints the kernel's tables from their pins, whether xebec runs or not.
func debugCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "debug", Short: "Show what this node's kernel and DNS have been given"}
	for _, c := range []struct {
		use, short string
		print      func(io.Writer) error
	}{
		{"services", "Services and their backends, as connect finds them", func(w io.Writer) error { return service.Print(w, s.pins("service")) }},
		{"intercept", "meshed pods and what goes through their sidecars", func(w io.Writer) error { return intercept.Print(w, s.pins("intercept")) }},
		{"network", "pods' addresses and translated connections", func(w io.Writer) error { return network.Print(w, s.network()) }},
		{"dns", "names that the cluster's DNS knows", func(w io.Writer) error { return printDNS(w, s.run("dns")) }},
	} {
		cmd.AddCommand(&cobra.Command{
			Use: c.use, Short: "Show " + c.short, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				err := c.print(cmd.OutOrStdout())
				if errors.Is(err, os.ErrNotExist) {
					return fmt.Errorf("nothing of %s is in the kernel: start a cluster with `xebec up`", s.Name)
				}
				return err
			},
		})
	}
	return cmd
}

func printDNS(w io.Writer, dir string) error {
	u, err := dns.ReadSnapshot(dir)
	if err != nil {
		return err
	}
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(u)
}
