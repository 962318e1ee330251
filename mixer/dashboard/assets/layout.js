// Where the boxes of a service graph go: layers from left to right, along the
// calls. Pure: a graph in, coordinates out.

export const SIZE = { width: 212, head: 40, row: 46, foot: 6, gapX: 176, gapY: 30, margin: 28, via: 20 };

// group makes one box of each application, with a row for each version.
export function group(graph) {
  const boxes = new Map();
  const boxOf = new Map();
  for (const node of graph.nodes) {
    const id = node.namespace + '/' + node.app;
    if (!boxes.has(id)) boxes.set(id, { id, namespace: node.namespace, app: node.app, kind: node.kind, rows: [] });
    const box = boxes.get(id);
    if (node.kind === 'workload') box.kind = 'workload';
    box.rows.push(node);
    boxOf.set(node.id, box);
  }
  for (const box of boxes.values()) {
    box.rows.sort((a, b) => a.version.localeCompare(b.version, undefined, { numeric: true }));
    box.height = SIZE.head + box.rows.length * SIZE.row + SIZE.foot;
  }
  return { boxes: [...boxes.values()], boxOf };
}

// layout gives every box x, y and layer.
export function layout(graph) {
  for (const n of graph.nodes) n.version ??= '';
  const { boxes, boxOf } = group(graph);
  const out = new Map(boxes.map((b) => [b, new Set()]));
  for (const e of graph.edges) {
    const from = boxOf.get(e.source), to = boxOf.get(e.target);
    if (from && to && from !== to) out.get(from).add(to);
  }
  const forward = acyclic(boxes, out);
  assignLayers(boxes, forward);
  const layers = [];
  for (const b of boxes) (layers[b.layer] ??= []).push(b);
  const { links, vias } = stretch(forward, layers);
  const near = neighbours([...boxes, ...vias], links);
  for (const l of layers) l.sort((a, b) => a.id.localeCompare(b.id));
  for (let i = 0; i < 6; i++) sweep(i % 2 ? [...layers].reverse() : layers, near);
  return { boxes, boxOf, via: (from, to) => links.get(from)?.get(to), ...place(layers, near) };
}

// stretch gives a call that passes over layers a place in each of them, so that
// it goes between boxes and not through them.
function stretch(forward, layers) {
  const links = new Map(), vias = [];
  for (const [from, targets] of forward) {
    links.set(from, new Map());
    for (const to of targets) {
      const path = [];
      for (let layer = from.layer + 1; layer < to.layer; layer++) {
        const via = { id: from.id + '\u0000' + to.id, layer, height: SIZE.via, via: true };
        layers[layer].push(via);
        vias.push(via);
        path.push(via);
      }
      links.get(from).set(to, path);
    }
  }
  return { links, vias };
}

// acyclic drops the calls that go back, so that what is left has an order.
function acyclic(boxes, out) {
  const state = new Map();
  const forward = new Map(boxes.map((b) => [b, new Set()]));
  const indegree = new Map(boxes.map((b) => [b, 0]));
  for (const targets of out.values()) for (const t of targets) indegree.set(t, indegree.get(t) + 1);
  const visit = (b) => {
    state.set(b, 'open');
    for (const t of [...out.get(b)].sort((x, y) => x.id.localeCompare(y.id))) {
      if (state.get(t) === 'open') continue;
      forward.get(b).add(t);
      if (!state.has(t)) visit(t);
    }
    state.set(b, 'done');
  };
  const first = [...boxes].sort((a, b) => indegree.get(a) - indegree.get(b) || a.id.localeCompare(b.id));
  for (const b of first) if (!state.has(b)) visit(b);
  return forward;
}

// assignLayers puts every box one layer after the last that calls it.
function assignLayers(boxes, forward) {
  for (const b of boxes) b.layer = 0;
  for (let round = 0, changed = true; changed && round <= boxes.length; round++) {
    changed = false;
    for (const b of boxes) {
      for (const t of forward.get(b)) {
        if (t.layer <= b.layer) {
          t.layer = b.layer + 1;
          changed = true;
        }
      }
    }
  }
}

function neighbours(places, links) {
  const near = new Map(places.map((p) => [p, []]));
  for (const [from, targets] of links) {
    for (const [to, path] of targets) {
      const all = [from, ...path, to];
      for (let i = 1; i < all.length; i++) {
        near.get(all[i - 1]).push(all[i]);
        near.get(all[i]).push(all[i - 1]);
      }
    }
  }
  return near;
}

// sweep orders each layer by where its neighbours are.
function sweep(layers, near) {
  const position = new Map();
  for (const l of layers) l.forEach((b, i) => position.set(b, (i + 0.5) / l.length));
  for (const l of layers) {
    const wish = new Map(l.map((b) => {
      const others = near.get(b).filter((n) => n.layer !== b.layer);
      return [b, others.length ? others.reduce((sum, n) => sum + position.get(n), 0) / others.length : position.get(b)];
    }));
    l.sort((a, b) => wish.get(a) - wish.get(b) || a.id.localeCompare(b.id));
    l.forEach((b, i) => position.set(b, (i + 0.5) / l.length));
  }
}

// place gives coordinates: columns by layer, each moved towards its neighbours.
function place(layers, near) {
  const { width, gapX, gapY, margin } = SIZE;
  const tall = (l) => l.reduce((sum, b) => sum + b.height + gapY, -gapY);
  const height = Math.max(0, ...layers.map(tall)) + 2 * margin;
  layers.forEach((l, i) => {
    let y = (height - tall(l)) / 2;
    for (const b of l) {
      b.x = margin + i * (width + gapX);
      b.y = y;
      y += b.height + gapY;
    }
  });
  for (let round = 0; round < 4; round++) {
    for (const l of layers) settle(l, near, height);
  }
  return { width: 2 * margin + layers.length * (width + gapX) - gapX, height };
}

// settle moves a column's boxes towards the middle of their neighbours without overlap.
function settle(column, near, height) {
  const { gapY, margin } = SIZE;
  let floor = margin;
  column.forEach((b, i) => {
    const others = near.get(b);
    const want = others.length
      ? others.reduce((sum, n) => sum + n.y + n.height / 2, 0) / others.length - b.height / 2 : b.y;
    const below = column.slice(i).reduce((sum, x) => sum + x.height + gapY, -gapY);
    b.y = Math.max(floor, Math.min(want, height - margin - below));
    floor = b.y + b.height + gapY;
  });
}
