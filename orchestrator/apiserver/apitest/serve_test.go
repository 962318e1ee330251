package apitest_test

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/xebec-mesh/xebec/orchestrator/apiserver/apitest"
)

var serve = flag.Duration("serve", 0, "keep a server running for this long, to try clients on")

// TestServe serves people: go test -run Serve -v -args -serve 10m
func TestServe(t *testing.T) {
	s := apitest.Start(t, nil)
	if *serve > 0 {
		fmt.Println("export KUBECONFIG=" + s.Kubeconfig)
		time.Sleep(*serve)
	}
}
