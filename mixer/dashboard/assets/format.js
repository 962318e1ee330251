// Numbers as a person reads them.

export function rate(perSecond) {
  if (perSecond === 0) return '0/s';
  if (perSecond < 0.1) return (perSecond * 60).toFixed(1) + '/min';
  if (perSecond < 10) return perSecond.toFixed(1) + '/s';
  if (perSecond < 1000) return Math.round(perSecond) + '/s';
  return (perSecond / 1000).toFixed(1) + 'k/s';
}

export function percent(share) {
  if (share === 0) return '0%';
  if (share === 1) return '100%';
  const p = share * 100;
  if (p < 0.1) return '<0.1%';
  if (p > 99.9) return '>99.9%';
  return (p < 10 ? p.toFixed(1) : Math.round(p)) + '%';
}

export function millis(ms) {
  if (ms === 0) return '–';
  if (ms < 1) return Math.round(ms * 1000) + ' µs';
  if (ms < 10) return ms.toFixed(1) + ' ms';
  if (ms < 1000) return Math.round(ms) + ' ms';
  return (ms / 1000).toFixed(2) + ' s';
}

export function nanos(ns) { return ns === 0 ? '0' : millis(ns / 1e6); }

export function ago(date, now = new Date()) {
  const seconds = Math.max(0, (now - date) / 1000);
  if (seconds < 60) return Math.floor(seconds) + ' s ago';
  if (seconds < 3600) return Math.floor(seconds / 60) + ' min ago';
  if (seconds < 86400) return Math.floor(seconds / 3600) + ' h ago';
  return Math.floor(seconds / 86400) + ' d ago';
}

// clock is a time of day with milliseconds.
export function clock(date) {
  return date.toLocaleTimeString([], { hour12: false }) + '.' + String(date.getMilliseconds()).padStart(3, '0');
}

// level says how bad a share of errors is.
export function level(errors, requests = 1) {
  if (!requests) return 'idle';
  if (errors >= 0.05) return 'bad';
  if (errors > 0) return 'warn';
  return 'good';
}

// A service keeps its colour as long as the page is open; the first eight differ.
const given = new Map();
export function colour(service) {
  if (!given.has(service)) given.set(service, given.size % 8);
  return 'c' + given.get(service);
}

export function plural(n, word) { return n + ' ' + word + (n === 1 ? '' : 's'); }
