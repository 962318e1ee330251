package auth

import "sync"

// tokenCache remembers the claims of tokens whose signature was verified, by the
// token's hash. It holds no token. Two generations bound it: when the young one
// is full it becomes the old one, and what is used moves back.
type tokenCache struct {
	mu         sync.Mutex
	young, old map[[32]byte]*tokenClaims
}

const tokenCacheSize = 4096 // of each generation

func (c *tokenCache) get(key [32]byte) (*tokenClaims, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if claims, ok := c.young[key]; ok {
		return claims, true
	}
	claims, ok := c.old[key]
	if ok {
		c.putLocked(key, claims)
	}
	return claims, ok
}

func (c *tokenCache) put(key [32]byte, claims *tokenClaims) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putLocked(key, claims)
}

func (c *tokenCache) putLocked(key [32]byte, claims *tokenClaims) {
	if c.young == nil || len(c.young) >= tokenCacheSize {
		c.old, c.young = c.young, make(map[[32]byte]*tokenClaims)
	}
	c.young[key] = claims
}
