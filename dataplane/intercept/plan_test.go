package intercept

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/xebec-mesh/xebec/dataplane/bpfmap"
	"github.com/xebec-mesh/xebec/tests/script"
)

// TestScripts: pods in, table contents out.
//
//	prepare FILE COOKIE   a pod in the network namespace with that cookie
//	forget COOKIE         the pod there is gone
//	tables                what the programs would see
//
// A pod's lines are field and values: inbound-port, exclude-inbound,
// exclude-outbound, exclude, include.
func TestScripts(t *testing.T) {
	script.Run(t, "testdata/*.txtar", func(t *testing.T) map[string]script.Command {
		i := &Interceptor{tables: tables{
			pods: bpfmap.NewMemory[uint64, podValue](0), ports: bpfmap.NewMemory[portKey, uint8](0), prefixes: bpfmap.NewMemory[prefixKey, uint8](0),
		}}
		return map[string]script.Command{
			"prepare": func(s *script.State, args []string) (string, error) {
				pod, err := parse(s, args[0])
				if err != nil {
					return "", err
				}
				cookie, err := strconv.ParseUint(args[1], 10, 64)
				if err != nil {
					return "", err
				}
				return "", i.setRules(makeRules(pod, cookie), cookie)
			},
			"forget": func(s *script.State, args []string) (string, error) {
				cookie, err := strconv.ParseUint(args[0], 10, 64)
				if err != nil {
					return "", err
				}
				if err := i.tables.pods.Delete(cookie); err != nil {
					return "", err
				}
				return "", i.pruneRules(rules{}, cookie)
			},
			"tables": func(*script.State, []string) (string, error) {
				var out bytes.Buffer
				err := i.tables.print(&out, nil)
				return out.String(), err
			},
		}
	})
}

func parse(s *script.State, name string) (Pod, error) {
	pod := Pod{UID: name, NetNS: "/run/netns/" + name}
	data, err := s.File(name)
	if err != nil {
		return pod, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		for _, v := range f[1:] {
			port, _ := strconv.Atoi(v)
			prefix, _ := netip.ParsePrefix(v)
			switch f[0] {
			case "inbound-port":
				pod.InboundPort = uint16(port)
			case "exclude-inbound":
				pod.ExcludeInboundPorts = append(pod.ExcludeInboundPorts, uint16(port))
			case "exclude-outbound":
				pod.ExcludeOutboundPorts = append(pod.ExcludeOutboundPorts, uint16(port))
			case "exclude":
				pod.ExcludeOutbound = append(pod.ExcludeOutbound, prefix)
			case "include":
				pod.IncludeOutbound = append(pod.IncludeOutbound, prefix)
			default:
				return pod, fmt.Errorf("unknown line %q", lines.Text())
			}
		}
	}
	return pod, pod.check()
}

// TestRulesProperty: whatever was prepared before, the tables hold the last pod's
// rules and nothing else.
func TestRulesProperty(t *testing.T) {
	pods := []Pod{
		{}, {ExcludeInboundPorts: []uint16{1, 2}}, {ExcludeOutboundPorts: []uint16{2, 3}},
		{IncludeOutbound: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}},
		{ExcludeOutbound: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, IncludeOutbound: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
	}
	for a := range pods {
		for b := range pods {
			i := &Interceptor{tables: tables{
				pods: bpfmap.NewMemory[uint64, podValue](0), ports: bpfmap.NewMemory[portKey, uint8](0), prefixes: bpfmap.NewMemory[prefixKey, uint8](0),
			}}
			for _, p := range []Pod{pods[a], pods[b]} {
				if err := i.setRules(makeRules(p, 7), 7); err != nil {
					t.Fatal(err)
				}
			}
			want := makeRules(pods[b], 7)
			for k, v := range want.prefixes {
				if got, ok, _ := i.tables.prefixes.Get(k); !ok || got != v {
					t.Errorf("%d then %d: prefix %v is %d, want %d", a, b, k, got, v)
				}
			}
			count := 0
			_ = i.tables.ports.Range(func(portKey, uint8) bool { count++; return true })
			_ = i.tables.prefixes.Range(func(prefixKey, uint8) bool { count++; return true })
			if count != len(want.ports)+len(want.prefixes) {
				t.Errorf("%d then %d: %d rules, want %d", a, b, count, len(want.ports)+len(want.prefixes))
			}
		}
	}
}

func TestPinNames(t *testing.T) {
	for _, name := range slices.Concat(hooksOf[App], hooksOf[Sidecar]) {
		if got := hookOf(hookPin(0xabc, name)); got != name {
			t.Errorf("hook %s is read back as %q", name, got)
		}
	}
	if hookOf(lookupPin) != "" {
		t.Error("the lookup link is taken for a container's")
	}
}
