// The page: which view is shown, by the address after #, and the colours.

import { get } from './api.js';
import { h, icon, replace } from './dom.js';
import { graphView } from './graph.js';
import { traceView, tracesView } from './traces.js';

const main = document.getElementById('view');
const banner = document.getElementById('banner');
const live = document.getElementById('live');
let leave = null;

// tell shows a problem above the view; null takes it away.
export function tell(problem) {
  live.classList.toggle('off', Boolean(problem));
  live.textContent = problem ? 'not live' : 'live';
  if (!problem) return replace(banner);
  replace(banner, h('p', { class: 'problem' }, icon('error'), ' ' + (problem.message || problem)));
}

function show() {
  const [path, query] = location.hash.slice(2).split('?');
  const params = new URLSearchParams(query);
  const [name, ...rest] = path.split('/').map(decodeURIComponent);
  leave?.();
  const section = name === 'trace' ? 'traces' : name || 'graph';
  for (const view of ['graph', 'traces']) {
    document.getElementById('nav-' + view).toggleAttribute('aria-current', view === section);
  }
  tell(null);
  main.scrollTop = 0;
  switch (name) {
    case 'traces': leave = tracesView(main, params, tell); break;
    case 'trace': leave = traceView(main, rest[0], tell); break;
    default: leave = graphView(main, params, tell);
  }
}

function theme(next) {
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  let now = localStorage.getItem('xebec-theme') || (dark ? 'dark' : 'light');
  if (next) {
    now = now === 'dark' ? 'light' : 'dark';
    localStorage.setItem('xebec-theme', now);
  }
  document.documentElement.dataset.theme = now;
  replace(document.getElementById('theme'), icon(now === 'dark' ? 'sun' : 'moon'));
}

document.getElementById('theme').addEventListener('click', () => theme(true));
document.getElementById('find').addEventListener('submit', (event) => {
  event.preventDefault();
  const id = document.getElementById('find-id').value.trim();
  if (id) location.hash = '#/trace/' + encodeURIComponent(id);
});

async function health() {
  try {
    const { problems } = await get('/telemetry/health');
    const el = document.getElementById('health');
    if (!problems.length) return el?.remove();
    const box = h('p', { id: 'health', class: 'problem warn' }, icon('error'), ' ' + problems.join(' — '));
    if (el) el.replaceWith(box);
    else banner.after(box);
  } catch { /* the view says it */ }
}

theme(false);
health();
setInterval(health, 15000);
addEventListener('hashchange', show);
show();
