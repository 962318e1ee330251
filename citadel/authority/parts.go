package authority

import (
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"

	"github.com/xebec-mesh/xebec/citadel/bundle"
	"github.com/xebec-mesh/xebec/citadel/ca"
)

// parts is what all slots together say.
type parts struct {
	roots  []*x509.Certificate
	jwt    []bundle.JWTKey
	active *signers
}

func (p *parts) add(s record) error {
	roots, err := ca.ParseCerts([]byte(s.Roots))
	if err != nil {
		return fmt.Errorf("slot %s: %w", s.ID, err)
	}
	p.roots = append(p.roots, roots...)
	pub, err := ca.ParsePublic([]byte(s.JWTPub))
	if err != nil {
		return fmt.Errorf("slot %s: %w", s.ID, err)
	}
	kid, err := ca.KeyID(pub)
	if err != nil {
		return fmt.Errorf("slot %s: %w", s.ID, err)
	}
	p.jwt = append(p.jwt, bundle.JWTKey{ID: kid, Public: pub})
	if s.Stage != Active {
		return nil
	}
	issuer, err := s.issuer()
	if err != nil {
		return err
	}
	key, err := ca.ParseKey([]byte(s.JWTKey))
	if err != nil {
		return fmt.Errorf("slot %s: %w", s.ID, err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return fmt.Errorf("slot %s: JWT key %T is not ECDSA", s.ID, key)
	}
	p.active = &signers{slot: s.ID, x509: issuer, jwt: &ca.JWTSigner{ID: kid, Key: ec}}
	return nil
}
