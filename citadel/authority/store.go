package authority

import (
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/xebec-mesh/xebec/citadel/ca"
)

// record is a slot as it lies on disk. It holds private keys: it is never logged.
type record struct {
	ID     string    `json:"id"`
	Stage  Stage     `json:"stage"`
	Since  time.Time `json:"since"`
	Cert   string    `json:"cert"`
	Key    string    `json:"key,omitempty"` // gone once the slot retires
	Chain  string    `json:"chain,omitempty"`
	Roots  string    `json:"roots"`
	JWTKey string    `json:"jwtKey,omitempty"`
	JWTPub string    `json:"jwtPublic"`

	// Leaf is the longest life that anything was signed for while the slot was
	// active: the flag may have been another then.
	Leaf time.Duration `json:"leafNanoseconds,omitempty"`
}

type file struct {
	Version     int      `json:"version"`
	TrustDomain string   `json:"trustDomain"`
	Last        int      `json:"last"` // number of the newest slot ever made
	Slots       []record `json:"slots"`
}

// load reads the state; a missing file is the empty state.
func load(path, trustDomain string) (file, error) {
	state := file{Version: 1, TrustDomain: trustDomain}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return state, nil
	}
	if err != nil {
		return state, fmt.Errorf("load authority: %w", err)
	}
	if err := json.Unmarshal(b, &state); err != nil {
		// The decoder's error may quote what it read, and that may be a key.
		return state, fmt.Errorf("load authority %s: the file is damaged; restore it, or remove it to begin with a new root", path)
	}
	if state.Version != 1 {
		return state, fmt.Errorf("load authority %s: version %d is from a newer release", path, state.Version)
	}
	if state.TrustDomain != trustDomain {
		return state, fmt.Errorf("load authority %s: it is of trust domain %q, not %q; start with its own trust domain, or with another state directory", path, state.TrustDomain, trustDomain)
	}
	return state, nil
}

// save replaces the file at once: after a crash it is the old one or the new one.
func save(path string, state file) error {
	b, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return fmt.Errorf("encode authority: %w", err)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("save authority: %w", err)
	}
	tmp, err := os.CreateTemp(dir, ".authority-*") // mode 0600
	if err != nil {
		return fmt.Errorf("save authority: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("save authority: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// issuer is the slot's signer; a retiring slot has none.
func (r record) issuer() (*ca.Issuer, error) {
	i, err := ca.ParseIssuer([]byte(r.Cert), []byte(r.Key), []byte(r.Chain), []byte(r.Roots))
	if err != nil {
		return nil, fmt.Errorf("slot %s: %w", r.ID, err)
	}
	return i, nil
}

func encode(id string, i *ca.Issuer, jwt *ecdsa.PrivateKey, now time.Time) (record, error) {
	key, err := ca.EncodeKey(i.Key)
	if err != nil {
		return record{}, err
	}
	jwtKey, err := ca.EncodeKey(jwt)
	if err != nil {
		return record{}, err
	}
	jwtPub, err := ca.EncodePublic(jwt.Public())
	if err != nil {
		return record{}, err
	}
	var roots [][]byte
	for _, r := range i.Roots {
		roots = append(roots, r.Raw)
	}
	return record{
		ID: id, Stage: Prepared, Since: now,
		Cert: string(ca.EncodeCerts(i.Cert.Raw)), Key: string(key),
		Chain: string(ca.EncodeCerts(i.Chain...)), Roots: string(ca.EncodeCerts(roots...)),
		JWTKey: string(jwtKey), JWTPub: string(jwtPub),
	}, nil
}
