package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-mesh/xebec/citadel/bundle"
	"github.com/xebec-mesh/xebec/citadel/ca"
	"github.com/xebec-mesh/xebec/citadel/svid"
)

// signer is an issuer that may be away.
type signer struct {
	root *ca.Issuer
	mu   sync.Mutex
	away bool
}

func (s *signer) X509(_ context.Context, id ca.Identity, csr []byte) ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return nil, errors.New("away")
	}
	pub, err := ca.ParseCSR(csr)
	if err != nil {
		return nil, err
	}
	serial, err := ca.NewSerial()
	if err != nil {
		return nil, err
	}
	chain, _, err := s.root.Sign(ca.Leaf{TrustDomain: "cluster.local", Identity: id, PublicKey: pub, Serial: serial, Now: time.Now(), TTL: time.Hour})
	return chain, err
}

type fixture struct {
	t      *testing.T
	server *Server
	source *bundle.Source
	signer *signer
	conn   *grpc.ClientConn
}

func newFixture(t *testing.T) *fixture {
	root := newRoot(t)
	f := &fixture{t: t, signer: &signer{root: root}}
	b, err := bundle.New("cluster.local", root.Roots, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.source = bundle.NewSource(b)
	cache, err := svid.New(svid.Config{Issuer: f.signer, TrustDomain: "cluster.local", MaxBackoff: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if f.server, err = New(Config{Cache: cache, Bundle: f.source, TrustDomain: "cluster.local"}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	f.server.For("shop", "cart").Register(g)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- cache.Run(ctx) }()
	go func() { _ = g.Serve(l) }()
	if f.conn, err = grpc.NewClient("unix://"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.conn.Close()
		g.Stop()
		cancel()
		<-done
	})
	return f
}

func newRoot(t *testing.T) *ca.Issuer {
	t.Helper()
	root, err := ca.NewRoot("cluster.local", time.Now(), 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// rotateRoots puts another root beside those there are.
func (f *fixture) rotateRoots() {
	b, _ := f.source.Get()
	next, err := bundle.New("cluster.local", append(b.Roots, newRoot(f.t).Cert), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	f.source.Set(next)
}

// describe prints what a response holds, by meaning.
func describe(t *testing.T, body *anypb.Any) string {
	t.Helper()
	var s tlsv3.Secret
	if err := body.UnmarshalTo(&s); err != nil {
		t.Fatal(err)
	}
	if c := s.GetTlsCertificate(); c != nil {
		certs, err := ca.ParseCerts(c.GetCertificateChain().GetInlineBytes())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ca.ParseKey(c.GetPrivateKey().GetInlineBytes()); err != nil {
			t.Fatal(err)
		}
		return s.Name + "=" + certs[0].URIs[0].Path
	}
	roots, err := ca.ParseCerts(s.GetValidationContext().GetTrustedCa().GetInlineBytes())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s=%d roots", s.Name, len(roots))
}

type deltaStream struct {
	*fixture
	secretv3.SecretDiscoveryService_DeltaSecretsClient
}

func (f *fixture) delta() *deltaStream {
	s, err := secretv3.NewSecretDiscoveryServiceClient(f.conn).DeltaSecrets(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	return &deltaStream{f, s}
}

func (d *deltaStream) ask(req *discoveryv3.DeltaDiscoveryRequest) {
	req.TypeUrl = typeURL
	if err := d.Send(req); err != nil {
		d.t.Fatal(err)
	}
}

func (d *deltaStream) hear() (string, *discoveryv3.DeltaDiscoveryResponse) {
	d.t.Helper()
	resp, err := d.Recv()
	if err != nil {
		d.t.Fatal(err)
	}
	var out []string
	for _, r := range resp.Resources {
		out = append(out, describe(d.t, r.Resource))
	}
	for _, name := range resp.RemovedResources {
		out = append(out, "no "+name)
	}
	return strings.Join(out, ", "), resp
}

func want(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestDelta(t *testing.T) {
	f := newFixture(t)
	s := f.delta()
	s.ask(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"ROOTCA", "other"}})
	said, first := s.hear()
	want(t, said, "ROOTCA=1 roots, no other")
	s.ask(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: first.Nonce})
	f.rotateRoots()
	said, second := s.hear()
	want(t, said, "ROOTCA=2 roots")
	s.ask(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: second.Nonce, ErrorDetail: &statuspb.Status{Message: "no"}})
	s.ask(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"default"}})
	said, _ = s.hear()
	want(t, said, "default=/ns/shop/sa/cart")
	if f.server.rejected.Load() != 1 {
		t.Error("the refusal was not counted")
	}
	s.ask(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesUnsubscribe: []string{"default"}, ResourceNamesSubscribe: []string{"spiffe://cluster.local", "spiffe://cluster.local/ns/shop/sa/cart", "spiffe://cluster.local/ns/bank/sa/vault"}})
	said, _ = s.hear()
	want(t, said, "spiffe://cluster.local=2 roots, spiffe://cluster.local/ns/shop/sa/cart=/ns/shop/sa/cart, no spiffe://cluster.local/ns/bank/sa/vault")
	s.ask(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"ROOTCA"}})
	said, _ = s.hear()
	want(t, said, "ROOTCA=2 roots") // asked again, sent again

	// A proxy that reconnects says what it has, and is sent only what differs.
	again := f.delta()
	again.ask(&discoveryv3.DeltaDiscoveryRequest{
		ResourceNamesSubscribe:  []string{"ROOTCA", "default"},
		InitialResourceVersions: map[string]string{"ROOTCA": second.Resources[0].Version, "default": "old"},
	})
	said, _ = again.hear()
	want(t, said, "default=/ns/shop/sa/cart")
}

func TestStateOfTheWorld(t *testing.T) {
	f := newFixture(t)
	s, err := secretv3.NewSecretDiscoveryServiceClient(f.conn).StreamSecrets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(nonce string, names ...string) {
		t.Helper()
		if err := s.Send(&discoveryv3.DiscoveryRequest{TypeUrl: typeURL, ResponseNonce: nonce, ResourceNames: names}); err != nil {
			t.Fatal(err)
		}
	}
	hear := func() (string, string) {
		t.Helper()
		resp, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, r := range resp.Resources {
			out = append(out, describe(t, r))
		}
		return strings.Join(out, ", "), resp.Nonce
	}
	ask("", "ROOTCA")
	said, nonce := hear()
	want(t, said, "ROOTCA=1 roots")
	ask(nonce, "ROOTCA")
	ask(nonce, "ROOTCA", "other")
	said, nonce = hear()
	want(t, said, "ROOTCA=1 roots")
	f.rotateRoots()
	said, _ = hear()
	want(t, said, "ROOTCA=2 roots")
	ask(nonce, "default") // an answer to what is no longer the last: it will ask again
	f.rotateRoots()
	said, nonce = hear()
	want(t, said, "ROOTCA=3 roots")
	ask(nonce, "default")
	said, _ = hear()
	want(t, said, "default=/ns/shop/sa/cart")
}

func TestWaitsForTheIssuer(t *testing.T) {
	f := newFixture(t)
	f.signer.away = true
	s := f.delta()
	s.ask(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"default", "ROOTCA"}})
	said, _ := s.hear()
	want(t, said, "ROOTCA=1 roots")
	f.signer.mu.Lock()
	f.signer.away = false
	f.signer.mu.Unlock()
	said, _ = s.hear()
	want(t, said, "default=/ns/shop/sa/cart")
}

func TestOtherTypesAreRefused(t *testing.T) {
	f := newFixture(t)
	s, err := secretv3.NewSecretDiscoveryServiceClient(f.conn).DeltaSecrets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: "type.googleapis.com/x"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Fatal(err)
	}
}

func TestWorkloadAPIWantsItsHeader(t *testing.T) {
	f := newFixture(t)
	s, err := workload.NewSpiffeWorkloadAPIClient(f.conn).FetchX509SVID(t.Context(), &workload.X509SVIDRequest{})
	if err == nil {
		_, err = s.Recv()
	}
	if status.Code(err) != codes.InvalidArgument {
		t.Fatal(err)
	}
}

func TestStreamsAreLetGo(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := secretv3.NewSecretDiscoveryServiceClient(f.conn).DeltaSecrets(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	cancel()
	if n := f.server.streams.Load(); n != 0 {
		t.Fatalf("%d streams", n)
	}
}
