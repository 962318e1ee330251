package scheduler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/xebec-mesh/xebec/orchestrator/scheduler/plugins"
	"github.com/xebec-mesh/xebec/orchestrator/scheduler/snapshot"
)

// Outcome is what a scheduling cycle decided for one pod.
type Outcome struct {
	Node     string         // "" if no node suits
	Nodes    int            // how many there are
	Reasons  map[string]int // why nodes do not suit, if none does
	Rejected []string       // filters that said so
}

// String is the message of the event and condition, as Kubernetes words it.
func (o *Outcome) String() string {
	if o.Node != "" {
		return "node " + o.Node
	}
	if o.Nodes == 0 {
		return "no nodes available to schedule pods"
	}
	var reasons []string
	for reason, n := range o.Reasons {
		reasons = append(reasons, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(reasons)
	return fmt.Sprintf("0/%d nodes are available: %s.", o.Nodes, strings.Join(reasons, ", "))
}

// cycle chooses nodes. It belongs to one goroutine; its buffers are used again.
type cycle struct {
	filters []plugins.Filter
	scores  []plugins.Score
	rand    *rand.Rand
	next    int // where the search for suitable nodes goes on

	checks   []plugins.Check
	names    []string // of checks
	feasible []*snapshot.Node
	values   []int64
	totals   []int64
}

func newCycle(r *rand.Rand) *cycle {
	return &cycle{filters: plugins.Filters(), scores: plugins.Scores(), rand: r}
}

// prepare asks every filter what it has to say about the pod.
func (c *cycle) prepare(p *snapshot.Pod, s *snapshot.Snapshot) {
	c.checks, c.names = c.checks[:0], c.names[:0]
	for i := range c.filters {
		if check := c.filters[i].Prepare(p, s); check != nil {
			c.checks = append(c.checks, check)
			c.names = append(c.names, c.filters[i].Name)
		}
	}
}

// refuse returns the first filter that refuses the node, and why; -1 if none does.
func (c *cycle) refuse(n *snapshot.Node) (check int, reason string) {
	for i, check := range c.checks {
		if reason := check(n); reason != "" {
			return i, reason
		}
	}
	return -1, ""
}

// place chooses a node for the pod.
func (c *cycle) place(p *snapshot.Pod, s *snapshot.Snapshot) Outcome {
	out := Outcome{Nodes: len(s.Nodes)}
	c.prepare(p, s)
	c.search(s, &out)
	switch len(c.feasible) {
	case 0:
		return out
	case 1:
		out.Node = c.feasible[0].Name
	default:
		out.Node = c.best(p, s).Name
	}
	out.Reasons, out.Rejected = nil, nil
	return out
}

// search collects nodes that suit: on a large cluster not all of them, and each
// time going on where the last search ended, so that all get their turn.
func (c *cycle) search(s *snapshot.Snapshot, out *Outcome) {
	c.feasible = c.feasible[:0]
	n := len(s.Nodes)
	want := enough(n)
	refused := make([]bool, len(c.checks))
	for i := range n {
		node := s.Nodes[(c.next+i)%n]
		check, reason := c.refuse(node)
		if check < 0 {
			if c.feasible = append(c.feasible, node); len(c.feasible) == want {
				c.next = (c.next + i + 1) % n
				return
			}
			continue
		}
		if out.Reasons == nil {
			out.Reasons = map[string]int{}
		}
		out.Reasons[reason]++
		refused[check] = true
	}
	for i, r := range refused {
		if r {
			out.Rejected = append(out.Rejected, c.names[i])
		}
	}
}

// enough is how many suitable nodes are looked at among n: all of a hundred,
// then a share that falls from half to a twentieth (kube-scheduler's
// percentageOfNodesToScore, left at its default).
func enough(n int) int {
	const least = 100
	if n <= least {
		return n
	}
	percent := max(50-n/125, 5)
	return max(n*percent/100, least)
}

// best returns the feasible node with the best score, any of them at random if
// several share it.
func (c *cycle) best(p *snapshot.Pod, s *snapshot.Snapshot) *snapshot.Node {
	c.totals = append(c.totals[:0], make([]int64, len(c.feasible))...)
	for i := range c.scores {
		rating := c.scores[i].Prepare(p, s)
		if rating == nil {
			continue
		}
		c.values = c.values[:0]
		for _, n := range c.feasible {
			c.values = append(c.values, rating.Rate(n))
		}
		if rating.Normalize != nil {
			rating.Normalize(c.values)
		}
		for j, v := range c.values {
			c.totals[j] += c.scores[i].Weight * v
		}
	}
	best, same := 0, 1
	for i := 1; i < len(c.totals); i++ {
		switch {
		case c.totals[i] > c.totals[best]:
			best, same = i, 1
		case c.totals[i] == c.totals[best]:
			if same++; c.rand.IntN(same) == 0 {
				best = i
			}
		}
	}
	return c.feasible[best]
}

// fits says whether one node suits the pod now.
func (c *cycle) fits(p *snapshot.Pod, n *snapshot.Node, s *snapshot.Snapshot) bool {
	c.prepare(p, s)
	check, _ := c.refuse(n)
	return check < 0
}

// global says whether one of the filters looks at more than the node itself.
func (c *cycle) global(names []string) bool {
	for i := range c.filters {
		if c.filters[i].Global && slices.Contains(names, c.filters[i].Name) {
			return true
		}
	}
	return false
}
