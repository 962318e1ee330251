package apiserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/proxy"
	streamproxy "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/xebec-mesh/xebec/orchestrator/registry"
	"github.com/xebec-mesh/xebec/orchestrator/resource"
)

// connectKinds are the subresources that are a connection or an answer rather
// than an object, by group/resource, as discovery shows them.
var connectKinds = map[string][]connectKind{
	"/pods": {
		{"attach", coreKind("PodAttachOptions"), metav1.Verbs{"create", "get"}},
		{"exec", coreKind("PodExecOptions"), metav1.Verbs{"create", "get"}},
		{"log", coreKind("Pod"), metav1.Verbs{"get"}},
		{"portforward", coreKind("PodPortForwardOptions"), metav1.Verbs{"create", "get"}},
		{"proxy", coreKind("PodProxyOptions"), proxyVerbs},
	},
	"/services":        {{"proxy", coreKind("ServiceProxyOptions"), proxyVerbs}},
	"/nodes":           {{"proxy", coreKind("NodeProxyOptions"), proxyVerbs}},
	"/serviceaccounts": {{"token", schema.GroupVersionKind{Group: "authentication.k8s.io", Version: "v1", Kind: "TokenRequest"}, verbsCreate}},
}

type connectKind struct {
	name  string
	gvk   schema.GroupVersionKind
	verbs metav1.Verbs
}

var proxyVerbs = metav1.Verbs{"create", "delete", "get", "patch", "update"}

func coreKind(kind string) schema.GroupVersionKind { return corev1.SchemeGroupVersion.WithKind(kind) }

// connectOf finds the handler of such a subresource. It is a function because the
// handlers reach back to whoever looks them up.
func connectOf(group, resource, subresource string) func(*call) {
	if group != "" {
		return nil
	}
	switch resource + "/" + subresource {
	case "pods/log":
		return (*call).podLog
	case "pods/exec":
		return func(c *call) { c.podStream("exec") }
	case "pods/attach":
		return func(c *call) { c.podStream("attach") }
	case "pods/portforward":
		return func(c *call) { c.podStream("portForward") }
	case "pods/proxy":
		return (*call).podProxy
	case "services/proxy":
		return (*call).serviceProxy
	case "nodes/proxy":
		return (*call).nodeProxy
	case "serviceaccounts/token":
		return (*call).token
	}
	return nil
}

// nodeProxy is the way to the node agents.
type nodeProxy struct {
	transport *http.Transport // to agents, with the server's own certificate
	plain     *http.Transport // to pods and Services, which are nobody's in particular
}

func newNodeProxy(config *tls.Config) *nodeProxy {
	dial := (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	return &nodeProxy{
		transport: &http.Transport{TLSClientConfig: config, DialContext: dial, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute},
		plain:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DialContext: dial, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute}, //nolint:gosec // https:<pod> is served by the pod's own certificate, as in Kubernetes
	}
}

// read fetches what a connection goes to.
func read[T resource.Object](c *call, kind string, namespace, name string) (T, error) {
	var none T
	k := c.s.registry.Kind(corev1.SchemeGroupVersion.WithResource(kind))
	if k == nil {
		return none, errNotFound(&c.req)
	}
	o, err := c.s.registry.Get(c.r.Context(), registry.Request{Kind: k, Namespace: namespace, Name: name, User: c.user}, metav1.GetOptions{})
	if err != nil {
		return none, err
	}
	obj, ok := o.Obj.(T)
	if !ok {
		return none, fmt.Errorf("%s %s is a %T", kind, name, o.Obj)
	}
	return obj, nil
}

// agent is the base URL of the node agent that runs a pod.
func (c *call) agent(node string) (*url.URL, error) {
	n, err := read[*corev1.Node](c, "nodes", "", node)
	if err != nil {
		return nil, err
	}
	port := int(n.Status.DaemonEndpoints.KubeletEndpoint.Port)
	if port == 0 {
		port = 10250
	}
	for _, want := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP, corev1.NodeHostName} {
		for _, a := range n.Status.Addresses {
			if a.Type == want {
				return &url.URL{Scheme: "https", Host: net.JoinHostPort(a.Address, strconv.Itoa(port))}, nil
			}
		}
	}
	return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("node %q has no address yet", node))
}

// podOnNode fetches the call's pod, which must be bound.
func (c *call) podOnNode() (*corev1.Pod, *url.URL, error) {
	pod, err := read[*corev1.Pod](c, "pods", c.req.Namespace, c.req.Name)
	if err != nil {
		return nil, nil, err
	}
	if pod.Spec.NodeName == "" {
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", pod.Name))
	}
	location, err := c.agent(pod.Spec.NodeName)
	return pod, location, err
}

// container picks the container that a request means.
func container(pod *corev1.Pod, name string) (string, error) {
	if name == "" {
		if len(pod.Spec.Containers) == 1 {
			return pod.Spec.Containers[0].Name, nil
		}
		text := fmt.Sprintf("a container name must be specified for pod %s, choose one of: %v", pod.Name, names(pod.Spec.Containers))
		if len(pod.Spec.InitContainers) > 0 {
			text += fmt.Sprintf(" or one of the init containers: %v", names(pod.Spec.InitContainers))
		}
		return "", apierrors.NewBadRequest(text)
	}
	known := append(names(pod.Spec.Containers), names(pod.Spec.InitContainers)...)
	for _, e := range pod.Spec.EphemeralContainers {
		known = append(known, e.Name)
	}
	if !slices.Contains(known, name) {
		return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
	}
	return name, nil
}

func names(list []corev1.Container) []string {
	out := make([]string, 0, len(list))
	for _, c := range list {
		out = append(out, c.Name)
	}
	return out
}

// podLog streams a container's log from its node.
func (c *call) podLog() {
	if c.req.Verb != "get" {
		c.fail(errMethod(&c.req, c.req.Verb))
		return
	}
	pod, location, err := c.podOnNode()
	if err != nil {
		c.fail(err)
		return
	}
	if err := checkLogOptions(c.query); err != nil {
		c.fail(err)
		return
	}
	name, err := container(pod, c.query.Get("container"))
	if err != nil {
		c.fail(err)
		return
	}
	location.Path = fmt.Sprintf("/containerLogs/%s/%s/%s", pod.Namespace, pod.Name, name)
	query := url.Values{}
	for _, key := range []string{"follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"} {
		if v := c.query.Get(key); v != "" {
			query.Set(key, v)
		}
	}
	location.RawQuery = query.Encode()
	c.proxyTo(location, c.s.nodes.transport, false)
}

// checkLogOptions refuses what the agent could not read, in upstream's words.
func checkLogOptions(query url.Values) error {
	for field, least := range map[string]int64{"tailLines": 0, "limitBytes": 1, "sinceSeconds": 1} {
		value := query.Get(field)
		if value == "" {
			continue
		}
		n, err := strconv.ParseInt(value, 10, 64)
		switch {
		case err != nil:
			return apierrors.NewBadRequest(fmt.Sprintf("%s: Invalid value: %q: must be a number", field, value))
		case n < least && least == 0:
			return apierrors.NewBadRequest(fmt.Sprintf("%s: Invalid value: %d: must be greater than or equal to 0", field, n))
		case n < least:
			return apierrors.NewBadRequest(fmt.Sprintf("%s: Invalid value: %d: must be greater than 0", field, n))
		}
	}
	if query.Get("sinceSeconds") != "" && query.Get("sinceTime") != "" {
		return apierrors.NewBadRequest("at most one of `sinceTime` or `sinceSeconds` may be specified")
	}
	return nil
}

// podStream hands an upgraded connection (SPDY or WebSocket) to the pod's node.
func (c *call) podStream(what string) {
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodPost {
		c.fail(errMethod(&c.req, c.req.Verb))
		return
	}
	pod, location, err := c.podOnNode()
	if err != nil {
		c.fail(err)
		return
	}
	if what == "portForward" {
		location.Path = fmt.Sprintf("/portForward/%s/%s", pod.Namespace, pod.Name)
		if ports, ok := c.query["ports"]; ok { // WebSocket clients name them here
			location.RawQuery = url.Values{"port": ports}.Encode()
		}
		c.proxyTo(location, c.s.nodes.transport, true, tunnel)
		return
	}
	name, err := container(pod, c.query.Get("container"))
	if err != nil {
		c.fail(err)
		return
	}
	location.Path = fmt.Sprintf("/%s/%s/%s/%s", what, pod.Namespace, pod.Name, name)
	location.RawQuery = streamQuery(c.query).Encode()
	c.proxyTo(location, c.s.nodes.transport, true, c.translate(location))
}

// streamQuery is the query as the agent knows it: stdin=true becomes input=1.
func streamQuery(from url.Values) url.Values {
	to := url.Values{}
	for api, agent := range map[string]string{"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"} {
		if v, err := strconv.ParseBool(from.Get(api)); err == nil && v {
			to.Set(agent, "1")
		}
	}
	to["command"] = from["command"]
	return to
}

// podProxy passes a request on to a port of a pod: [https:]name[:port].
func (c *call) podProxy() {
	scheme, name, port, err := splitTarget(c.req.Name)
	if err != nil {
		c.fail(err)
		return
	}
	pod, err := read[*corev1.Pod](c, "pods", c.req.Namespace, name)
	if err != nil {
		c.fail(err)
		return
	}
	if port == "" {
		port = firstPort(pod)
	} else if number := namedPort(pod, port); number != "" {
		port = number
	}
	if pod.Status.PodIP == "" {
		c.fail(apierrors.NewBadRequest("address not allowed: the pod has no address yet"))
		return
	}
	c.passOn(scheme, pod.Status.PodIP, port)
}

func firstPort(pod *corev1.Pod) string {
	for _, c := range pod.Spec.Containers {
		if len(c.Ports) > 0 {
			return strconv.Itoa(int(c.Ports[0].ContainerPort))
		}
	}
	return "80"
}

func namedPort(pod *corev1.Pod, name string) string {
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == name {
				return strconv.Itoa(int(p.ContainerPort))
			}
		}
	}
	return ""
}

// serviceProxy passes a request on to a Service: [https:]name[:port name or number].
func (c *call) serviceProxy() {
	scheme, name, port, err := splitTarget(c.req.Name)
	if err != nil {
		c.fail(err)
		return
	}
	host, number, err := c.endpointOf(name, port)
	if err != nil {
		c.fail(err)
		return
	}
	c.passOn(scheme, host, number)
}

// endpointOf picks an endpoint of a Service's port: the server need not reach
// Service addresses.
func (c *call) endpointOf(name, port string) (string, string, error) {
	svc, err := read[*corev1.Service](c, "services", c.req.Namespace, name)
	if err != nil {
		return "", "", err
	}
	if port == "" && len(svc.Spec.Ports) == 1 {
		port = svc.Spec.Ports[0].Name
	}
	for _, p := range svc.Spec.Ports {
		if strconv.Itoa(int(p.Port)) == port {
			port = p.Name
			break
		}
	}
	endpoints, err := read[*corev1.Endpoints](c, "endpoints", c.req.Namespace, name)
	if err != nil {
		return "", "", err
	}
	for _, subset := range endpoints.Subsets {
		for _, p := range subset.Ports {
			if p.Name == port && len(subset.Addresses) > 0 {
				a := subset.Addresses[int(time.Now().UnixNano())%len(subset.Addresses)]
				return a.IP, strconv.Itoa(int(p.Port)), nil
			}
		}
	}
	return "", "", apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", c.req.Name))
}

// nodeProxy passes a request on to a node's agent.
func (c *call) nodeProxy() {
	_, name, port, err := splitTarget(c.req.Name)
	if err != nil {
		c.fail(err)
		return
	}
	location, err := c.agent(name)
	if err != nil {
		c.fail(err)
		return
	}
	if port != "" {
		location.Host = net.JoinHostPort(location.Hostname(), port)
	}
	location.Path, location.RawQuery = "/"+c.req.Rest, c.r.URL.RawQuery
	c.proxyTo(location, c.s.nodes.transport, false)
}

// splitTarget reads [http:|https:]name[:port].
func splitTarget(s string) (scheme, name, port string, err error) {
	parts := strings.Split(s, ":")
	switch {
	case len(parts) == 1:
		return "http", s, "", nil
	case len(parts) == 2:
		return "http", parts[0], parts[1], nil
	case len(parts) == 3 && (parts[0] == "http" || parts[0] == "https" || parts[0] == ""):
		if parts[0] == "" {
			parts[0] = "http"
		}
		return parts[0], parts[1], parts[2], nil
	}
	return "", "", "", apierrors.NewBadRequest(fmt.Sprintf("invalid proxy target %q: want [http:|https:]name[:port]", s))
}

func (c *call) passOn(scheme, host, port string) {
	location := &url.URL{Scheme: scheme, Host: net.JoinHostPort(host, port), Path: "/" + c.req.Rest, RawQuery: c.r.URL.RawQuery}
	if strings.HasSuffix(c.req.Path, "/") && !strings.HasSuffix(location.Path, "/") {
		location.Path += "/"
	}
	c.proxyTo(location, c.s.nodes.plain, false)
}

// wrap puts a protocol that the agent does not speak in front of one that it does.
type wrap func(http.Handler) http.Handler

// tunnel carries a port-forward's SPDY inside a WebSocket, as newer clients do.
func tunnel(to http.Handler) http.Handler {
	return streamproxy.NewTranslatingHandler(to, streamproxy.NewTunnelingHandler(to), wsstream.IsWebSocketRequestWithTunnelingProtocol)
}

// translate turns an exec's or attach's WebSocket of newer clients into SPDY.
func (c *call) translate(location *url.URL) wrap {
	on := func(name string) bool {
		v, err := strconv.ParseBool(c.query.Get(name))
		return err == nil && v
	}
	opts := streamproxy.Options{Stdin: on("stdin"), Stdout: on("stdout"), Stderr: on("stderr") && !on("tty"), Tty: on("tty")}
	return func(to http.Handler) http.Handler {
		translator := streamproxy.NewStreamTranslatorHandler(location, c.s.nodes.transport, 0, opts)
		return streamproxy.NewTranslatingHandler(to, translator, wsstream.IsWebSocketRequestWithStreamCloseProtocol)
	}
}

// proxyTo hands the request over. The client's credentials stay here.
func (c *call) proxyTo(location *url.URL, transport http.RoundTripper, upgrade bool, wraps ...wrap) {
	ctx, cancel := context.WithCancel(c.r.Context())
	defer cancel()
	defer context.AfterFunc(c.s.draining, cancel)()
	r := c.r.Clone(ctx)
	r.Header.Del("Authorization")
	r.Header.Del("Cookie")
	direct := proxy.NewUpgradeAwareHandler(location, transport, false, upgrade, responder{c})
	direct.UseLocationHost = true
	var handler http.Handler = direct
	for _, w := range wraps {
		handler = w(handler)
	}
	handler.ServeHTTP(c.w, r)
}

// responder answers when a connection cannot be made.
type responder struct{ c *call }

func (r responder) Error(_ http.ResponseWriter, _ *http.Request, err error) {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		err = apierrors.NewServiceUnavailable(fmt.Sprintf("error trying to reach service: %v", err))
	}
	r.c.fail(err)
}
