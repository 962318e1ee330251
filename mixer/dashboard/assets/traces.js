// The list of traces, and one trace.

import { get } from './api.js';
import { h, icon, replace } from './dom.js';
import { ago, clock, colour, nanos, plural } from './format.js';
import { waterfall } from './waterfall.js';

const EVERY = 4000;

export function tracesView(root, params, tell) {
  const filter = {
    service: params.get('service') || '', minDuration: params.get('minDuration') || '',
    error: params.get('error') === 'true', since: params.get('since') || '1h', limit: params.get('limit') || '50',
  };
  const list = h('div', { class: 'list' }, h('p', { class: 'empty dim' }, 'Loading…'));
  const services = h('select', { id: 'service', onchange: (e) => go({ service: e.target.value }) },
    h('option', { value: '' }, 'All services'), filter.service && h('option', { value: filter.service, selected: true }, filter.service));
  replace(root, h('div', { class: 'tools' }, h('label', {}, 'Service ', services),
    h('label', {}, 'Longer than ', h('input', {
      id: 'min', value: filter.minDuration, placeholder: '250ms', size: 7, onchange: (e) => go({ minDuration: e.target.value.trim() }),
    })),
    h('label', {}, 'Since ', h('select', { id: 'since', onchange: (e) => go({ since: e.target.value }) },
      ['5m', '15m', '1h', '6h', '24h', '72h'].map((t) => h('option', { value: t, selected: t === filter.since }, t.replace('m', ' min').replace('h', ' h'))))),
    h('label', { class: 'check' }, h('input', { id: 'error', type: 'checkbox', checked: filter.error, onchange: (e) => go({ error: e.target.checked }) }), ' Only errors')),
  list);

  function go(change) {
    const next = Object.entries({ ...filter, ...change }).filter(([, v]) => v);
    location.hash = '#/traces?' + new URLSearchParams(next);
  }

  const gone = new AbortController();
  let timer = 0, before = '';
  async function follow() {
    try {
      const [{ traces }, known] = await Promise.all([
        get('/telemetry/traces', filter, gone.signal), get('/telemetry/services', { since: '24h' }, gone.signal)]);
      tell(null);
      const names = known.services.filter((n) => n !== filter.service);
      if (before !== names.join()) {
        before = names.join();
        replace(services, h('option', { value: '' }, 'All services'), filter.service && h('option', { value: filter.service, selected: true }, filter.service),
          names.map((n) => h('option', { value: n }, n)));
      }
      list.classList.remove('stale');
      replace(list, traces.length ? rows(traces) : none(filter));
    } catch (problem) {
      if (problem.name === 'AbortError') return;
      tell(problem);
      list.classList.add('stale');
      if (problem.status === 401 || problem.status === 400) return;
    }
    timer = setTimeout(follow, EVERY);
  }
  follow();
  return () => {
    gone.abort();
    clearTimeout(timer);
  };
}

function none(filter) {
  const narrow = filter.service || filter.minDuration || filter.error;
  return h('div', { class: 'empty' }, h('h2', {}, 'No traces here'),
    narrow ? h('p', {}, 'No stored trace matches these filters. ', h('a', { href: '#/traces' }, 'Show all'), '.')
      : h('p', {}, 'Every request through a sidecar leaves a trace within a few seconds. Send one to a service of the mesh.'));
}

function rows(traces) {
  const longest = Math.max(...traces.map((t) => t.durationNs), 1);
  const now = new Date();
  return h('table', { class: 'traces' }, h('thead', {}, h('tr', {},
    ['Request', 'Services', 'Spans', 'Duration', 'When'].map((t) => h('th', { scope: 'col' }, t)))),
  h('tbody', {}, traces.map((t) => {
    const open = () => { location.hash = '#/trace/' + t.traceId; };
    return h('tr', { class: t.errors ? 'failed' : '', onclick: open },
      h('td', { class: 'what' }, h('a', { href: '#/trace/' + t.traceId, id: 't' + t.traceId }, t.root || '(no name)'),
        h('span', { class: 'dim' }, t.service || 'unknown', ' · ', t.traceId.slice(0, 8))),
      h('td', {}, t.services.map((n) => h('span', { class: 'chip ' + colour(n) }, n))),
      h('td', { class: 'number' }, t.spans, t.errors > 0 && h('span', { class: 'badge' }, icon('error', 12), ' ' + t.errors)),
      h('td', { class: 'length' }, h('span', { class: 'meter' }, h('i', { style: { width: Math.max(t.durationNs / longest * 100, 1) + '%' } })),
        h('b', {}, nanos(t.durationNs))),
      h('td', { class: 'dim', title: t.start }, ago(new Date(t.start), now)));
  })));
}

export function traceView(root, id, tell) {
  const gone = new AbortController();
  let timer = 0, tries = 0, shown = 0;
  replace(root, h('p', { class: 'empty dim' }, 'Loading…'));
  async function load() {
    try {
      const trace = await get('/telemetry/traces/' + encodeURIComponent(id), {}, gone.signal);
      tell(null);
      if (trace.spans.length !== shown) draw(root, trace);
      shown = trace.spans.length;
    } catch (problem) {
      if (problem.name === 'AbortError') return;
      if (problem.status === 404 || problem.status === 400) {
        if (!shown) replace(root, missing(id, problem));
      } else tell(problem);
      if (problem.status === 400 || problem.status === 401) return;
    }
    // Spans of one trace arrive over some seconds.
    if (tries++ < 10) timer = setTimeout(load, 1500);
  }
  load();
  return () => {
    gone.abort();
    clearTimeout(timer);
  };
}

function missing(id, problem) {
  return h('div', { class: 'empty' }, h('h2', {}, 'This trace is not here'), h('p', {}, h('code', {}, id)),
    h('p', {}, problem.message), h('p', {}, h('a', { href: '#/traces' }, 'Show the newest traces')));
}

function draw(root, trace) {
  const begin = new Date(trace.start);
  replace(root, h('div', { class: 'trace-head' },
    h('p', { class: 'dim' }, h('a', { href: '#/traces' }, 'Traces'), ' / ', h('code', {}, trace.traceId)),
    h('h1', {}, trace.root || '(no name)'),
    h('p', { class: 'facts' }, h('b', {}, nanos(trace.durationNs)), ' · ', plural(trace.spans.length, 'span'), ' · ',
      begin.toLocaleDateString() + ' ' + clock(begin), trace.errors > 0 && [' · ', h('span', { class: 'badge' }, icon('error', 12), ' ' + plural(trace.errors, 'error'))]),
    h('p', {}, trace.services.map((n) => h('span', { class: 'chip ' + colour(n) }, n)),
      h('span', { class: 'chip proxy' }, 'sidecar')),
    trace.rootMissing && h('p', { class: 'problem warn' }, 'The span that began this trace is not stored: it may still be on its way, or its sender does not report.')),
  waterfall(trace));
}
