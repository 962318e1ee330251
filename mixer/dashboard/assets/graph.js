// The service graph, followed live.

import { get } from './api.js';
import { h, icon, iconPath, replace, s } from './dom.js';
import { level, millis, percent, plural, rate } from './format.js';
import { layout, SIZE } from './layout.js';

const WINDOWS = ['1m', '5m', '15m', '1h'];
const EVERY = 3000;

export function graphView(root, params, tell) {
  const window = WINDOWS.includes(params.get('window')) ? params.get('window') : '1m';
  const namespace = params.get('namespace') || '';
  const canvas = h('div', { class: 'canvas' });
  const side = h('aside', { class: 'side', hidden: true });
  const spaces = h('select', { id: 'namespace', 'aria-label': 'Namespace', onchange: (e) => go({ namespace: e.target.value }) },
    h('option', { value: '' }, 'All namespaces'), namespace && h('option', { value: namespace, selected: true }, namespace));
  const legend = h('p', { class: 'legend' },
    h('span', { class: 'key good' }, 'healthy'), h('span', { class: 'key warn' }, 'some errors'), h('span', { class: 'key bad' }, '5% or more'),
    h('span', {}, icon('lock', 14, 'good'), ' mutual TLS'), h('span', {}, icon('open', 14, 'warn'), ' plaintext'));
  replace(root, h('div', { class: 'tools' },
    h('label', {}, 'Last ', h('select', { id: 'window', onchange: (e) => go({ window: e.target.value }) },
      WINDOWS.map((w) => h('option', { value: w, selected: w === window }, w.replace('m', ' min').replace('h', ' h'))))),
    spaces, h('span', { class: 'grow' }), legend),
  h('div', { class: 'split' }, canvas, side));

  function go(change) {
    const next = new URLSearchParams({ window, namespace, ...change });
    location.hash = '#/graph?' + next;
  }

  const state = { graph: null, picked: null };
  const gone = new AbortController();
  let timer = 0;

  async function follow() {
    try {
      const graph = await get('/telemetry/graph', { window, namespace }, gone.signal);
      tell(null);
      state.graph = graph;
      options(spaces, graph, namespace);
      canvas.classList.remove('stale');
      if (graph.nodes.length) draw(canvas, side, state, window);
      else replace(canvas, nobody());
    } catch (problem) {
      if (problem.name === 'AbortError') return;
      tell(problem);
      canvas.classList.add('stale');
      if (problem.status === 401) return;
    }
    timer = setTimeout(follow, EVERY);
  }
  follow();
  return () => {
    gone.abort();
    clearTimeout(timer);
  };
}

function options(select, graph, chosen) {
  const all = [...new Set([chosen, ...graph.nodes.map((n) => n.namespace)])].filter(Boolean).sort();
  const have = [...select.options].map((o) => o.value).filter(Boolean);
  if (all.join() === have.join()) return;
  replace(select, h('option', { value: '' }, 'All namespaces'), all.map((n) => h('option', { value: n, selected: n === chosen }, n)));
}

function nobody() {
  return h('div', { class: 'empty' }, h('h2', {}, 'Nobody is in the mesh yet'),
    h('p', {}, 'Label a namespace, and pods that start in it get a sidecar and appear here:'),
    h('pre', {}, 'xebec kubectl label namespace default istio-injection=enabled\nxebec kubectl rollout restart deployment'));
}

// draw makes the picture anew; coordinates are stable as long as the same boxes exist.
function draw(canvas, side, state, window) {
  const { graph } = state;
  const plan = layout(graph);
  const port = ports(plan);
  plan.backs = 0;
  const pick = (what) => {
    state.picked = state.picked === what ? null : what;
    draw(canvas, side, state, window);
  };
  const calm = graph.edges.length === 0;
  side.hidden = !state.picked || ![...graph.nodes.map((n) => n.id), ...graph.edges.map(name)].includes(state.picked);
  const scale = Math.max(0.72, Math.min(1.25, (canvas.clientWidth - 4) / plan.width));
  const drawn = [...graph.edges].sort((a, b) => a.traffic.errors - b.traffic.errors)
    .map((edge) => drawEdge(edge, port, plan, state.picked, pick));
  const high = plan.height + 44 * plan.backs;
  const svg = s('svg', {
    class: 'graph', viewBox: `0 0 ${plan.width} ${high}`, width: plan.width * scale, height: high * scale,
    role: 'group', 'aria-label': 'Service graph', onclick: (e) => e.target === svg && state.picked && pick(state.picked),
  }, s('defs', {}, ['good', 'warn', 'bad', 'idle'].map((l) => s('marker', {
    id: 'tip-' + l, viewBox: '0 0 8 8', refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: 'userSpaceOnUse', orient: 'auto', class: l,
  }, s('path', { d: 'M0 0.5L7.5 4 0 7.5z' })))),
  );
  apart(drawn);
  const paths = s('g', {}, drawn.map((d) => d.path)), labels = s('g', {}, drawn.map((d) => edgeLabel(d)));
  svg.append(paths, s('g', {}, plan.boxes.map((b) => drawBox(b, outgoing(graph), state.picked, pick))), labels);
  const scroll = [canvas.scrollLeft, canvas.scrollTop];
  replace(canvas, svg, calm && h('p', { class: 'hint' },
    'No calls in this time. Send requests to one of these services; they appear here when they have ended.'));
  [canvas.scrollLeft, canvas.scrollTop] = scroll;
  details(side, state, window, pick);
}

// ports says where on its row an edge leaves or arrives: rows share their height.
function ports(plan) {
  const at = new Map();
  for (const box of plan.boxes) {
    box.rows.forEach((node, i) => {
      at.set(node.id, { box, y: box.y + SIZE.head + i * SIZE.row + SIZE.row / 2 - 3 });
    });
  }
  return at;
}

function width(rate) { return Math.min(1.5 + Math.log10(1 + rate) * 1.6, 7); }

function name(edge) { return edge.source + ' → ' + edge.target; }

// outgoing is how often each node calls others.
function outgoing(graph) {
  const out = new Map();
  for (const e of graph.edges) out.set(e.source, (out.get(e.source) || 0) + e.traffic.rate);
  return out;
}

// route is an edge's path, and where its label goes: in the middle of the last gap.
function route(from, to, plan) {
  const via = plan.via(from.box, to.box);
  if (!via) return back(from, to, plan);
  const x2 = to.box.x - 3;
  let x = from.box.x + SIZE.width, y = from.y, d = `M${x} ${y}`;
  const bend = (toX, toY) => {
    const pull = (toX - x) * 0.45;
    d += `C${x + pull} ${y} ${toX - pull} ${toY} ${toX} ${toY}`;
  };
  for (const v of via) {
    bend(v.x, v.y + v.height / 2);
    x = v.x + SIZE.width;
    y = v.y + v.height / 2;
    d += `H${x}`;
  }
  bend(x2, to.y);
  return { d, x: x2 + 3 - SIZE.gapX / 2, y: (y + to.y) / 2 };
}

// back is the path of a call to a box that is not further right: each below the last.
function back(from, to, plan) {
  const x1 = from.box.x + SIZE.width, x2 = to.box.x - 3, low = plan.height + 14 + 42 * plan.backs++;
  const middle = (x1 + x2) / 2;
  return {
    d: `M${x1} ${from.y}C${x1 + 90} ${from.y} ${x1 + 70} ${low} ${x1 - 30} ${low}H${x2 + 30}C${x2 - 70} ${low} ${x2 - 90} ${to.y} ${x2} ${to.y}`,
    x: middle, y: low,
  };
}

function drawEdge(edge, port, plan, picked, pick) {
  const from = port.get(edge.source), to = port.get(edge.target);
  const id = name(edge);
  const { d, x, y } = route(from, to, plan);
  const how = level(edge.traffic.errors, edge.traffic.requests);
  const cls = `edge ${how}` + (picked === id ? ' picked' : '') + (picked && picked !== id && ![edge.source, edge.target].includes(picked) ? ' faded' : '');
  const act = actions(id, pick, `${edge.source} calls ${edge.target}: ${rate(edge.traffic.rate)}, ${percent(edge.traffic.errors)} errors`);
  const path = s('g', { class: cls }, s('path', { d, class: 'hit', ...act }),
    s('path', { d, class: 'line', 'stroke-width': width(edge.traffic.rate), 'marker-end': `url(#tip-${how})` }),
    s('path', { d, class: 'flow', 'stroke-width': Math.max(1, width(edge.traffic.rate) - 1.5) }));
  const share = edge.share < 0.9995 ? percent(edge.share) + ' · ' : '';
  const first = share + rate(edge.traffic.rate);
  const failing = edge.traffic.errors > 0;
  const second = (failing ? percent(edge.traffic.errors) + ' err · ' : 'p99 ') + millis(edge.traffic.p99);
  return { edge, path, cls, act, first, second, failing, x, y, w: Math.max(first.length * 6.9 + 30, second.length * 6.1 + 18, 64) };
}

// apart moves labels up and down until none covers another.
function apart(labels) {
  for (let round = 0; round < 40; round++) {
    let moved = false;
    labels.sort((a, b) => a.y - b.y);
    for (let i = 0; i < labels.length; i++) {
      for (let j = i + 1; j < labels.length; j++) {
        const a = labels[i], b = labels[j], near = 38 - (b.y - a.y);
        if (near <= 0) break;
        if (Math.abs(a.x - b.x) >= (a.w + b.w) / 2 + 4) continue;
        a.y -= near / 2;
        b.y += near / 2;
        moved = true;
      }
    }
    if (!moved) return;
  }
}

function edgeLabel({ edge, cls, act, first, second, failing, x, y, w }) {
  const safe = edge.mtls === 1;
  return s('g', { class: cls + ' label', transform: `translate(${x - w / 2} ${y - 17})`, ...act, tabindex: undefined },
    s('rect', { width: w, height: 34, rx: 7 }),
    s('path', { class: 'lock ' + (safe ? 'good' : 'warn'), d: iconPath(safe ? 'lock' : 'open'), transform: `translate(${w / 2 - first.length * 3.3 - 9} 3) scale(.8)`, 'fill-rule': 'evenodd' },
      s('title', {}, safe ? 'mutual TLS' : edge.mtls > 0 ? percent(edge.mtls) + ' under mutual TLS' : 'plaintext')),
    s('text', { x: w / 2 + 7, y: 14, 'text-anchor': 'middle', class: 'strong' }, first),
    s('text', { x: w / 2, y: 28, 'text-anchor': 'middle', class: failing ? 'bad' : 'dim' }, second));
}

function actions(id, pick, label) {
  return {
    tabindex: 0, role: 'button', 'aria-label': label, onclick: () => pick(id),
    onkeydown: (e) => (e.key === 'Enter' || e.key === ' ') && (e.preventDefault(), pick(id)),
  };
}

function drawBox(box, out, picked, pick) {
  const g = s('g', { class: 'box ' + box.kind, transform: `translate(${box.x} ${box.y})` },
    s('rect', { class: 'back', width: SIZE.width, height: box.height, rx: 10 }),
    s('text', { class: 'name', x: 14, y: 19 }, cut(box.app === 'outside' ? 'Outside the mesh' : box.app, 24)),
    s('text', { class: 'dim', x: 14, y: 33 }, cut(subtitle(box), 32)));
  box.rows.forEach((node, i) => g.append(drawRow(node, out.get(node.id) || 0, SIZE.head + i * SIZE.row, picked, pick)));
  return g;
}

function subtitle(box) {
  if (box.kind === 'outside') return 'callers without a sidecar';
  const bare = box.rows.every((n) => !n.meshed) && box.kind === 'workload';
  return (box.namespace || 'another host') + (bare ? ' · no sidecar' : box.kind === 'service' && box.namespace ? ' · no pod' : '');
}

function drawRow(node, out, y, picked, pick) {
  const how = level(node.in.errors, node.in.requests);
  const row = s('g', {
    class: `row ${how}` + (picked === node.id ? ' picked' : ''), transform: `translate(6 ${y})`,
    ...actions(node.id, pick, `${node.app} ${node.version}: ${rate(node.in.rate)}, ${percent(node.in.errors)} errors`),
  }, s('rect', { width: SIZE.width - 12, height: SIZE.row - 6, rx: 6 }), s('circle', { cx: 13, cy: 14, r: 4.5 }));
  const title = node.version || (node.pods ? 'no version' : 'all calls');
  row.append(s('text', { x: 24, y: 18, class: node.version ? 'version' : 'dim' }, cut(title, 16)),
    s('text', { x: SIZE.width - 22, y: 18, 'text-anchor': 'end', class: 'dim' }, node.pods ? plural(node.pods, 'pod') : ''));
  row.append(s('text', { x: 24, y: 33, class: 'figures' }, node.in.requests
    ? [rate(node.in.rate), s('tspan', { class: how === 'good' ? 'dim' : how }, '  ' + percent(node.in.errors) + ' err'),
      s('tspan', { class: 'dim' }, '  p99 ' + millis(node.in.p99))]
    
    : s('tspan', { class: 'dim' }, out ? 'calls others, ' + rate(out) : 'nobody calls it')));
  return row;
}

function cut(text, n) { return text.length > n ? text.slice(0, n - 1) + '…' : text; }

// details shows what was picked beside the picture.
function details(side, state, window, pick) {
  const node = state.graph.nodes.find((n) => n.id === state.picked);
  const edge = state.graph.edges.find((e) => name(e) === state.picked);
  side.hidden = !node && !edge;
  if (side.hidden) return;
  const traffic = node ? node.in : edge.traffic;
  const byID = (id) => state.graph.nodes.find((n) => n.id === id);
  const full = (n) => n.app + (n.version ? ' ' + n.version : '');
  const to = node || byID(edge.target), from = edge && byID(edge.source);
  const chart = side.dataset.of === state.picked ? side.querySelector('.charts') : h('div', { class: 'charts' });
  side.dataset.of = state.picked;
  replace(side, h('button', { class: 'icon close', 'aria-label': 'Close', onclick: () => pick(state.picked) }, icon('close')),
    h('h2', {}, node ? full(node) : [full(from), ' → ', full(to)]),
    h('p', { class: 'dim' }, node ? [node.namespace, node.workload && ' · ' + node.workload, node.kind === 'workload' && (node.meshed ? ' · in the mesh' : ' · no sidecar')]
      : [edge.tcp ? 'TCP' : 'HTTP', ' · ', edge.mtls === 1 ? 'mutual TLS' : edge.mtls > 0 ? percent(edge.mtls) + ' under mutual TLS' : 'plaintext',
        edge.share < 0.9995 && ` · ${percent(edge.share)} of its calls to ${to.app}`]),
    h('dl', { class: 'figures' }, figure('Requests', traffic.requests), figure('Rate', rate(traffic.rate)),
      figure('Errors', percent(traffic.errors), level(traffic.errors, traffic.requests)),
      figure('p50', millis(traffic.p50)), figure('p99', millis(traffic.p99))),
    chart, edge && counts('Response codes', edge.codes), edge && counts('Envoy’s reasons', edge.flags),
    h('p', {}, h('a', { href: '#/traces?service=' + encodeURIComponent(to.app) }, `Traces of ${to.app}`), ' · ',
      h('a', { href: '#/traces?error=true&service=' + encodeURIComponent(to.app) }, 'with errors')));
  charts(chart, { destination: to.app, version: to.version, namespace: to.namespace, source: from && from.app });
}

function figure(name, value, cls = '') {
  return h('div', {}, h('dt', {}, name), h('dd', { class: cls }, value));
}

function counts(title, map) {
  const rows = Object.entries(map || {}).sort((a, b) => b[1] - a[1]);
  if (!rows.length) return null;
  const all = rows.reduce((sum, [, n]) => sum + n, 0);
  return [h('h3', {}, title), h('table', { class: 'counts' }, rows.map(([code, n]) => h('tr', {},
    h('th', {}, code === '0' ? 'no answer' : code), h('td', {}, n), h('td', { class: 'dim' }, percent(n / all)))))];
}

async function charts(el, about) {
  try {
    const { points } = await get('/telemetry/metrics', { ...about, since: '15m', step: '15s' });
    const whole = points.slice(0, -1); // the last step has only begun
    replace(el, spark('Requests, last 15 min', whole.map((p) => p.rate), rate),
      spark('p99', whole.map((p) => p.p99), millis), spark('Errors', whole.map((p) => p.errors), percent, 'bad'));
  } catch { /* the view says it */ }
}

function spark(title, values, format, cls = '') {
  const w = 280, high = 44, top = Math.max(...values, 0);
  const points = values.map((v, i) => [i / Math.max(values.length - 1, 1) * w, high - 1 - (top ? v / top : 0) * (high - 6)]);
  const line = points.map(([x, y], i) => (i ? 'L' : 'M') + x.toFixed(1) + ' ' + y.toFixed(1)).join('');
  return h('figure', { class: 'spark ' + cls }, h('figcaption', {}, title, h('span', {}, 'most ' + format(top))),
    s('svg', { viewBox: `0 0 ${w} ${high}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' },
      s('path', { class: 'area', d: line && line + `L${w} ${high}L0 ${high}z` }), s('path', { class: 'line', d: line })));
}
