// The telemetry API.

export class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function get(path, params = {}, signal = undefined) {
  const query = new URLSearchParams(Object.entries(params).filter(([, v]) => v !== '' && v !== undefined && v !== false));
  let response;
  try {
    response = await fetch(path + (query.size ? '?' + query : ''), { signal, headers: { Accept: 'application/json' } });
  } catch (err) {
    if (err.name === 'AbortError') throw err;
    throw new Problem(0, 'xebec does not answer. It may be restarting; the mesh goes on without it. Trying again…');
  }
  let body;
  try {
    body = await response.json();
  } catch {
    body = { error: 'the answer was not JSON (' + response.status + ')' };
  }
  if (response.status === 401) throw new Problem(401, 'This session has ended. Open the dashboard’s address as “xebec up” prints it.');
  if (!response.ok) throw new Problem(response.status, body.error || response.statusText);
  return body;
}
