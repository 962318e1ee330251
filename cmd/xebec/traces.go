package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/xebec-mesh/xebec/mixer/query"
)

func tracesCommand(s *settings) *cobra.Command {
	var (
		service     string
		limit       int
		since       time.Duration
		minDuration time.Duration
		failed      bool
	)
	cmd := &cobra.Command{
		Use:   "traces [ID]",
		Short: "List the latest traces, or show one as a tree",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.telemetry()
			if err != nil {
				return err
			}
			p := &query.Printer{Out: cmd.OutOrStdout()}
			if size, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ); err == nil {
				p.Width, p.Color = int(size.Col), term.IsTerminal(int(os.Stdout.Fd()))
			}
			if len(args) == 1 {
				t, err := c.Trace(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return p.Trace(t)
			}
			v := url.Values{"limit": {strconv.Itoa(limit)}, "since": {since.String()}}
			if service != "" {
				v.Set("service", service)
			}
			if minDuration > 0 {
				v.Set("minDuration", minDuration.String())
			}
			if failed {
				v.Set("error", "true")
			}
			list, err := c.Traces(cmd.Context(), v)
			if err != nil {
				return err
			}
			return p.List(list)
		},
	}
	f := cmd.Flags()
	f.StringVar(&service, "service", "", "only traces that this service takes part in")
	f.IntVar(&limit, "limit", 20, "how many")
	f.DurationVar(&since, "since", time.Hour, "how far back")
	f.DurationVar(&minDuration, "min-duration", 0, "only traces that took at least so long")
	f.BoolVar(&failed, "error", false, "only traces with an error")
	return cmd
}

// rest is the way to the cluster's API as its owner.
func (s *settings) rest() (*rest.Config, error) {
	if _, err := os.Stat(s.kubeconfig()); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no cluster at %s: start one with `xebec up`, or name its folder with --state", s.State)
	}
	return clientcmd.BuildConfigFromFlags("", s.kubeconfig())
}

// telemetry is a client of the query API.
func (s *settings) telemetry() (*query.Client, error) {
	config, err := s.rest()
	if err != nil {
		return nil, err
	}
	h, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	h.Timeout = 30 * time.Second
	return &query.Client{Base: config.Host, HTTP: h}, nil
}

func dashboardCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "dashboard", Short: "Print the address of the dashboard, with the token that opens it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s.running() == 0 {
				return fmt.Errorf("no cluster runs at %s: start one with `xebec up`", s.State)
			}
			address, err := os.ReadFile(s.dashboardFile())
			if errors.Is(err, os.ErrNotExist) {
				return errors.New("this cluster was started without a dashboard: --dashboard says where it listens")
			}
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), string(address))
			return nil
		},
	}
}

// dashboardFile holds the dashboard's address with its token, for the owner only.
func (s *settings) dashboardFile() string { return s.path("dashboard.url") }
