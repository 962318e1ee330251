package envoy

import (
	"fmt"
	"runtime/debug"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-mesh/xebec/galley/config"
)

// Generator makes one kind of resource. Name and Make are pure: they see their input
// and nothing else. Make returns the message and the configuration objects that had a
// say in it.
type Generator[In comparable] struct {
	Type string
	Name func(In) string
	Make func(In) (m proto.Message, origins []config.Ref)
}

// Cache remembers what generators made. It belongs to one goroutine.
type Cache struct {
	byInput   map[any]*Resource
	byContent map[content]*Resource
	invalid   []*Resource
	kept      int      // inputs that were left by the last Sweep
	built     []string // type and name of what was made since Built was last called
}

type content struct{ url, name, version string }

// NewCache returns an empty cache.
func NewCache() *Cache {
	return &Cache{byInput: map[any]*Resource{}, byContent: map[content]*Resource{}}
}

// Make returns the resource for an input, from memory if there is one.
func Make[In comparable](c *Cache, g Generator[In], in In) *Resource {
	key := any(in) // the type of In is part of it, so generators never meet
	if hit, ok := c.byInput[key]; ok {
		return hit
	}
	r := c.intern(generate(g, in))
	if r.Invalid != nil {
		c.invalid = append(c.invalid, r)
	}
	c.built = append(c.built, g.Type+" "+r.Name)
	c.byInput[key] = r
	return r
}

// generate makes a resource. A generator that panics made an invalid one: what was
// good before stays in force, and the process stays up.
func generate[In comparable](g Generator[In], in In) (r *Resource) {
	name := g.Name(in)
	defer func() {
		if p := recover(); p != nil {
			r = &Resource{Type: g.Type, Name: name, Version: "panic", Invalid: fmt.Errorf("make %s %s: panic: %v\n%s", g.Type, name, p, debug.Stack())}
		}
	}()
	m, origins := g.Make(in)
	return encode(g.Type, name, m, origins)
}

// intern returns the resource that already has this content, so that an input which
// changes nothing sends nothing. Origins that are new are worth a new one.
func (c *Cache) intern(r *Resource) *Resource {
	k := content{r.Type, r.Name, r.Version}
	if old, ok := c.byContent[k]; ok && slices.Equal(old.Origins, r.Origins) {
		return old
	}
	c.byContent[k] = r
	return r
}

// Built returns what was made since the last call, in order and without repeats.
func (c *Cache) Built() []string {
	out := slices.Compact(slices.Sorted(slices.Values(c.built)))
	c.built = c.built[:0]
	return out
}

// Invalid returns what was made since the last call and breaks its own schema.
func (c *Cache) Invalid() []*Resource {
	out := c.invalid
	c.invalid = nil
	return out
}

// Kept is the number of inputs that the last Sweep left.
func (c *Cache) Kept() int { return c.kept }

// Size is the number of inputs remembered.
func (c *Cache) Size() int { return len(c.byInput) }

// Sweep forgets what was made for inputs that keep does not name. It is called now
// and then, when the cache has grown well beyond what views hold.
func (c *Cache) Sweep(keep func(*Resource) bool) {
	for k, v := range c.byInput {
		if !keep(v) {
			delete(c.byInput, k)
		}
	}
	for k, r := range c.byContent {
		if !keep(r) {
			delete(c.byContent, k)
		}
	}
	c.kept = len(c.byInput)
}
