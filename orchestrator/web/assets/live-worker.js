// One event stream for all tabs of this browser: browsers open only six connections to a place over HTTP/1.1.
// Tabs say what they follow; a tab that has not been heard of for a minute is gone.

const SILENT_MS = 60_000;
// More clips than this are followed by following all.
const CLIPS_MAX = 150;

const tabs = new Map(); // port -> { ids: Set (null: every clip), heard: number }
const latest = new Map(); // clip id -> event
let source = null;
let followed = "";
let isOpen = false;

self.onconnect = ({ ports: [port] }) => {
  port.onmessage = ({ data }) => {
    if (data.bye) tabs.delete(port);
    else if ("ids" in data) follow(port, data.ids);
    else if (tabs.has(port)) tabs.get(port).heard = Date.now();
    reconnect();
  };
};

function follow(port, ids) {
  tabs.set(port, { ids: ids && new Set(ids), heard: Date.now() });
  port.postMessage({ open: isOpen });
  for (const id of ids ?? latest.keys()) if (latest.has(id)) port.postMessage({ clip: latest.get(id) });
}

function tell(message, wanted = () => true) {
  for (const [port, tab] of tabs) if (wanted(tab)) port.postMessage(message);
}

function reconnect() {
  const every = [...tabs.values()].some((tab) => tab.ids === null);
  const ids = [...new Set([...tabs.values()].flatMap((tab) => [...(tab.ids ?? [])]))].sort();
  const query = every || ids.length > CLIPS_MAX ? "" : ids.map((id) => `clip=${encodeURIComponent(id)}`).join("&");
  const wanted = every || ids.length ? `/api/events?${query}` : "";
  if (wanted === followed && source?.readyState !== EventSource.CLOSED) return;
  source?.close();
  latest.clear();
  followed = wanted;
  source = null;
  setOpen(false);
  if (!wanted) return;
  source = new EventSource(wanted);
  source.onopen = () => setOpen(true);
  source.onerror = () => setOpen(false);
  source.addEventListener("clip", ({ data }) => {
    const clip = JSON.parse(data);
    latest.set(clip.clip_id, clip);
    if (latest.size > 2 * CLIPS_MAX) latest.delete(latest.keys().next().value);
    tell({ clip }, (tab) => tab.ids === null || tab.ids.has(clip.clip_id));
  });
}

function setOpen(now) {
  if (now === isOpen) return;
  isOpen = now;
  tell({ open: now });
}

setInterval(() => {
  for (const [port, tab] of tabs) if (Date.now() - tab.heard > SILENT_MS) tabs.delete(port);
  reconnect();
}, SILENT_MS / 2);
