package query

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Printer writes answers to a terminal.
type Printer struct {
	Out   io.Writer
	Width int  // columns; default 100
	Color bool // ANSI colours
	Now   func() time.Time
}

func (p *Printer) paint(code, s string) string {
	if !p.Color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// List prints traces, one a line.
func (p *Printer) List(l *List) error {
	if len(l.Traces) == 0 {
		_, err := fmt.Fprintln(p.Out, "No traces. Send a request through the mesh, or widen --since and the filters.")
		return err
	}
	now := time.Now
	if p.Now != nil {
		now = p.Now
	}
	w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TRACE\tAGE\tDURATION\tSPANS\tERRORS\tSERVICE\tROOT\tSERVICES")
	for _, t := range l.Traces {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", t.TraceID, age(now().Sub(t.Start)), Duration(t.DurationNS),
			t.Spans, t.Errors, cmp.Or(t.Service, "-"), clean(cut(t.Root, 40)), strings.Join(t.Services, ","))
	}
	return w.Flush()
}

func age(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	}
	return fmt.Sprintf("%dh", int(d.Hours()))
}

// Duration writes nanoseconds for a person.
func Duration(ns int64) string {
	switch d := time.Duration(ns); {
	case d >= time.Second:
		return fmt.Sprintf("%.2fs", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d)/1e6)
	default:
		return fmt.Sprintf("%dµs", d.Microseconds())
	}
}

// Trace prints a trace as a tree with a bar for each span.
func (p *Printer) Trace(v *TraceView) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s\n", p.paint("1", v.TraceID), clean(v.Root))
	fmt.Fprintf(&b, "%s  %s  %d spans  %d errors  %s\n", v.Start.Format("2006-01-02 15:04:05.000 MST"), Duration(v.DurationNS),
		len(v.Spans), v.Errors, strings.Join(v.Services, ", "))
	if v.RootMissed {
		b.WriteString("The span that began this trace is not stored: it may be on its way still, or its sender does not report.\n")
	}
	b.WriteString("\n")
	labels, wide := tree(v.Spans), 0
	for _, l := range labels {
		wide = max(wide, len([]rune(l)))
	}
	wide = min(wide, 60)
	width := p.Width
	if width == 0 {
		width = 100
	}
	bar := max(width-wide-12, 10)
	for i, s := range v.Spans {
		label := []rune(cut(labels[i], wide))
		text := string(label) + strings.Repeat(" ", wide-len(label))
		line := waterfall(s, v.DurationNS, bar)
		if s.Error {
			text, line = p.paint("31", text), p.paint("31", line)
		} else if s.Proxy {
			text, line = p.paint("2", text), p.paint("2", line)
		}
		fmt.Fprintf(&b, "%s %9s %s\n", text, Duration(s.DurationNS), line)
		if s.Error && s.Status != "" {
			fmt.Fprintf(&b, "%s\n", p.paint("31", "  ! "+clean(s.Status)))
		}
	}
	_, err := io.WriteString(p.Out, b.String())
	return err
}

// tree is a label for each span, with branches.
func tree(spans []SpanView) []string {
	out := make([]string, len(spans))
	for i, s := range spans {
		var b strings.Builder
		for d := 1; d <= s.Depth; d++ {
			more := follows(spans[i+1:], d)
			switch {
			case d < s.Depth && more:
				b.WriteString("│ ")
			case d < s.Depth:
				b.WriteString("  ")
			case more:
				b.WriteString("├─")
			default:
				b.WriteString("└─")
			}
		}
		b.WriteString(cmp.Or(s.Service, "?"))
		if s.Proxy {
			b.WriteString(" (sidecar)")
		}
		b.WriteString(" " + clean(s.Title))
		out[i] = b.String()
	}
	return out
}

// follows reports whether a span of this depth comes before one that is less deep.
func follows(rest []SpanView, depth int) bool {
	for _, s := range rest {
		if s.Depth <= depth {
			return s.Depth == depth
		}
	}
	return false
}

// waterfall is a bar of the span's place in the trace.
func waterfall(s SpanView, total int64, width int) string {
	if total <= 0 {
		return "█"
	}
	from := int(s.OffsetNS * int64(width) / total)
	to := int((s.OffsetNS + s.DurationNS) * int64(width) / total)
	from = min(max(from, 0), width-1)
	to = min(max(to, from+1), width)
	return strings.Repeat(" ", from) + strings.Repeat("█", to-from)
}

func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:max(n-1, 0)]) + "…"
	}
	return s
}

// clean keeps what a sender named from driving the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '�'
		}
		return r
	}, s)
}
