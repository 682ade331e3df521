// The page of one clip, kept up to date until nothing more comes by itself.

import { announce } from "./announce.js";
import { handleAsks } from "./asks.js";
import { connectionIs, showConnection } from "./connection.js";
import { setClock, showCountdowns } from "./countdown.js";
import { follow } from "./live.js";
import { isWatched, showPlayer } from "./player.js";
import { refresh, remember } from "./regions.js";
import { toast } from "./toasts.js";

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
let last = null; // the status that was told last

function showBars(progress) {
  for (const bar of document.querySelectorAll("[data-two-parts]")) {
    bar.querySelector("progress").value = progress;
    const more = Math.max(0, progress - Number(bar.dataset.floor));
    bar.querySelector(".live").setAttribute("width", more);
    const legend = document.querySelector("[data-live-percent]");
    if (legend) legend.textContent = Number(more.toPrecision(3));
  }
  for (const percent of document.querySelectorAll("[data-percent]")) percent.textContent = `${Math.floor(progress)} %`;
}

function showProgress(clip) {
  showBars(clip.progress);
  const message = document.querySelector("[data-message]");
  const moved = message && message.textContent !== clip.message;
  if (message) message.textContent = clip.message;
  document.title = clip.terminal ? name : `${Math.floor(clip.progress)} % ${name}`;
  const now = Math.floor(clip.progress / 25);
  // An error is spoken as an alert.
  if ((moved || now > quarter) && clip.status !== "error") {
    announce(clip.terminal ? clip.message : `${clip.message}, ${Math.floor(clip.progress)} percent`);
  }
  quarter = Math.max(quarter, now);
  tellMove(clip);
}

function tellMove(clip) {
  const before = last;
  last = clip.status;
  if (!before || before === clip.status) return;
  if (clip.status === "complete") toast("success", "Complete", { isSaid: true });
  else if (clip.status === "error") toast("error", clip.message);
  else if (before === "error") toast("info", "It is tried again", { isSaid: true });
  else if (clip.status === "stream_ready") toast("info", "It can be watched now", { isSaid: true });
}

async function look() {
  const fresh = await refresh((region) => region === "player" && isWatched());
  const now = fresh.querySelector("article[data-clip]");
  if (now) setClock(now.dataset.now);
  showCountdowns();
  showPlayer();
  if (now?.dataset.terminal === "yes") end();
  else begin();
  showConnection();
}

function onClip(clip) {
  if (clip.version <= Number(article.dataset.version)) return;
  article.dataset.version = clip.version;
  showProgress(clip);
  clearTimeout(gathering);
  gathering = setTimeout(() => look().catch(() => {}), GATHER_MS);
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

function begin() {
  following ??= follow([article.dataset.clip], { onClip, poll, onConnection: connectionIs });
}

function end() {
  following?.stop();
  following = null;
  connectionIs("");
}

if (article) {
  remember();
  setClock(article.dataset.now);
  showCountdowns();
  showPlayer();
  last = document.querySelector("[aria-current=step] code")?.textContent ?? null;
  quarter = Math.floor((document.querySelector("[data-progress]")?.value ?? 0) / 25);
  handleAsks(look);
  // What was held back while somebody watched is put in when he stops.
  for (const moment of ["pause", "ended"]) {
    document.addEventListener(moment, () => { if (!isWatched()) look().catch(() => {}); }, true);
  }
  if (article.dataset.terminal !== "yes") begin();
  setInterval(() => { if (following && !document.hidden) look().catch(() => {}); }, EXPLAIN_MS);
}
