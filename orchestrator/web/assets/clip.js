// The page of one clip, kept up to date until the clip is at its end.

import { announce } from "./announce.js";
import { connectionIs, showConnection } from "./connection.js";
import { follow } from "./live.js";
import { showPlayer } from "./player.js";
import { refresh, remember } from "./regions.js";

// Several events of one moment need one look.
const GATHER_MS = 250;
// The sentence that explains the clip speaks of seconds: it is asked for anew now and then, also when nothing moves.
const EXPLAIN_MS = 20_000;

const article = document.querySelector("article[data-clip]");
const name = document.title;
let etag = null;
let gathering = 0;
let quarter = -1;
let following = null;

function showProgress(clip) {
  const bar = document.querySelector("[data-progress]");
  if (bar) bar.value = clip.progress;
  const percent = document.querySelector("[data-percent]");
  if (percent) percent.textContent = `${Math.floor(clip.progress)} %`;
  const message = document.querySelector("[data-message]");
  const moved = message && message.textContent !== clip.message;
  if (message) message.textContent = clip.message;
  document.title = clip.terminal ? name : `${Math.floor(clip.progress)} % ${name}`;
  const now = Math.floor(clip.progress / 25);
  if (moved || now > quarter) announce(clip.terminal ? clip.message : `${clip.message}, ${Math.floor(clip.progress)} percent`);
  quarter = Math.max(quarter, now);
}

async function look() {
  const fresh = await refresh();
  showPlayer();
  if (fresh.querySelector("article[data-terminal=yes]")) {
    following.stop();
    connectionIs("");
  }
  showConnection();
}

function onClip(clip) {
  if (clip.version <= Number(article.dataset.version)) return;
  article.dataset.version = clip.version;
  showProgress(clip);
  clearTimeout(gathering);
  gathering = setTimeout(() => look().catch(() => connectionIs("lost")), GATHER_MS);
}

async function poll() {
  const headers = etag ? { "If-None-Match": etag } : {};
  const answer = await fetch(`/api/clips/${article.dataset.clip}`, { headers, cache: "no-store" });
  if (answer.status === 304) return;
  if (!answer.ok) throw new Error(`the clip answered ${answer.status}`);
  etag = answer.headers.get("ETag");
  showProgress(await answer.json());
  await look();
}

if (article) {
  remember();
  showPlayer();
  quarter = Math.floor((document.querySelector("[data-progress]")?.value ?? 0) / 25);
  if (article.dataset.terminal !== "yes") {
    following = follow([article.dataset.clip], { onClip, poll, onConnection: connectionIs });
    const explaining = setInterval(() => {
      if (document.querySelector(".badge.done, .badge.failed")) clearInterval(explaining);
      else if (!document.hidden) look().catch(() => {});
    }, EXPLAIN_MS);
  }
}
