// One event stream for all tabs of this browser: browsers open only six connections to a place over HTTP/1.1.
// Tabs say what they follow; a tab that has not been heard of for a minute is gone.

import { Stream } from "./stream.js";

const GONE_MS = 60_000;
const LATEST_MAX = 300;

const tabs = new Map(); // port -> { ids: Set (null: every clip), heard: number }
const latest = new Map(); // clip id -> event
const stream = new Stream({ clip: onClip, open: onOpen });

self.onconnect = ({ ports: [port] }) => {
  port.onmessage = ({ data }) => {
    if (data.bye) tabs.delete(port);
    else if ("ids" in data) join(port, data.ids);
    else if (tabs.has(port)) tabs.get(port).heard = Date.now();
    follow();
  };
};

function join(port, ids) {
  tabs.set(port, { ids: ids && new Set(ids), heard: Date.now() });
  port.postMessage({ open: stream.isOpen, heardAt: stream.heardAt });
  for (const id of ids ?? latest.keys()) if (latest.has(id)) port.postMessage({ clip: latest.get(id) });
}

function follow() {
  const every = [...tabs.values()].some((tab) => tab.ids === null);
  const ids = every ? null : [...new Set([...tabs.values()].flatMap((tab) => [...tab.ids]))].sort();
  if (stream.follow(ids)) latest.clear();
}

function onClip(clip) {
  latest.set(clip.clip_id, clip);
  if (latest.size > LATEST_MAX) latest.delete(latest.keys().next().value);
  for (const [port, tab] of tabs) if (tab.ids === null || tab.ids.has(clip.clip_id)) port.postMessage({ clip });
}

function onOpen(isOpen, hasFailed) {
  for (const port of tabs.keys()) port.postMessage({ open: isOpen, hasFailed, heardAt: stream.heardAt });
}

setInterval(() => {
  for (const [port, tab] of tabs) if (Date.now() - tab.heard > GONE_MS) tabs.delete(port);
  follow();
}, GONE_MS / 2);
