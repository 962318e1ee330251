// Small helpers to build HTML and SVG without strings: nothing that a sender
// wrote is ever parsed as markup.

const SVG = 'http://www.w3.org/2000/svg';

function fill(el, attrs, children) {
  for (const [key, value] of Object.entries(attrs || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) el.addEventListener(key.slice(2), value);
    else if (key === 'style') for (const [k, v] of Object.entries(value)) el.style.setProperty(k, v);
    else el.setAttribute(key, value === true ? '' : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    el.append(child instanceof Node ? child : String(child));
  }
  return el;
}

export function h(tag, attrs, ...children) {
  return fill(document.createElement(tag), attrs, children);
}

export function s(tag, attrs, ...children) {
  return fill(document.createElementNS(SVG, tag), attrs, children);
}

// Paths of icons on a grid of 16.
const icons = {
  lock: 'M4.5 7V5.2a3.5 3.5 0 0 1 7 0V7h.7c.4 0 .8.4.8.8v5.4c0 .4-.4.8-.8.8H3.8a.8.8 0 0 1-.8-.8V7.8c0-.4.4-.8.8-.8h.7zm1.5 0h4V5.2a2 2 0 0 0-4 0V7z',
  open: 'M4.5 7V5.2a3.5 3.5 0 0 1 6.7-1.4l-1.4.6A2 2 0 0 0 6 5.2V7h6.2c.4 0 .8.4.8.8v5.4c0 .4-.4.8-.8.8H3.8a.8.8 0 0 1-.8-.8V7.8c0-.4.4-.8.8-.8h.7z',
  sun: 'M8 4.5a3.5 3.5 0 1 1 0 7 3.5 3.5 0 0 1 0-7zM7.3 1h1.4v2H7.3zM7.3 13h1.4v2H7.3zM1 7.3h2v1.4H1zM13 7.3h2v1.4h-2zM3.5 2.5l1.4 1.4-1 1L2.5 3.5zM12.5 11.1l1.4 1.4-1 1-1.4-1.4zM12.5 2.5l1 1-1.4 1.4-1-1zM3.9 11.1l1 1-1.4 1.4-1-1z',
  moon: 'M6.2 1.5a6.7 6.7 0 1 0 8.3 8.3A5.5 5.5 0 0 1 6.2 1.5z',
  error: 'M8 1l7.5 13.5H.5zM7.3 6v4.5h1.4V6zM7.3 11.5V13h1.4v-1.5z',
  close: 'M3.5 2.5L8 7l4.5-4.5 1 1L9 8l4.5 4.5-1 1L8 9l-4.5 4.5-1-1L7 8 2.5 3.5z',
};

export function icon(name, size = 16, cls = '') {
  return s('svg', { viewBox: '0 0 16 16', width: size, height: size, class: 'ico ' + cls, 'aria-hidden': 'true' },
    s('path', { d: icons[name], 'fill-rule': 'evenodd' }));
}

export function iconPath(name) { return icons[name]; }

// replace shows new content in a place, and keeps the focus if it can.
export function replace(el, ...children) {
  const id = document.activeElement && el.contains(document.activeElement) ? document.activeElement.id : '';
  el.replaceChildren(...children.flat(Infinity).filter((c) => c !== undefined && c !== null && c !== false));
  if (id) document.getElementById(id)?.focus({ preventScroll: true });
}
