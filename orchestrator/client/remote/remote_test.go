package remote_test

import (
	"log/slog"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xebec-mesh/xebec/orchestrator/apiserver/apitest"
	"github.com/xebec-mesh/xebec/orchestrator/client"
	"github.com/xebec-mesh/xebec/orchestrator/client/clienttest"
	"github.com/xebec-mesh/xebec/orchestrator/client/remote"
)

// TestClient runs the suite against a whole API server over TLS.
func TestClient(t *testing.T) {
	clienttest.Run(t, func(t *testing.T) client.Interface {
		server := apitest.Start(t, nil)
		c, err := remote.New(remote.Config{REST: server.Config(t, "admin", "system:masters"), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		define(t, server, c)
		// Pods need it, and no controller runs here that would make it.
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}}
		if _, err := client.For(c, client.ServiceAccounts).Create(t.Context(), account); err != nil {
			t.Fatal(err)
		}
		return c
	})
}

// define makes VirtualServices served, with a schema that knows nothing.
func define(t *testing.T, server *apitest.Server, c client.Interface) {
	r, yes := client.VirtualServices.Resource, true
	crd := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: r.Resource + "." + r.Group},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: r.Group,
			Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: r.Resource, Kind: r.Kind, Singular: "virtualservice", ListKind: r.Kind + "List"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: r.Version, Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &yes}},
			}},
		},
	}
	if _, err := client.For(c, client.CustomResourceDefinitions).Create(t.Context(), crd); err != nil {
		t.Fatal(err)
	}
	established := make(chan struct{}, 100)
	view := c.Informer(client.CustomResourceDefinitions.Resource, client.ListOptions{})
	defer view.Subscribe(func(e client.Event) {
		if e.Type == client.Synced {
			return
		}
		for _, cond := range e.Object.(*apiextensionsv1.CustomResourceDefinition).Status.Conditions {
			if cond.Type == apiextensionsv1.Established && cond.Status == apiextensionsv1.ConditionTrue {
				established <- struct{}{}
			}
		}
	})()
	select {
	case <-established:
	case <-t.Context().Done():
		t.Fatal("the definition was not established")
	}
}
