// The list, kept up to date for the clips on it that are still on their way.

import { announce } from "./announce.js";
import { follow } from "./live.js";
import { refresh, remember } from "./regions.js";

// A list moves often; once a second is enough for the eye.
const GATHER_MS = 1000;
let gathering = 0;
let following = null;

const moving = () => [...document.querySelectorAll("[data-clip][data-terminal=no]")].map((item) => item.dataset.clip);

async function look() {
  const before = moving();
  await refresh();
  const now = moving();
  if (now.join() !== before.join()) watch();
}

function onClip(clip) {
  const item = document.querySelector(`[data-clip="${CSS.escape(clip.clip_id)}"]`);
  if (!item) return;
  item.querySelector("[data-progress]").value = clip.progress;
  item.querySelector("[data-message]").textContent = clip.message;
  if (clip.terminal) announce(`${item.querySelector("strong").textContent}: ${clip.message}`);
  if (gathering) return;
  gathering = setTimeout(() => { gathering = 0; look().catch(() => {}); }, GATHER_MS);
}

function watch() {
  following?.stop();
  const ids = moving();
  following = ids.length ? follow(ids, { onClip, poll: look }) : null;
}

remember();
watch();
