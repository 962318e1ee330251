package serve

import (
	"errors"
	"io"
	"slices"
	"strconv"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// sds is the secret discovery service of one workload.
//
// https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol
type sds struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer
	workload *Workload
}

// receive passes what recv returns to handle, on the stream's own goroutine.
func receive[T any](recv func() (T, error), done <-chan struct{}, handle func(T)) <-chan func() error {
	wake := make(chan func() error)
	go func() {
		defer close(wake)
		for {
			req, err := recv()
			step := func() error { handle(req); return nil }
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				step = func() error { return err }
			}
			select {
			case wake <- step:
			case <-done:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return wake
}

func (s *sds) refused(what *status.Status, nonce string) {
	if what == nil {
		return
	}
	s.workload.server.rejected.Add(1)
	s.workload.server.cfg.Log.Warn("proxy refused a secret", "identity", s.workload.id.String(), "nonce", nonce, "err", what.GetMessage())
}

func checkType(url string) error {
	if url != "" && url != typeURL {
		return grpcstatus.Errorf(codes.InvalidArgument, "type %q is not served here: want %s", url, typeURL)
	}
	return nil
}

// deltaState is what one delta stream's client has and wants.
type deltaState struct {
	wanted []string
	sent   map[string]string // name → version; "" where it was told that there is none
	nonce  int
	err    error
}

// DeltaSecrets sends what changed.
func (s *sds) DeltaSecrets(stream secretv3.SecretDiscoveryService_DeltaSecretsServer) error {
	st := &deltaState{sent: map[string]string{}}
	wake := receive(stream.Recv, stream.Context().Done(), func(req *discoveryv3.DeltaDiscoveryRequest) {
		s.refused(req.GetErrorDetail(), req.GetResponseNonce())
		st.take(req)
	})
	return s.workload.follow(stream.Context(), func(v view) error {
		if st.err != nil {
			return st.err
		}
		resp, err := s.delta(st, v)
		if err != nil || resp == nil {
			return err
		}
		return stream.Send(resp)
	}, wake)
}

// take applies a request. A name that is subscribed again is sent again, unless
// the client says that it has it.
func (st *deltaState) take(req *discoveryv3.DeltaDiscoveryRequest) {
	st.err = checkType(req.GetTypeUrl())
	for _, name := range req.GetResourceNamesUnsubscribe() {
		st.wanted = slices.DeleteFunc(st.wanted, func(n string) bool { return n == name })
		delete(st.sent, name)
	}
	for _, name := range req.GetResourceNamesSubscribe() {
		if !slices.Contains(st.wanted, name) {
			st.wanted = append(st.wanted, name)
		}
		delete(st.sent, name)
	}
	for name, version := range req.GetInitialResourceVersions() {
		if slices.Contains(st.wanted, name) {
			st.sent[name] = version
		}
	}
}

// delta is the response that brings the client up to v; nil if it is there.
func (s *sds) delta(st *deltaState, v view) (*discoveryv3.DeltaDiscoveryResponse, error) {
	resp := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: typeURL}
	for _, name := range st.wanted {
		sec, known, err := s.workload.secret(name, v)
		if err != nil {
			return nil, err
		}
		had, told := st.sent[name]
		switch {
		case !known && (!told || had != ""):
			resp.RemovedResources = append(resp.RemovedResources, name)
			st.sent[name] = ""
		case sec != nil && had != sec.version:
			resp.Resources = append(resp.Resources, &discoveryv3.Resource{Name: name, Version: sec.version, Resource: sec.body})
			st.sent[name] = sec.version
		}
	}
	if len(resp.Resources)+len(resp.RemovedResources) == 0 {
		return nil, nil
	}
	s.workload.server.pushes.Add(uint64(len(resp.Resources)))
	st.nonce++
	resp.Nonce = strconv.Itoa(st.nonce)
	return resp, nil
}

// fullState is what one state-of-the-world stream's client has and wants.
type fullState struct {
	wanted  []string
	version string // of what was last sent
	nonce   int
	err     error
}

// StreamSecrets sends everything that is wanted when any of it changed.
func (s *sds) StreamSecrets(stream secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	st := &fullState{}
	wake := receive(stream.Recv, stream.Context().Done(), func(req *discoveryv3.DiscoveryRequest) {
		s.refused(req.GetErrorDetail(), req.GetResponseNonce())
		st.take(req)
	})
	return s.workload.follow(stream.Context(), func(v view) error {
		if st.err != nil {
			return st.err
		}
		resp, err := s.full(st, v)
		if err != nil || resp == nil {
			return err
		}
		return stream.Send(resp)
	}, wake)
}

// take applies a request; an answer to an older response than the last says nothing.
func (st *fullState) take(req *discoveryv3.DiscoveryRequest) {
	st.err = checkType(req.GetTypeUrl())
	if n := req.GetResponseNonce(); n != "" && n != strconv.Itoa(st.nonce) {
		return
	}
	if !slices.Equal(st.wanted, req.GetResourceNames()) {
		st.wanted, st.version = req.GetResourceNames(), ""
	}
}

// full is the response that brings the client up to v; nil if it is there.
func (s *sds) full(st *fullState, v view) (*discoveryv3.DiscoveryResponse, error) {
	var version string
	var bodies []*anypb.Any
	for _, name := range st.wanted {
		sec, _, err := s.workload.secret(name, v)
		if err != nil {
			return nil, err
		}
		if sec != nil {
			version += sec.version
			bodies = append(bodies, sec.body)
		}
	}
	if len(bodies) == 0 || version == st.version {
		return nil, nil
	}
	s.workload.server.pushes.Add(uint64(len(bodies)))
	st.version = version
	st.nonce++
	return &discoveryv3.DiscoveryResponse{
		TypeUrl: typeURL, VersionInfo: version, Nonce: strconv.Itoa(st.nonce), Resources: bodies,
	}, nil
}
