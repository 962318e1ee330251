package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// JWTSigner signs JWT-SVIDs with ES256.
type JWTSigner struct {
	ID  string
	Key *ecdsa.PrivateKey
}

// LogValue keeps the key out of logs.
func (s *JWTSigner) LogValue() slog.Value { return slog.StringValue(s.ID) }

// String names the key.
func (s *JWTSigner) String() string { return s.ID }

// GoString keeps the key out of %#v.
func (s *JWTSigner) GoString() string { return s.ID }

// JWT is what a JWT-SVID says.
//
// https://github.com/spiffe/spiffe/blob/main/standards/JWT-SVID.md
type JWT struct {
	TrustDomain string
	Identity    Identity
	Audience    []string
	Now         time.Time
	TTL         time.Duration
}

// Sign makes a token.
func (s *JWTSigner) Sign(t JWT) (string, error) {
	if len(t.Audience) == 0 {
		return "", errors.New("sign JWT-SVID: want at least one audience")
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: s.Key, KeyID: s.ID}},
		(&jose.SignerOptions{}).WithType("JWT"),
	)
	if err != nil {
		return "", fmt.Errorf("sign JWT-SVID of %s: %w", t.Identity, err)
	}
	token, err := jwt.Signed(signer).Claims(jwt.Claims{
		Subject:  t.Identity.URI(t.TrustDomain).String(),
		Audience: t.Audience,
		IssuedAt: jwt.NewNumericDate(t.Now),
		Expiry:   jwt.NewNumericDate(t.Now.Add(t.TTL)),
	}).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign JWT-SVID of %s: %w", t.Identity, err)
	}
	return token, nil
}

// EncodePublic writes a public key as PKIX PEM.
func EncodePublic(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// ParsePublic reads a public key in PKIX PEM.
func ParsePublic(text []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errors.New("parse public key: there is no PUBLIC KEY block")
	}
	return x509.ParsePKIXPublicKey(block.Bytes)
}

// KeyID names a public key by what it is, so that no two keys share a name.
func KeyID(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("name public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:12]), nil
}
