// Command xebec-dns is cluster DNS. The node agent starts it and feeds it; it is a
// program of its own so that names resolve while the agent is away.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/xebec-mesh/xebec/dataplane/dns"
)

func main() {
	cfg := dns.ServeConfig{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	flag.StringVar(&cfg.Dir, "dir", "/var/lib/xebec/dns", "folder of snapshot and socket")
	flag.StringVar(&cfg.Domain, "domain", dns.DefaultDomain, "zone of the cluster")
	flag.StringVar(&cfg.Resolv, "resolv", "/etc/resolv.conf", "where upstream servers are named")
	flag.StringVar(&cfg.Fingerprint, "fingerprint", "", "what the starter knows this process by")
	flag.Func("listen", "address and port, any number of times", addTo(&cfg.Listen))
	flag.Func("upstream", "server for other names, any number of times; default: those of --resolv", addTo(&cfg.Upstream))
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := dns.Serve(ctx, cfg); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "xebec-dns:", err)
		os.Exit(1)
	}
}

func addTo(list *[]netip.AddrPort) func(string) error {
	return func(text string) error {
		a, err := netip.ParseAddrPort(text)
		if err != nil {
			return fmt.Errorf("%q: want ADDRESS:PORT", text)
		}
		*list = append(*list, a)
		return nil
	}
}
