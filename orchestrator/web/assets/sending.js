// One HTTP call that sends bytes and tells how many went: fetch cannot tell.

// A connection that moves nothing for this long is dead, whatever it says.
export const STALLED_MS = 60_000;
const FORM_TRIES_MAX = 3;

export class CallFailed extends Error {
  constructor(status, text) {
    super(text);
    this.status = status; // 0: no answer
  }
}

/** What is said of a call that was answered with *status*, or not at all (0). Addresses of uploads are secret. */
export function failure(status) {
  return new CallFailed(status, status ? `the upload address answered ${status}` : "the connection broke");
}

/** The document of an answer of this service; throws what its problem says. */
export async function documentOf(answer) {
  const found = await answer.json().catch(() => ({}));
  if (answer.ok) return found;
  throw new CallFailed(answer.status, [found.detail ?? `The service answered ${answer.status}.`, found.hint].filter(Boolean).join(" "));
}

/** Send *body*; the answered XMLHttpRequest. Throws CallFailed for anything but 2xx, the signal's reason when it says stop. */
export function send(method, url, { headers = {}, body = null, onSent = () => {}, signal } = {}) {
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    let stalled = 0;
    const alive = () => {
      clearTimeout(stalled);
      stalled = setTimeout(() => call.abort(), STALLED_MS);
    };
    const end = (settle, value) => {
      clearTimeout(stalled);
      signal?.removeEventListener("abort", stop);
      settle(value);
    };
    const stop = () => { call.abort(); end(reject, signal.reason); };
    if (signal?.aborted) return reject(signal.reason);
    signal?.addEventListener("abort", stop);
    call.open(method, url);
    for (const [name, value] of Object.entries(headers)) call.setRequestHeader(name, value);
    call.upload.onprogress = (event) => { alive(); onSent(event.loaded); };
    call.onload = () => (call.status >= 200 && call.status < 300 ? end(resolve, call) : end(reject, failure(call.status)));
    call.onerror = () => end(reject, failure(0));
    call.onabort = () => end(reject, new CallFailed(0, "the connection stood still"));
    alive();
    call.send(body);
  });
}

/** Send *file* whole, as a form; after a failure that may pass, once more from its start. */
export async function sendForm(file, url, { onSent, onRetry, signal }) {
  for (let failures = 1; ; failures += 1) {
    const body = new FormData();
    body.append("file", file, file.name);
    try {
      return await send("POST", url, { body, onSent: (bytes) => onSent(Math.min(bytes, file.size)), signal });
    } catch (problem) {
      if (!mayPass(problem) || failures >= FORM_TRIES_MAX) throw problem;
      onRetry(problem);
      await wait(pause(failures), signal);
    }
  }
}

/** Wait, or throw when *signal* says stop. */
export function wait(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });
}

/** Worth another try: no answer, a wrong offset, a slow reader, too many calls, or the other end's own fault. */
export function mayPass(problem) {
  return problem instanceof CallFailed
    && (problem.status === 0 || [408, 409, 423, 425, 429].includes(problem.status) || problem.status >= 500);
}

/** The pause before the *n*-th try in a row: half a second, doubling up to half a minute, with some chance. */
export function pause(n) {
  return Math.min(500 * 2 ** n, 30_000) * (0.75 + Math.random() / 2);
}
