// One HTTP call that sends bytes and tells how many went: fetch cannot tell.

// A connection that moves nothing for this long is dead, whatever it says.
const STALLED_MS = 60_000;

export class CallFailed extends Error {
  constructor(status, text) {
    super(text);
    this.status = status; // 0: no answer
  }
}

/** Send *body*; the answered XMLHttpRequest. Throws CallFailed for anything but 2xx, AbortError when *signal* says stop. */
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
    call.onload = () => {
      if (call.status >= 200 && call.status < 300) end(resolve, call);
      else end(reject, new CallFailed(call.status, `the upload address answered ${call.status}`));
    };
    call.onerror = () => end(reject, new CallFailed(0, "the connection broke"));
    call.onabort = () => end(reject, new CallFailed(0, "the connection stood still"));
    alive();
    call.send(body);
  });
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
