package dns

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// table is what is served. The lock is held for reading while one query is
// answered and for writing while one update is taken in.
type table struct {
	mu         sync.RWMutex
	generation uint64
	services   map[Key]*Service
	namespaces map[string]int // number of services, plus one for a namespace known by itself
	known      map[string]bool
	reverse    map[netip.Addr]map[Key]string // by the Service that gives the name; the name is below the zone
}

func newTable() *table {
	return &table{
		services: map[Key]*Service{}, namespaces: map[string]int{}, known: map[string]bool{},
		reverse: map[netip.Addr]map[Key]string{},
	}
}

// apply takes in an update; an older generation than the last is ignored.
func (t *table) apply(u Update) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if u.Generation < t.generation {
		return false
	}
	t.generation = u.Generation
	if u.Full {
		t.forget(u)
	}
	for _, key := range u.Removed {
		t.remove(key)
	}
	for i := range u.Services {
		t.set(&u.Services[i])
	}
	return true
}

// forget removes what a full update does not have.
func (t *table) forget(u Update) {
	keep := make(map[Key]bool, len(u.Services))
	for i := range u.Services {
		keep[keyOf(&u.Services[i])] = true
	}
	for key := range t.services {
		if !keep[key] {
			t.remove(key)
		}
	}
	for n := range t.known {
		t.count(n, -1)
	}
	clear(t.known)
	for _, n := range u.Namespaces {
		if n = strings.ToLower(n); !t.known[n] {
			t.known[n] = true
			t.count(n, 1)
		}
	}
}

func keyOf(s *Service) Key {
	return Key{strings.ToLower(s.Namespace), strings.ToLower(s.Name)}
}

func (t *table) set(s *Service) {
	key := keyOf(s)
	t.remove(key)
	t.services[key] = s
	t.count(key.Namespace, 1)
	for addr, name := range names(key, s) {
		if t.reverse[addr] == nil {
			t.reverse[addr] = map[Key]string{}
		}
		t.reverse[addr][key] = name
	}
}

func (t *table) remove(key Key) {
	key = Key{strings.ToLower(key.Namespace), strings.ToLower(key.Name)}
	s := t.services[key]
	if s == nil {
		return
	}
	delete(t.services, key)
	t.count(key.Namespace, -1)
	for addr := range names(key, s) {
		delete(t.reverse[addr], key)
		if len(t.reverse[addr]) == 0 {
			delete(t.reverse, addr)
		}
	}
}

func (t *table) count(namespace string, by int) {
	if t.namespaces[namespace] += by; t.namespaces[namespace] == 0 {
		delete(t.namespaces, namespace)
	}
}

// names are the addresses of a Service with the name that each stands for.
func names(key Key, s *Service) map[netip.Addr]string {
	out := map[netip.Addr]string{}
	service := key.Name + "." + key.Namespace + ".svc."
	for _, a := range s.Addrs {
		out[a.Unmap()] = service
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		out[e.Addr.Unmap()] = label(e) + "." + service
	}
	return out
}

// label is the name of an endpoint below its Service.
func label(e *Endpoint) string {
	if e.Hostname != "" {
		return strings.ToLower(e.Hostname)
	}
	return strings.NewReplacer(".", "-", ":", "-").Replace(e.Addr.Unmap().String())
}

// snapshot is everything as one update.
func (t *table) snapshot() Update {
	t.mu.RLock()
	defer t.mu.RUnlock()
	u := Update{Generation: t.generation, Full: true, Namespaces: slices.Sorted(maps.Keys(t.known))}
	for _, s := range t.services {
		u.Services = append(u.Services, *s)
	}
	return u
}
