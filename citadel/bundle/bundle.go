// Package bundle is what a workload of the trust domain believes.
//
//	in:   the authority's slots, whenever they change
//	out:  the current trust bundle: X.509 roots and JWT keys, encoded once
//
// A Bundle is immutable. While roots rotate it holds the old and the new one: the
// new before anything is signed with it, the old until nothing signed with it lives.
package bundle

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/go-jose/go-jose/v4"

	"github.com/xebec-mesh/xebec/citadel/ca"
)

// JWTKey verifies JWT-SVIDs.
type JWTKey struct {
	ID     string
	Public crypto.PublicKey
}

// Bundle is one version of a trust domain's bundle.
type Bundle struct {
	TrustDomain string
	Sequence    uint64 // grows with every change in this process
	Roots       []*x509.Certificate
	JWTKeys     []JWTKey

	PEM  []byte // the roots
	DER  []byte // the roots, one after the other
	JWKS []byte // the JWT keys as the Workload API has them
}

// New encodes a bundle.
func New(trustDomain string, roots []*x509.Certificate, keys []JWTKey) (*Bundle, error) {
	b := &Bundle{TrustDomain: trustDomain}
	seen := map[string]bool{}
	for _, r := range roots {
		if seen[string(r.Raw)] {
			continue
		}
		seen[string(r.Raw)] = true
		b.Roots = append(b.Roots, r)
		b.PEM = append(b.PEM, ca.EncodeCerts(r.Raw)...)
		b.DER = append(b.DER, r.Raw...)
	}
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, k := range keys {
		if k.Public == nil {
			continue
		}
		b.JWTKeys = append(b.JWTKeys, k)
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.Public, KeyID: k.ID, Use: "jwt-svid"})
	}
	var err error
	if b.JWKS, err = json.Marshal(set); err != nil {
		return nil, fmt.Errorf("encode JWT keys of %s: %w", trustDomain, err)
	}
	return b, nil
}

// Equal reports whether both say the same.
func (b *Bundle) Equal(o *Bundle) bool {
	return b != nil && o != nil && bytes.Equal(b.PEM, o.PEM) && bytes.Equal(b.JWKS, o.JWKS)
}

// Source holds the current bundle and tells when there is a newer one.
type Source struct {
	mu      sync.Mutex
	current *Bundle
	changed chan struct{}
}

// NewSource starts from a first bundle.
func NewSource(first *Bundle) *Source {
	s := &Source{changed: make(chan struct{})}
	s.Set(first)
	return s
}

// Set makes b the current bundle; the same content twice is one version.
func (s *Source) Set(b *Bundle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.Equal(s.current) {
		return
	}
	next := *b
	if s.current != nil {
		next.Sequence = s.current.Sequence
	}
	next.Sequence++
	s.current = &next
	close(s.changed)
	s.changed = make(chan struct{})
}

// Get returns the current bundle, and a channel that closes when it is no longer that.
func (s *Source) Get() (*Bundle, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current, s.changed
}
