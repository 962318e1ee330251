package service

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xebec-mesh/xebec/dataplane/bpfmap"
	"github.com/xebec-mesh/xebec/tests/script"
)

func memoryTables() tables {
	return tables{
		services: bpfmap.NewMemory[vip, svc](0),
		backends: bpfmap.NewMemory[slot, backend](0),
		members:  bpfmap.NewMemory[member, uint32](0),
	}
}

func memoryBalancer(t testing.TB, tables tables) *Balancer {
	t.Helper()
	b, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.adopt(tables); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestScripts: services in, map contents and the writes that made them out.
//
//	apply FILE GENERATION   the whole state
//	update FILE             single services
//	delete NAME...          services
//	restart                 a new process adopts the tables
//	tables                  what the kernel would see
//	writes                  how many entries the last command wrote
func TestScripts(t *testing.T) {
	script.Run(t, "testdata/*.txtar", func(t *testing.T) map[string]script.Command {
		counting := &counter{}
		b := memoryBalancer(t, counting.wrap(memoryTables()))
		change := func(f func(s *script.State, args []string) error) script.Command {
			return func(s *script.State, args []string) (string, error) {
				counting.n = 0
				return "", f(s, args)
			}
		}
		return map[string]script.Command{
			"apply": change(func(s *script.State, args []string) error {
				services, err := parse(s, args[0])
				if err != nil {
					return err
				}
				generation, err := strconv.ParseUint(args[1], 10, 64)
				return errors.Join(err, b.Apply(services, generation))
			}),
			"update": change(func(s *script.State, args []string) error {
				services, err := parse(s, args[0])
				return errors.Join(err, b.Update(services...))
			}),
			"delete": change(func(s *script.State, args []string) error { return b.Delete(args...) }),
			"restart": change(func(s *script.State, args []string) error {
				b = memoryBalancer(t, b.tables)
				return nil
			}),
			"tables": func(*script.State, []string) (string, error) {
				var out bytes.Buffer
				err := b.tables.print(&out)
				return out.String(), err
			},
			"writes": func(*script.State, []string) (string, error) { return fmt.Sprintln(counting.n), nil },
		}
	})
}

// parse reads services, a line each thing:
//
//	service default/web local affinity=30s
//	addr 10.96.0.5
//	port http TCP 80
//	endpoint 10.244.0.2:8080 ready local
func parse(s *script.State, name string) ([]Service, error) {
	data, err := s.File(name)
	if err != nil {
		return nil, err
	}
	var out []Service
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) == 0 {
			continue
		}
		if f[0] == "service" {
			out = append(out, Service{Name: f[1], LocalOnly: slices.Contains(f, "local")})
		}
		svc := &out[len(out)-1]
		switch f[0] {
		case "service":
			for _, word := range f {
				if v, ok := strings.CutPrefix(word, "affinity="); ok {
					svc.Affinity, err = time.ParseDuration(v)
				}
			}
		case "addr":
			svc.Addrs = append(svc.Addrs, netip.MustParseAddr(f[1]))
		case "port":
			port, _ := strconv.Atoi(f[3])
			svc.Ports = append(svc.Ports, Port{Name: f[1], Protocol: map[string]Protocol{"TCP": TCP, "UDP": UDP}[f[2]], Port: uint16(port)})
		case "endpoint":
			p := &svc.Ports[len(svc.Ports)-1]
			has := func(word string) bool { return slices.Contains(f, word) }
			p.Endpoints = append(p.Endpoints, Endpoint{Addr: netip.MustParseAddrPort(f[1]), Ready: has("ready"), Serving: has("serving"), Terminating: has("terminating"), Local: has("local")})
		default:
			err = fmt.Errorf("%s: unknown line %q", name, lines.Text())
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// counter counts writes to the tables below it.
type counter struct{ n int }

func (c *counter) wrap(t tables) tables {
	return tables{counted[vip, svc]{t.services, c}, counted[slot, backend]{t.backends, c}, counted[member, uint32]{t.members, c}}
}

type counted[K comparable, V any] struct {
	bpfmap.Map[K, V]
	c *counter
}

func (m counted[K, V]) Put(k K, v V) error {
	m.c.n++
	return m.Map.Put(k, v)
}

func (m counted[K, V]) Delete(k K) error {
	m.c.n++
	return m.Map.Delete(k)
}

// TestPlanProperties: whatever the history, the tables hold exactly what is
// desired, a plan for what is there is empty, no write makes a lookup fail, and
// one changed endpoint costs few writes.
func TestPlanProperties(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	tables := memoryTables()
	b := memoryBalancer(t, watched(t, tables))
	for round := range 2000 {
		s := randomService(rnd)
		if err := b.Update(s); err != nil {
			t.Fatal(err)
		}
		for _, f := range frontends(s) {
			e := b.entries[f.vip]
			if plan, _ := compute(e, &f, 0); plan.Len() > 0 {
				t.Fatalf("round %d: not converged:\n%s", round, plan)
			}
		}
		if round%50 == 0 { // what a new process reads is what the old one knew
			c, err := tables.read()
			if err != nil {
				t.Fatal(err)
			}
			if c.stray.Len() > 0 {
				t.Fatalf("stray entries:\n%s", c.stray)
			}
			for v, e := range c.entries {
				if e.dirty || !slices.Equal(e.slots, b.entries[v].slots) {
					t.Fatalf("%v: read %+v, known %+v", v.addrPort(), e, b.entries[v])
				}
			}
		}
	}
}

func randomService(rnd *rand.Rand) Service {
	n := rnd.IntN(4)
	s := Service{
		Name:  fmt.Sprintf("default/s%d", n),
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, byte(n)})},
		Ports: []Port{{Protocol: []Protocol{TCP, UDP}[rnd.IntN(2)], Port: 80}},
	}
	if rnd.IntN(3) == 0 {
		s.Affinity = time.Minute
	}
	for range rnd.IntN(12) {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, 0, byte(rnd.IntN(16))}), 80)
		s.Ports[0].Endpoints = append(s.Ports[0].Endpoints, Endpoint{Addr: addr, Ready: rnd.IntN(4) > 0, Serving: true, Terminating: rnd.IntN(2) == 0})
	}
	return s
}

// watched holds after every write that each slot below a Service's count exists.
func watched(t *testing.T, tab tables) tables {
	check := func() {
		_ = tab.services.Range(func(v vip, s svc) bool {
			for i := range s.Count {
				b, ok, _ := tab.backends.Get(slot{s.ID, i})
				if !ok || !b.addrPort().IsValid() {
					t.Fatalf("%s: slot %d of %d is empty", v.addrPort(), i, s.Count)
				}
			}
			return true
		})
	}
	return tables{checked[vip, svc]{tab.services, check}, checked[slot, backend]{tab.backends, check}, checked[member, uint32]{tab.members, check}}
}

type checked[K comparable, V any] struct {
	bpfmap.Map[K, V]
	check func()
}

func (m checked[K, V]) Put(k K, v V) error {
	defer m.check()
	return m.Map.Put(k, v)
}

func (m checked[K, V]) Delete(k K) error {
	defer m.check()
	return m.Map.Delete(k)
}
