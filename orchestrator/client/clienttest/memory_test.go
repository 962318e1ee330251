package clienttest_test

import (
	"testing"

	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/clienttest"
	"github.com/xebec-mesh/xebec/orchestrator/client/memory"
)

func TestMemory(t *testing.T) {
	clienttest.Run(t, func(t *testing.T) client.Interface {
		c := memory.New(nil)
		t.Cleanup(c.Close)
		return c
	})
}
