// Following clips: events through the shared worker, polling every three seconds whenever they do not come.
// Both stop while the page is hidden, and for good when the page says so.

import { Stream } from "./stream.js";

const POLL_MS = 3000;
// Events get this long to begin before polling does; after a failure they get no time at all.
const PATIENCE_MS = 4000;
const SIGN_OF_LIFE_MS = 20_000;
const worker = new URL("./live-worker.js", import.meta.url);

function throughWorker(ids, on) {
  const port = new SharedWorker(worker, { name: "clips", type: "module" }).port;
  port.onmessage = ({ data }) => ("open" in data ? on.open(data.open, data.hasFailed, data.heardAt) : on.clip(data.clip));
  port.postMessage({ ids });
  const alive = setInterval(() => port.postMessage({}), SIGN_OF_LIFE_MS);
  return () => {
    clearInterval(alive);
    port.postMessage({ bye: true });
    port.close();
  };
}

function direct(ids, on) {
  const stream = new Stream({ clip: on.clip, open: (isOpen, hasFailed) => on.open(isOpen, hasFailed, stream.heardAt) });
  stream.follow(ids);
  return () => stream.follow([]);
}

function subscribe(ids, on) {
  try {
    return self.SharedWorker ? throughWorker(ids, on) : direct(ids, on);
  } catch {
    return direct(ids, on);
  }
}

/**
 * Follow *ids* (null: every clip) until `stop()`. *onClip* gets each event, *poll* is called instead while none can come;
 * it may be async and may throw: the next one is tried all the same. *onConnection* hears "live", "polling" or "lost",
 * and when what the page shows was last known to be so.
 */
export function follow(ids, { onClip, poll, onConnection = () => {} }) {
  let unsubscribe = null;
  let timer = 0;
  let isOpen = null; // of this subscription; null before anything was heard
  let isPolling = false;
  let isStopped = false;
  let seenAt = Date.now(); // the page came from the server just now

  async function pollOnce() {
    isPolling = true;
    let word = "polling";
    try {
      await poll();
      seenAt = Date.now();
    } catch {
      word = "lost";
    }
    if (isStopped || !unsubscribe || isOpen) return;
    onConnection(word, seenAt);
    pollIn(POLL_MS);
  }

  function pollIn(milliseconds) {
    clearTimeout(timer);
    // A little chance, so that many pages do not ask in the same moment.
    timer = setTimeout(pollOnce, milliseconds + Math.random() * 500);
  }

  function onOpen(now, hasFailed = false, heardAt = 0) {
    seenAt = Math.max(seenAt, heardAt);
    const before = isOpen;
    isOpen = now;
    if (now) {
      clearTimeout(timer);
      isPolling = false;
      if (!before) onConnection("live", seenAt);
    } else if (!isPolling && (hasFailed || before !== false)) {
      // A stream that fails tells so again at every try: that must not put off the polling.
      isPolling = hasFailed;
      pollIn(hasFailed ? 0 : PATIENCE_MS);
    }
  }

  const on = {
    open: onOpen,
    clip: (clip) => {
      seenAt = Date.now();
      onClip(clip);
    },
  };

  function start() {
    if (isStopped || unsubscribe || document.hidden) return;
    unsubscribe = subscribe(ids, on);
    onOpen(false);
  }

  function pause() {
    clearTimeout(timer);
    unsubscribe?.();
    unsubscribe = null;
    isOpen = null;
    isPolling = false;
  }

  function onVisibility() {
    if (document.hidden) return pause();
    start();
    // Whatever happened meanwhile: the page is brought up to date before anything is heard.
    Promise.resolve().then(poll).then(() => { seenAt = Date.now(); }).catch(() => {});
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
      removeEventListener("pagehide", pause);
      removeEventListener("pageshow", start);
    },
  };
}
