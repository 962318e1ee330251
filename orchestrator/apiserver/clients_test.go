package apiserver_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/xebec-mesh/xebec/orchestrator/apiserver"
	"github.com/xebec-mesh/xebec/orchestrator/apiserver/apitest"
	"github.com/xebec-mesh/xebec/orchestrator/client"
)

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{"k": "v"}}
}

// Stock informers of all three kinds fill, by streaming lists where the client
// asks for them, and follow.
func TestInformers(t *testing.T) {
	s := apitest.Start(t, nil)
	cfg := s.Config(t, "admin", "system:masters")
	c := kubernetes.NewForConfigOrDie(cfg)
	if _, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("before"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	gvr := corev1.SchemeGroupVersion.WithResource("configmaps")
	for name, informer := range map[string]cache.SharedIndexInformer{
		"typed":    informers.NewSharedInformerFactory(c, 0).Core().V1().ConfigMaps().Informer(),
		"dynamic":  dynamicinformer.NewDynamicSharedInformerFactory(dynamic.NewForConfigOrDie(cfg), 0).ForResource(gvr).Informer(),
		"metadata": metadatainformer.NewSharedInformerFactory(metadata.NewForConfigOrDie(cfg), 0).ForResource(gvr).Informer(),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			seen := make(chan string, 10)
			_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(o any) {
				if m, ok := o.(metav1.Object); ok {
					seen <- m.GetName()
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			go informer.RunWithContext(ctx)
			if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
				t.Fatal("the informer does not fill")
			}
			if _, err := c.CoreV1().ConfigMaps("default").Create(ctx, configMap("after-"+name), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			for found := 0; found < 2; {
				select {
				case got := <-seen:
					if got == "before" || got == "after-"+name {
						found++
					}
				case <-ctx.Done():
					t.Fatal("the informer does not follow")
				}
			}
		})
	}
}

// Pages belong to one revision; a token that is too old says so as clients expect.
func TestPaging(t *testing.T) {
	s := apitest.Start(t, nil)
	c := kubernetes.NewForConfigOrDie(s.Config(t, "admin", "system:masters"))
	maps := c.CoreV1().ConfigMaps("default")
	for i := range 7 {
		if _, err := maps.Create(t.Context(), configMap(fmt.Sprint("m", i)), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	opts := metav1.ListOptions{Limit: 3}
	for {
		l, err := maps.List(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range l.Items {
			names = append(names, m.Name)
		}
		if opts.Continue = l.Continue; opts.Continue == "" {
			break
		}
		if err := maps.Delete(t.Context(), "m6", metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
	}
	if strings.Join(names, " ") != "m0 m1 m2 m3 m4 m5 m6" {
		t.Errorf("pages of one revision hold %v", names)
	}
}

func TestWatchWebSocket(t *testing.T) {
	s := apitest.Start(t, nil)
	cfg := s.Config(t, "admin", "system:masters")
	c := kubernetes.NewForConfigOrDie(cfg)
	if _, err := c.CoreV1().ConfigMaps("default").Create(t.Context(), configMap("a"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	tlsConfig, err := rest.TLSConfigFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ws, err := websocket.NewConfig(strings.Replace(s.URL, "https", "wss", 1)+"/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0", s.URL)
	if err != nil {
		t.Fatal(err)
	}
	ws.TlsConfig = tlsConfig
	conn, err := websocket.DialConfig(ws)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var message string
	if err := websocket.Message.Receive(conn, &message); err != nil || !strings.HasPrefix(message, `{"type":"ADDED","object":{"kind":"ConfigMap"`) {
		t.Errorf("%q, %v", message, err)
	}
}

// A service account's token, asked for over the API, is good for the API.
func TestServiceAccountToken(t *testing.T) {
	s := apitest.Start(t, nil)
	c := kubernetes.NewForConfigOrDie(s.Config(t, "admin", "system:masters"))
	if _, err := c.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := c.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "robot", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	robot := kubernetes.NewForConfigOrDie(&rest.Config{Host: s.URL, BearerToken: r.Status.Token, TLSClientConfig: rest.TLSClientConfig{CAData: s.PKI.CAPEM}})
	who, err := robot.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil || who.Status.UserInfo.Username != "system:serviceaccount:default:robot" {
		t.Errorf("%+v, %v", who, err)
	}
	if _, err := robot.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("reads secrets: %v", err)
	}
}

func TestSubresources(t *testing.T) {
	_, cfg := withNode(t)
	c := kubernetes.NewForConfigOrDie(cfg)
	pods := c.CoreV1().Pods("default")
	if err := pods.Bind(t.Context(), &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "unbound"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if p, err := pods.Get(t.Context(), "unbound", metav1.GetOptions{}); err != nil || p.Spec.NodeName != "n" {
		t.Errorf("bound to %q, %v", p.Spec.NodeName, err)
	}
	if _, err := pods.Patch(t.Context(), "unbound", types.MergePatchType, []byte(`{"status":{"phase":"Running"}}`), metav1.PatchOptions{}, "status"); err != nil {
		t.Error(err)
	}
	if err := pods.EvictV1(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "unbound"}}); err != nil {
		t.Error(err)
	}
	if p, err := pods.Get(t.Context(), "unbound", metav1.GetOptions{}); err == nil && p.DeletionTimestamp == nil {
		t.Error("the evicted pod stays")
	}
	if _, err := c.CoreV1().Namespaces().Finalize(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "nope"}}, metav1.UpdateOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("finalize: %v", err)
	}
	if err := pods.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: labels.Everything().String()}); err != nil {
		t.Error(err)
	}
}

// A panic in a handler is one client's 500, and the server goes on.
func TestPanicIsAnswered(t *testing.T) {
	s := apitest.Start(t, func(c *apiserver.Config) {
		c.Extra = map[string]http.Handler{"/boom": http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") })}
	})
	h := s.HTTP(t, "admin", "system:masters")
	for range 2 {
		resp, err := h.Get(s.URL + "/boom")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusInternalServerError {
			t.Errorf("answered %s", resp.Status)
		}
	}
}

// At shutdown a watch ends in order, not by a broken connection.
func TestShutdownEndsWatches(t *testing.T) {
	var c *kubernetes.Clientset
	var events <-chan struct{}
	t.Run("server", func(t *testing.T) {
		s := apitest.Start(t, nil)
		c = kubernetes.NewForConfigOrDie(s.Config(t, "admin", "system:masters"))
		w, err := c.CoreV1().ConfigMaps("default").Watch(context.Background(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		events = ended
		go func() {
			for range w.ResultChan() {
			}
			close(ended)
		}()
		if _, err := client.For(s.Client, client.ConfigMaps).Create(context.Background(), configMap("x")); err != nil {
			t.Fatal(err)
		}
	})
	select {
	case <-events:
	case <-time.After(10 * time.Second):
		t.Error("the watch goes on after the server ended")
	}
}
