package cache

import "sort"

// tree is a sorted map that never changes: set and del return another tree that
// shares all but one path of nodes with the first. It is a B-tree whose nodes
// know how much is below them, so that ranks are cheap. The zero tree is empty.
type tree struct{ root *node }

type item struct {
	key string
	obj *Object
}

// node is a leaf with items, or has kids; it is never empty.
type node struct {
	items []item
	kids  []*node
	first string // smallest key below
	count int    // items below
}

const (
	nodeMax = 64
	nodeMin = 16 // a smaller one is merged with a neighbour if both fit in one
)

// buildTree makes a tree of sorted items, in one pass.
func buildTree(items []item) tree {
	const fill = nodeMax * 3 / 4
	var level []*node
	for len(items) > 0 {
		n := min(fill, len(items))
		level = append(level, leaf(append([]item(nil), items[:n]...)))
		items = items[n:]
	}
	for len(level) > 1 {
		var up []*node
		for len(level) > 0 {
			n := min(fill, len(level))
			up = append(up, inner(append([]*node(nil), level[:n]...)))
			level = level[n:]
		}
		level = up
	}
	if len(level) == 0 {
		return tree{}
	}
	return tree{level[0]}
}

func leaf(items []item) *node {
	return &node{items: items, first: items[0].key, count: len(items)}
}

func inner(kids []*node) *node {
	n := &node{kids: kids, first: kids[0].first}
	for _, k := range kids {
		n.count += k.count
	}
	return n
}

func (t tree) len() int {
	if t.root == nil {
		return 0
	}
	return t.root.count
}

// get returns the object under key, or nil.
func (t tree) get(key string) *Object {
	n := t.root
	if n == nil {
		return nil
	}
	for n.kids != nil {
		n = n.kids[n.kid(key)]
	}
	if i := n.pos(key); i < len(n.items) && n.items[i].key == key {
		return n.items[i].obj
	}
	return nil
}

// set is the tree with key bound to obj, and what was bound to it before.
func (t tree) set(key string, obj *Object) (tree, *Object) {
	if t.root == nil {
		return tree{leaf([]item{{key, obj}})}, nil
	}
	left, right, old := t.root.set(item{key, obj})
	if right != nil {
		left = inner([]*node{left, right})
	}
	return tree{left}, old
}

// del is the tree without key, and what was bound to it.
func (t tree) del(key string) (tree, *Object) {
	if t.root == nil {
		return t, nil
	}
	n, old := t.root.del(key)
	if old == nil {
		return t, nil
	}
	for n != nil && len(n.kids) == 1 {
		n = n.kids[0]
	}
	return tree{n}, old
}

// ascend calls f for every item from key on, in order, until f returns false.
func (t tree) ascend(from string, f func(item) bool) {
	if t.root != nil {
		t.root.ascend(from, f)
	}
}

// rank is the number of keys before key.
func (t tree) rank(key string) int {
	r, n := 0, t.root
	if n == nil {
		return 0
	}
	for n.kids != nil {
		i := n.kid(key)
		for _, k := range n.kids[:i] {
			r += k.count
		}
		n = n.kids[i]
	}
	return r + n.pos(key)
}

// kid is the index of the child in which key is or would be.
func (n *node) kid(key string) int {
	i := sort.Search(len(n.kids), func(i int) bool { return n.kids[i].first > key })
	return max(i-1, 0)
}

func (n *node) pos(key string) int {
	return sort.Search(len(n.items), func(i int) bool { return n.items[i].key >= key })
}

func (n *node) set(it item) (left, right *node, old *Object) {
	if n.kids == nil {
		return n.setItem(it)
	}
	i := n.kid(it.key)
	l, r, old := n.kids[i].set(it)
	if r == nil {
		kids := append([]*node(nil), n.kids...)
		kids[i] = l
		c := &node{kids: kids, first: kids[0].first, count: n.count - n.kids[i].count + l.count}
		return c, nil, old
	}
	kids := make([]*node, 0, len(n.kids)+1)
	kids = append(append(append(kids, n.kids[:i]...), l, r), n.kids[i+1:]...)
	if len(kids) <= nodeMax {
		return inner(kids), nil, old
	}
	at := splitAt(len(kids), i+1)
	return inner(kids[:at:at]), inner(kids[at:]), old
}

func (n *node) setItem(it item) (left, right *node, old *Object) {
	i := n.pos(it.key)
	if i < len(n.items) && n.items[i].key == it.key {
		items := append([]item(nil), n.items...)
		old, items[i] = items[i].obj, it
		return leaf(items), nil, old
	}
	items := make([]item, 0, len(n.items)+1)
	items = append(append(append(items, n.items[:i]...), it), n.items[i:]...)
	if len(items) <= nodeMax {
		return leaf(items), nil, nil
	}
	at := splitAt(len(items), i)
	return leaf(items[:at:at]), leaf(items[at:]), nil
}

// splitAt halves a node, except that one which grows at its end stays nearly
// full: names often come in ascending order.
func splitAt(n, grew int) int {
	if grew == n-1 {
		return n - n/8
	}
	return n / 2
}

func (n *node) del(key string) (*node, *Object) {
	if n.kids == nil {
		i := n.pos(key)
		if i == len(n.items) || n.items[i].key != key {
			return n, nil
		}
		old := n.items[i].obj
		if len(n.items) == 1 {
			return nil, old
		}
		items := make([]item, 0, len(n.items)-1)
		return leaf(append(append(items, n.items[:i]...), n.items[i+1:]...)), old
	}
	i := n.kid(key)
	k, old := n.kids[i].del(key)
	if old == nil {
		return n, nil
	}
	kids := make([]*node, 0, len(n.kids))
	kids = append(kids, n.kids[:i]...)
	if k != nil {
		kids = append(kids, k)
	}
	kids = append(kids, n.kids[i+1:]...)
	if len(kids) == 0 {
		return nil, old
	}
	if k != nil {
		kids = mergeSmall(kids, i)
	}
	return inner(kids), old
}

// mergeSmall joins kids[i] with a neighbour if it is small and both fit in one.
func mergeSmall(kids []*node, i int) []*node {
	if kids[i].size() >= nodeMin || len(kids) < 2 {
		return kids
	}
	if i == len(kids)-1 {
		i--
	}
	a, b := kids[i], kids[i+1]
	if a.size()+b.size() > nodeMax {
		return kids
	}
	if a.kids == nil {
		kids[i] = leaf(append(append([]item(nil), a.items...), b.items...))
	} else {
		kids[i] = inner(append(append([]*node(nil), a.kids...), b.kids...))
	}
	return append(kids[:i+1], kids[i+2:]...)
}

func (n *node) size() int { return len(n.items) + len(n.kids) }

func (n *node) ascend(from string, f func(item) bool) bool {
	if n.kids == nil {
		i := 0
		if from > n.first {
			i = n.pos(from)
		}
		for ; i < len(n.items); i++ {
			if !f(n.items[i]) {
				return false
			}
		}
		return true
	}
	i := 0
	if from > n.first {
		i = n.kid(from)
	}
	for ; i < len(n.kids); i++ {
		if !n.kids[i].ascend(from, f) {
			return false
		}
	}
	return true
}
