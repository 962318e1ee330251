package dns

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/xebec-mesh/xebec/tests/script"
)

// TestScripts: `update FILE` takes in an update as JSON; `query NAME TYPE` prints
// the code, whether it is authoritative, and the sections, sorted.
func TestScripts(t *testing.T) {
	script.Run(t, "testdata/*.txtar", func(*testing.T) map[string]script.Command {
		s := &server{zone: zone{DefaultDomain + ".", newTable()}, forward: newForwarder(nil), log: slog.New(slog.DiscardHandler)}
		return map[string]script.Command{
			"update": func(st *script.State, args []string) (string, error) {
				data, err := st.File(args[0])
				if err != nil {
					return "", err
				}
				u, err := decodeUpdate(data)
				s.zone.table.apply(u)
				return "", err
			},
			"query": func(_ *script.State, args []string) (string, error) {
				m := new(dns.Msg)
				m.SetQuestion(args[0], dns.StringToType[args[1]])
				return printed(s.respond(context.Background(), m)), nil
			},
		}
	})
}

func printed(m *dns.Msg) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s aa=%v\n", dns.RcodeToString[m.Rcode], m.Authoritative)
	for _, section := range []struct {
		name string
		rrs  []dns.RR
	}{{"answer", m.Answer}, {"authority", m.Ns}, {"additional", m.Extra}} {
		var lines []string
		for _, rr := range section.rrs {
			lines = append(lines, section.name+" "+strings.Join(strings.Fields(rr.String()), " "))
		}
		slices.Sort(lines)
		for _, l := range lines {
			b.WriteString(l + "\n")
		}
	}
	return b.String()
}

// TestUpdatesInAnyOrder holds that a table after single updates equals one that
// got the outcome whole.
func TestUpdatesInAnyOrder(t *testing.T) {
	service := func(i int) Service {
		return Service{Namespace: "n", Name: fmt.Sprintf("s%d", i%5), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i), 1})}}
	}
	steps, whole := newTable(), newTable()
	last := map[Key]Service{}
	for i := range 50 {
		s := service(i)
		u := Update{Generation: uint64(i), Services: []Service{s}}
		last[keyOf(&s)] = s
		if i%7 == 3 {
			u.Removed, u.Services = []Key{keyOf(&s)}, nil
			delete(last, keyOf(&s))
		}
		steps.apply(u)
	}
	full := Update{Generation: 49, Full: true}
	for _, s := range last {
		full.Services = append(full.Services, s)
	}
	whole.apply(full)
	if !reflect.DeepEqual(steps.services, whole.services) || !reflect.DeepEqual(steps.reverse, whole.reverse) || !reflect.DeepEqual(steps.namespaces, whole.namespaces) {
		t.Errorf("by steps %v\nwhole %v", steps, whole)
	}
	if steps.apply(Update{Generation: 3, Full: true}) || len(steps.services) == 0 {
		t.Error("an older generation was taken in")
	}
}

// TestProcess kills the feeder's side and the program in turn: names resolve
// while the feeder is away, the program is adopted by the next feeder, and comes
// back with what it knew when it dies itself.
func TestProcess(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "xebec-dns")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/xebec-dns").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	listen := freePort(t)
	cfg := ProcessConfig{Program: binary, Dir: filepath.Join(dir, "state"), Listen: []netip.AddrPort{listen}, Resolv: os.DevNull}
	t.Cleanup(func() {
		if err := Reset(cfg.Dir); err != nil {
			t.Error(err)
		}
	})
	stop := feeder(t, cfg, Update{Full: true, Services: []Service{{Namespace: "default", Name: "web", Addrs: []netip.Addr{netip.MustParseAddr("10.96.0.7")}}}})
	ask(t, listen, "udp", "web.default.svc.cluster.local.", "10.96.0.7")
	ask(t, listen, "tcp", "web.default.svc.cluster.local.", "10.96.0.7")
	stop()
	ask(t, listen, "udp", "web.default.svc.cluster.local.", "10.96.0.7")
	pid := pidOf(t, cfg.Dir)

	stop = feeder(t, cfg, Update{Full: true, Services: []Service{{Namespace: "default", Name: "web", Addrs: []netip.Addr{netip.MustParseAddr("10.96.0.8")}}}})
	defer stop()
	ask(t, listen, "udp", "web.default.svc.cluster.local.", "10.96.0.8")
	if now := pidOf(t, cfg.Dir); now != pid {
		t.Errorf("the program was not adopted: pid %d, then %d", pid, now)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for lookup(listen, "udp", "web.default.svc.cluster.local.") != "10.96.0.8" {
		if time.Now().After(deadline) {
			t.Fatal("the program that was killed did not come back within 10 s")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if pidOf(t, cfg.Dir) == pid {
		t.Error("the program was not killed")
	}
}

// feeder runs a Process until its first state is served; the result ends it.
func feeder(t *testing.T, cfg ProcessConfig, u Update) (stop func()) {
	t.Helper()
	p, err := NewProcess(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	p.Send(u)
	select {
	case <-p.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("cluster DNS is not ready within 20 s")
	}
	return func() {
		cancel()
		<-done
	}
}

func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	udp, tcp, err := listen(context.Background(), []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	defer udp[0].Close()
	defer tcp[0].Close()
	return netip.MustParseAddrPort(tcp[0].Addr().String())
}

func pidOf(t *testing.T, dir string) (pid int) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, pidFile))
	if err == nil {
		_, err = fmt.Sscan(string(data), &pid)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func ask(t *testing.T, server netip.AddrPort, network, name, want string) {
	t.Helper()
	if got := lookup(server, network, name); got != want {
		t.Fatalf("ask %s over %s: %s, want %s", name, network, got, want)
	}
}

// lookup returns the one address of a name, or what came instead.
func lookup(server netip.AddrPort, network, name string) string {
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	r, _, err := (&dns.Client{Net: network, Timeout: 5 * time.Second}).Exchange(m, server.String())
	if err != nil {
		return err.Error()
	}
	if len(r.Answer) != 1 {
		return r.String()
	}
	return r.Answer[0].(*dns.A).A.String()
}

// TestForward asks an upstream server: once while the answer may be kept.
func TestForward(t *testing.T) {
	asked := 0
	udp, _, err := listen(context.Background(), []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	up := &dns.Server{PacketConn: udp[0], Handler: dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		asked++
		r := new(dns.Msg)
		r.SetReply(m)
		rr, err := dns.NewRR(m.Question[0].Name + " 60 IN A 192.0.2.7")
		if err != nil {
			t.Error(err)
		}
		r.Answer = []dns.RR{rr}
		_ = w.WriteMsg(r)
	})}
	go func() { _ = up.ActivateAndServe() }()
	defer func() { _ = up.Shutdown() }()
	s := &server{
		zone:    zone{DefaultDomain + ".", newTable()},
		forward: newForwarder([]netip.AddrPort{netip.MustParseAddrPort(udp[0].LocalAddr().String())}),
		log:     slog.New(slog.DiscardHandler),
	}
	s.zone.table.apply(Update{Services: []Service{{Namespace: "default", Name: "away", ExternalName: "example.org"}}})
	for range 3 {
		m := new(dns.Msg)
		m.SetQuestion("away.default.svc.cluster.local.", dns.TypeA)
		r := s.respond(context.Background(), m)
		if len(r.Answer) != 2 || r.Answer[1].(*dns.A).A.String() != "192.0.2.7" {
			t.Fatalf("answer %v", r)
		}
	}
	if asked != 1 {
		t.Errorf("upstream was asked %d times, want once", asked)
	}
}

func FuzzUpdate(f *testing.F) {
	f.Add([]byte(`{"generation":1,"full":true,"services":[{"ns":"a","name":"b","addrs":["10.0.0.1"]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		u, err := decodeUpdate(data)
		if err != nil {
			return
		}
		a := newTable()
		a.apply(u)
		text, err := json.Marshal(a.snapshot())
		if err != nil {
			return // an address that cannot be written was read
		}
		back, err := decodeUpdate(text)
		if err != nil {
			t.Fatalf("snapshot %s: %v", text, err)
		}
		b := newTable()
		b.apply(back)
		if len(a.services) != len(b.services) || len(a.reverse) != len(b.reverse) {
			t.Fatalf("snapshot %s lost records", text)
		}
	})
}

func FuzzQuery(f *testing.F) {
	s := &server{zone: zone{DefaultDomain + ".", newTable()}, forward: newForwarder(nil), log: slog.New(slog.DiscardHandler)}
	s.zone.table.apply(Update{Services: []Service{{Namespace: "a", Name: "b", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Ports: []Port{{"http", "TCP", 80}}}}})
	f.Add("_http._tcp.b.a.svc.cluster.local.", uint16(33))
	f.Add("1.0.0.10.in-addr.arpa.", uint16(12))
	f.Fuzz(func(t *testing.T, name string, qtype uint16) {
		m := new(dns.Msg)
		m.SetQuestion(name, qtype)
		r := s.respond(context.Background(), m)
		if wire, err := r.Pack(); err == nil && bytes.Equal(wire, nil) {
			t.Fatal("an empty answer")
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			s := &server{zone: zone{DefaultDomain + ".", newTable()}, forward: newForwarder(nil), log: slog.New(slog.DiscardHandler)}
			for i := range n {
				s.zone.table.apply(Update{Services: []Service{{Namespace: "default", Name: fmt.Sprintf("s%d", i), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})}}}})
			}
			m := new(dns.Msg)
			m.SetQuestion("s7.default.svc.cluster.local.", dns.TypeA)
			b.ReportAllocs()
			for b.Loop() {
				s.respond(context.Background(), m)
			}
		})
	}
}
