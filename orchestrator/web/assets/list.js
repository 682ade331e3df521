// The list, kept up to date: its newest page for every clip, further pages for those on them.

import { announce } from "./announce.js";
import { follow } from "./live.js";
import { refresh, remember } from "./regions.js";

// A list moves often; once a second is enough for the eye.
const GATHER_MS = 1000;
// A clip that is not on the page is perhaps a new one.
const NEWCOMER_MS = 3000;
const isNewest = !new URLSearchParams(location.search).get("cursor");
let gathering = 0;
let following = null;

const moving = () => [...document.querySelectorAll("[data-clip][data-terminal=no]")].map((item) => item.dataset.clip);

async function look() {
  const before = moving();
  await refresh();
  if (!isNewest && moving().join() !== before.join()) watch();
}

function lookIn(milliseconds) {
  if (gathering) return;
  gathering = setTimeout(() => { gathering = 0; look().catch(() => {}); }, milliseconds);
}

function onClip(clip) {
  const item = document.querySelector(`[data-clip="${CSS.escape(clip.clip_id)}"]`);
  if (!item) return lookIn(NEWCOMER_MS);
  if (item.dataset.terminal === "yes" && clip.terminal) return;
  item.querySelector("[data-progress]").value = clip.progress;
  item.querySelector("[data-message]").textContent = clip.message;
  if (clip.terminal) announce(`${item.querySelector("strong").textContent}: ${clip.message}`);
  lookIn(GATHER_MS);
}

function watch() {
  following?.stop();
  const ids = isNewest ? null : moving();
  following = isNewest || ids.length ? follow(ids, { onClip, poll: look }) : null;
}

remember();
watch();
