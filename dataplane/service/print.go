package service

import (
	"cmp"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/xebec-mesh/xebec/dataplane/bpfmap"
	"github.com/xebec-mesh/xebec/dataplane/kernel"
)

// Print writes the tables of the kernel as text, for `xebec debug services`;
// pins "" is the default. It needs no running xebec.
func Print(w io.Writer, pins string) error {
	if pins == "" {
		pins = filepath.Join(kernel.Pins, "service")
	}
	t, err := pinnedTables(pins)
	if err != nil {
		return fmt.Errorf("print services: %w", err)
	}
	return t.print(w)
}

func pinnedTables(pins string) (*tables, error) {
	services, err := ebpf.LoadPinnedMap(filepath.Join(pins, "services"), nil)
	if err != nil {
		return nil, err
	}
	backends, err := ebpf.LoadPinnedMap(filepath.Join(pins, "backends"), nil)
	if err != nil {
		return nil, err
	}
	members, err := ebpf.LoadPinnedMap(filepath.Join(pins, "members"), nil)
	if err != nil {
		return nil, err
	}
	return &tables{
		bpfmap.NewKernel[vip, svc](services), bpfmap.NewKernel[slot, backend](backends), bpfmap.NewKernel[member, uint32](members),
	}, nil
}

// print writes a line for each frontend, sorted, and lines for what is wrong.
func (t *tables) print(w io.Writer) error {
	c, err := t.read()
	if err != nil {
		return err
	}
	vips := make([]vip, 0, len(c.entries))
	for v := range c.entries {
		vips = append(vips, v)
	}
	slices.SortFunc(vips, func(a, b vip) int {
		return cmp.Or(a.Addr.Netip().Compare(b.Addr.Netip()), cmp.Compare(a.Port.Host(), b.Port.Host()), cmp.Compare(a.Proto, b.Proto))
	})
	for _, v := range vips {
		if _, err := fmt.Fprintln(w, line(v, c.entries[v])); err != nil {
			return err
		}
	}
	for _, s := range c.stray.steps {
		if _, err := fmt.Fprintln(w, "stray: would", s); err != nil {
			return err
		}
	}
	return nil
}

func line(v vip, e *entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%s id=%d", v.addrPort(), v.Proto, e.id)
	if e.affinity > 0 {
		fmt.Fprintf(&b, " affinity=%ds", e.affinity)
	}
	if e.dirty {
		b.WriteString(" incomplete")
	}
	if len(e.slots) == 0 {
		b.WriteString(" refused")
	}
	for _, s := range e.slots {
		b.WriteString(" ")
		b.WriteString(s.addrPort().String())
	}
	return b.String()
}
