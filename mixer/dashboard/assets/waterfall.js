// The spans of a trace along its time.

import { h, icon, replace } from './dom.js';
import { colour, nanos } from './format.js';

// steps of an axis, in nanoseconds
function ticks(duration) {
  const rough = duration / 5, power = 10 ** Math.floor(Math.log10(rough || 1));
  const step = [1, 2, 5, 10].map((m) => m * power).find((v) => v >= rough) || 1;
  const out = [];
  for (let t = 0; t <= duration && out.length < 20; t += step) out.push(t);
  return out;
}

export function waterfall(trace) {
  const body = h('div', { class: 'spans', role: 'tree', 'aria-label': 'Spans' });
  const state = { closed: new Set(), open: new Set() };
  const total = Math.max(trace.durationNs, 1);
  const axis = ticks(total);
  const left = (ns) => (ns / total * 100).toFixed(3) + '%';
  const head = h('div', { class: 'span head' }, h('div', { class: 'what' }, 'Service and operation'),
    h('div', { class: 'time' }, axis.map((t) => h('span', { class: t > total * 0.93 ? 'tick last' : 'tick', style: { left: left(t) } }, nanos(t)))));

  function draw() {
    const rows = [];
    let hidden = Infinity;
    trace.spans.forEach((span, i) => {
      if (span.depth > hidden) return;
      hidden = state.closed.has(i) ? span.depth : Infinity;
      const parent = trace.spans[i + 1]?.depth > span.depth;
      rows.push(row(span, i, parent));
      if (state.open.has(i)) rows.push(inside(span));
    });
    replace(body, rows);
  }

  function toggle(set, i) {
    if (!set.delete(i)) set.add(i);
    draw();
  }

  function row(span, i, parent) {
    const begin = span.offsetNs / total, end = (span.offsetNs + span.durationNs) / total;
    const where = end < 0.88 ? 'after' : begin > 0.12 ? 'before' : 'within';
    const bar = h('div', {
      class: `bar ${colour(span.service)}` + (span.proxy ? ' proxy' : '') + (span.error ? ' failed' : ''),
      style: { left: left(span.offsetNs), width: `max(${left(span.durationNs)}, 3px)` },
    });
    const text = h('span', {
      class: 'took ' + where,
      style: where === 'before' ? { right: left(total - span.offsetNs) } : { left: left(span.offsetNs + (where === 'after' ? span.durationNs : 0)) },
    }, nanos(span.durationNs));
    return h('div', {
      id: 'span' + i, class: 'span' + (state.open.has(i) ? ' open' : '') + (span.error ? ' failed' : ''), role: 'treeitem', tabindex: 0,
      'aria-level': span.depth + 1, 'aria-expanded': String(state.open.has(i)), onclick: () => toggle(state.open, i),
      onkeydown: (e) => keys(e, i, parent),
    }, h('div', { class: 'what', style: { 'padding-left': 8 + Math.min(span.depth, 24) * 16 + 'px' } },
      h('button', {
        class: 'fold' + (parent ? '' : ' none'), tabindex: -1, 'aria-label': state.closed.has(i) ? 'Show what it caused' : 'Hide what it caused',
        onclick: (e) => (e.stopPropagation(), toggle(state.closed, i)),
      }, parent ? (state.closed.has(i) ? '▸' : '▾') : ''),
      h('i', { class: 'dot ' + colour(span.service) + (span.proxy ? ' proxy' : '') }),
      h('b', {}, span.service || 'unknown'), span.resource?.['service.version'] && h('small', { class: 'version' }, span.resource['service.version']), span.error && icon('error', 13, 'bad'), h('span', { class: 'op' }, span.title)),
    h('div', { class: 'time' }, axis.map((t) => h('i', { class: 'grid', style: { left: left(t) } })), bar, text,
      (span.events || []).map((e) => h('i', { class: 'event', title: e.name, style: { left: left(e.offsetNs) } }))));
  }

  function keys(event, i, parent) {
    const to = { ArrowDown: 'nextElementSibling', ArrowUp: 'previousElementSibling' }[event.key];
    if (to) {
      let el = event.currentTarget[to];
      while (el && !el.classList.contains('span')) el = el[to];
      el?.focus();
    } else if (event.key === 'Enter' || event.key === ' ') toggle(state.open, i);
    else if (event.key === 'ArrowLeft' && parent && !state.closed.has(i)) toggle(state.closed, i);
    else if (event.key === 'ArrowRight' && parent && state.closed.has(i)) toggle(state.closed, i);
    else return;
    event.preventDefault();
  }

  draw();
  return h('div', { class: 'waterfall' }, head, body);
}

// inside is everything that a span says.
function inside(span) {
  const facts = {
    name: span.name, kind: span.kind + (span.proxy ? ' (sidecar)' : ''), 'begins after': nanos(span.offsetNs), duration: nanos(span.durationNs), 'span id': span.spanId,
  };
  if (span.parentSpanId) facts['parent span id'] = span.parentSpanId;
  if (span.status) facts.status = span.status;
  if (span.skewNs) facts['clock corrected by'] = nanos(span.skewNs);
  return h('div', { class: 'inside' + (span.error ? ' failed' : '') }, table('Span', facts), table('Attributes', span.attributes), table('Resource', span.resource),
    (span.events || []).map((e) => table(`${e.name} after ${nanos(e.offsetNs)}`, e.attributes)));
}

function table(title, map) {
  const rows = Object.entries(map || {}).sort(([a], [b]) => (title === 'Span' ? 0 : a.localeCompare(b)));
  if (!rows.length) return null;
  return h('section', {}, h('h3', {}, title), h('table', {}, rows.map(([key, value]) => h('tr', {}, h('th', { scope: 'row' }, key),
    h('td', {}, typeof value === 'object' && value !== null ? JSON.stringify(value) : String(value))))));
}
