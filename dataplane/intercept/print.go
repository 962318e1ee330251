package intercept

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/xebec-mesh/xebec/dataplane/bpfmap"
	"github.com/xebec-mesh/xebec/dataplane/kernel"
)

// Print writes who is intercepted and how, for `xebec debug intercept`; pins "" is
// the default. It needs no running xebec.
func Print(w io.Writer, pins string) error {
	if pins == "" {
		pins = filepath.Join(kernel.Pins, "intercept")
	}
	t, err := pinnedTables(pins)
	if err != nil {
		return fmt.Errorf("print interception: %w", err)
	}
	links, err := readLinks(pins)
	if err != nil {
		return fmt.Errorf("print interception: %w", err)
	}
	return t.print(w, links)
}

func pinnedTables(pins string) (*tables, error) {
	var maps [3]*ebpf.Map
	for i, name := range []string{"pods", "ports", "prefixes"} {
		m, err := ebpf.LoadPinnedMap(filepath.Join(pins, name), nil)
		if err != nil {
			return nil, err
		}
		maps[i] = m
	}
	return &tables{
		bpfmap.NewKernel[uint64, podValue](maps[0]), bpfmap.NewKernel[portKey, uint8](maps[1]), bpfmap.NewKernel[prefixKey, uint8](maps[2]),
	}, nil
}

// attached is what is pinned for one network namespace.
type attached struct {
	uid   string
	hooks []string // of containers, with their state
	open  bool     // the socket lookup is missing: the pod is not closed to the outside
}

// readLinks finds what is pinned, by the cookie of the network namespace.
func readLinks(pins string) (map[uint64]attached, error) {
	dirs, err := filepath.Glob(filepath.Join(pins, "links", "*", "*"))
	if err != nil {
		return nil, err
	}
	out := map[uint64]attached{}
	for _, dir := range dirs {
		cookie, err := strconv.ParseUint(filepath.Base(dir), 16, 64)
		if err != nil {
			continue
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		a := attached{uid: filepath.Base(filepath.Dir(dir)), open: !kernel.LinkAlive(filepath.Join(dir, lookupPin))}
		for _, e := range entries {
			if hook := hookOf(e.Name()); hook != "" && kernel.LinkAlive(filepath.Join(dir, e.Name())) {
				a.hooks = append(a.hooks, hook)
			}
		}
		out[cookie] = a
	}
	return out, nil
}

// print writes a line for each pod and one, indented, for each of its rules.
func (t *tables) print(w io.Writer, links map[uint64]attached) error {
	lines := map[uint64][]string{}
	var cookies []uint64
	err := t.pods.Range(func(cookie uint64, p podValue) bool {
		if _, seen := lines[cookie]; !seen {
			cookies = append(cookies, cookie)
			lines[cookie] = []string{describe(cookie, p, links)}
		}
		return true
	})
	if err != nil {
		return err
	}
	err = t.ports.Range(func(k portKey, _ uint8) bool {
		way := map[direction]string{outbound: "outbound", inbound: "inbound"}[k.Direction]
		lines[k.NetNS] = append(lines[k.NetNS], fmt.Sprintf("  %s port %d direct", way, k.Port.Host()))
		return true
	})
	if err != nil {
		return err
	}
	err = t.prefixes.Range(func(k prefixKey, rule uint8) bool {
		cookie := binary.NativeEndian.Uint64(k.NetNS[:])
		lines[cookie] = append(lines[cookie], "  outbound to "+k.prefix()+" "+map[uint8]string{excluded: "direct", included: "to the sidecar"}[rule])
		return true
	})
	if err != nil {
		return err
	}
	slices.Sort(cookies)
	for _, c := range cookies {
		slices.Sort(lines[c][1:])
		if _, err := fmt.Fprintln(w, strings.Join(slices.Compact(lines[c]), "\n")); err != nil {
			return err
		}
	}
	return nil
}

func describe(cookie uint64, p podValue, links map[uint64]attached) string {
	line := fmt.Sprintf("netns %d: outbound to port %d, inbound to port %d", cookie, p.Outbound.Host(), p.Inbound.Host())
	if p.Flags&onlyIncluded != 0 {
		line += ", outbound only what is included"
	}
	a, ok := links[cookie]
	if !ok {
		return line
	}
	slices.Sort(a.hooks)
	line = "pod " + a.uid + " " + line + "; hooks: " + strings.Join(a.hooks, " ")
	if a.open {
		line += "; OPEN to the outside: no socket lookup is attached"
	}
	return line
}

// prefix is the range of a key, of either family.
func (k prefixKey) prefix() string {
	addr, bits := k.Addr.Netip(), int(k.Bits)-64
	if addr.Is4() && bits >= 96 {
		bits -= 96
	}
	return fmt.Sprintf("%s/%d", addr, bits)
}
