// Following clips: events through the shared worker, polling every three seconds whenever they do not come.
// Both stop while the page is hidden, and for good when the page says so.

const POLL_MS = 3000;
// Events get this long to connect before polling begins.
const PATIENCE_MS = 4000;
const SIGN_OF_LIFE_MS = 20_000;
const worker = new URL("./live-worker.js", import.meta.url);

function throughWorker(ids, onClip, onOpen) {
  const port = new SharedWorker(worker, { name: "clips" }).port;
  port.onmessage = ({ data }) => ("open" in data ? onOpen(data.open) : onClip(data.clip));
  port.postMessage({ ids });
  const alive = setInterval(() => port.postMessage({}), SIGN_OF_LIFE_MS);
  return () => {
    clearInterval(alive);
    port.postMessage({ bye: true });
    port.close();
  };
}

function direct(ids, onClip, onOpen) {
  const source = new EventSource(`/api/events?${(ids ?? []).map((id) => `clip=${encodeURIComponent(id)}`).join("&")}`);
  source.onopen = () => onOpen(true);
  source.onerror = () => onOpen(false);
  source.addEventListener("clip", ({ data }) => onClip(JSON.parse(data)));
  return () => source.close();
}

function subscribe(...how) {
  try {
    return self.SharedWorker ? throughWorker(...how) : direct(...how);
  } catch {
    return direct(...how);
  }
}

/**
 * Follow *ids* (null: every clip) until `stop()`. *onClip* gets each event, *poll* is called instead while none can come;
 * it may be async and may throw: the next one is tried all the same. *onConnection* hears "live", "polling" or "lost".
 */
export function follow(ids, { onClip, poll, onConnection = () => {} }) {
  let unsubscribe = null;
  let timer = 0;
  let wasOpen = null; // of this subscription; null before anything was heard
  let isStopped = false;

  async function pollOnce() {
    clearTimeout(timer);
    let word = "polling";
    try {
      await poll();
    } catch {
      word = "lost";
    }
    if (isStopped || !unsubscribe || timer === null) return;
    onConnection(word);
    // A little chance, so that many pages do not ask in the same moment.
    timer = setTimeout(pollOnce, POLL_MS + Math.random() * 500);
  }

  function onOpen(isOpen) {
    // A stream that fails tells so again at every try: that must not put off the polling.
    if (isOpen === wasOpen) return;
    wasOpen = isOpen;
    clearTimeout(timer);
    timer = isOpen ? null : setTimeout(pollOnce, PATIENCE_MS);
    if (isOpen) onConnection("live");
  }

  function start() {
    if (isStopped || unsubscribe || document.hidden) return;
    unsubscribe = subscribe(ids, onClip, onOpen);
    onOpen(false);
  }

  function pause() {
    clearTimeout(timer);
    timer = 0;
    unsubscribe?.();
    unsubscribe = null;
    wasOpen = null;
  }

  function onVisibility() {
    if (document.hidden) return pause();
    start();
    Promise.resolve().then(poll).catch(() => {});
  }

  document.addEventListener("visibilitychange", onVisibility);
  addEventListener("pagehide", pause);
  addEventListener("pageshow", start);
  start();

  return {
    stop() {
      isStopped = true;
      pause();
      document.removeEventListener("visibilitychange", onVisibility);
    },
  };
}
