package serve

import (
	"context"
	"crypto"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/xebec-mesh/xebec/citadel/bundle"
)

// workloadAPI is the SPIFFE Workload API of one workload.
//
// https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Workload_API.md
type workloadAPI struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	workload *Workload
}

// checkHeader refuses a caller that may have been tricked into calling: a request
// made by way of some other service would not carry the header.
func checkHeader(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if !slices.Equal(md.Get("workload.spiffe.io"), []string{"true"}) {
		return status.Error(codes.InvalidArgument, "security header missing from request: set workload.spiffe.io to true")
	}
	return nil
}

func (a *workloadAPI) trustDomainID() string { return "spiffe://" + a.workload.server.cfg.TrustDomain }

// FetchX509SVID streams the workload's SVID with the bundle.
func (a *workloadAPI) FetchX509SVID(_ *workload.X509SVIDRequest, stream grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	if err := checkHeader(stream.Context()); err != nil {
		return err
	}
	var sent view
	return a.workload.follow(stream.Context(), func(v view) error {
		if v.svid == nil || v.svid == sent.svid && v.bundle == sent.bundle {
			return nil
		}
		sent = v
		a.workload.server.pushes.Add(1)
		return stream.Send(&workload.X509SVIDResponse{Svids: []*workload.X509SVID{{
			SpiffeId: v.svid.URI, X509Svid: v.svid.CertDER, X509SvidKey: v.svid.KeyDER, Bundle: v.bundle.DER,
		}}})
	}, nil)
}

// FetchX509Bundles streams the roots.
func (a *workloadAPI) FetchX509Bundles(_ *workload.X509BundlesRequest, stream grpc.ServerStreamingServer[workload.X509BundlesResponse]) error {
	return a.bundles(stream.Context(), func(b *bundle.Bundle) error {
		return stream.Send(&workload.X509BundlesResponse{Bundles: map[string][]byte{a.trustDomainID(): b.DER}})
	})
}

// FetchJWTBundles streams the keys that verify tokens.
func (a *workloadAPI) FetchJWTBundles(_ *workload.JWTBundlesRequest, stream grpc.ServerStreamingServer[workload.JWTBundlesResponse]) error {
	return a.bundles(stream.Context(), func(b *bundle.Bundle) error {
		return stream.Send(&workload.JWTBundlesResponse{Bundles: map[string][]byte{a.trustDomainID(): b.JWKS}})
	})
}

// bundles calls send with the current bundle and each newer one.
func (a *workloadAPI) bundles(ctx context.Context, send func(*bundle.Bundle) error) error {
	if err := checkHeader(ctx); err != nil {
		return err
	}
	for {
		b, changed := a.workload.server.cfg.Bundle.Get()
		if err := send(b); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// FetchJWTSVID signs a token for the audience.
func (a *workloadAPI) FetchJWTSVID(ctx context.Context, req *workload.JWTSVIDRequest) (*workload.JWTSVIDResponse, error) {
	if err := checkHeader(ctx); err != nil {
		return nil, err
	}
	tokens := a.workload.server.cfg.Tokens
	switch {
	case tokens == nil:
		return nil, status.Error(codes.Unimplemented, "JWT-SVIDs are not issued on this node")
	case len(req.GetAudience()) == 0:
		return nil, status.Error(codes.InvalidArgument, "audience must be specified")
	case req.GetSpiffeId() != "" && req.GetSpiffeId() != a.workload.uri:
		return nil, status.Errorf(codes.PermissionDenied, "this workload is %s, not %s", a.workload.uri, req.GetSpiffeId())
	}
	token, err := tokens.JWT(ctx, a.workload.id, req.GetAudience())
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &workload.JWTSVIDResponse{Svids: []*workload.JWTSVID{{SpiffeId: a.workload.uri, Svid: token}}}, nil
}

// ValidateJWTSVID verifies a token for the audience.
func (a *workloadAPI) ValidateJWTSVID(ctx context.Context, req *workload.ValidateJWTSVIDRequest) (*workload.ValidateJWTSVIDResponse, error) {
	if err := checkHeader(ctx); err != nil {
		return nil, err
	}
	if req.GetAudience() == "" || req.GetSvid() == "" {
		return nil, status.Error(codes.InvalidArgument, "audience and svid must be specified")
	}
	b, _ := a.workload.server.cfg.Bundle.Get()
	subject, claims, err := validate(req.GetSvid(), req.GetAudience(), b, a.workload.server.cfg.Now())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	fields, err := structpb.NewStruct(claims)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &workload.ValidateJWTSVIDResponse{SpiffeId: subject, Claims: fields}, nil
}

// validate checks a token's signature, audience and time. It is pure.
func validate(token, audience string, b *bundle.Bundle, now time.Time) (string, map[string]any, error) {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return "", nil, fmt.Errorf("token: %w", err)
	}
	var key crypto.PublicKey
	for _, k := range b.JWTKeys {
		if len(parsed.Headers) == 1 && parsed.Headers[0].KeyID == k.ID {
			key = k.Public
		}
	}
	if key == nil {
		return "", nil, fmt.Errorf("token: signed by a key that is not in the bundle of %s", b.TrustDomain)
	}
	var std jwt.Claims
	claims := map[string]any{}
	if err := parsed.Claims(key, &std, &claims); err != nil {
		return "", nil, fmt.Errorf("token: %w", err)
	}
	if err := std.ValidateWithLeeway(jwt.Expected{AnyAudience: jwt.Audience{audience}, Time: now}, time.Minute); err != nil {
		return "", nil, fmt.Errorf("token: %w", err)
	}
	if std.Expiry == nil || std.Subject == "" {
		return "", nil, fmt.Errorf("token: claims sub and exp are required")
	}
	return std.Subject, claims, nil
}
