// The board, kept up to date: rows change in place as events come, and the page is fetched again for the rest, at most
// every three seconds. However much happens elsewhere, a frame draws each row once, and no more rows than the server sends.

import { announce } from "./announce.js";
import { connectionIs } from "./connection.js";
import { follow } from "./live.js";
import { refresh, remember } from "./regions.js";
import { showTimes } from "./times.js";

// A busy system changes all the time; this is often enough for the eye, and seldom enough for the server.
const BUSY_MS = 3000;
// Ages and figures move even when no clip does.
const IDLE_MS = 15_000;
const AGAIN_MS = 5000;

const place = document.querySelector("[data-rows]");
const newcomersButton = document.querySelector("[data-newcomers]");
const isFirst = place.dataset.rows === "all";
const rendered = new Map(); // clip id -> the row as the server wrote it
const events = new Map(); // clip id -> its newest event, until the next frame
let frame = 0;
let timer = 0;
let due = Infinity;
let isFetching = false;
let freshAt = Date.now();
let hasFailed = false; // the page could not be fetched, whatever the stream says
let word = "";
let held = null; // the rows with newcomers among them, until they are let in

const rowOf = (id) => place.querySelector(`[data-clip="${CSS.escape(id)}"]`);
const rowsIn = (root) => [...root.querySelectorAll("[data-clip]")];

function draw() {
  frame = 0;
  for (const [id, clip] of events) {
    const row = rowOf(id);
    if (row && clip.version > Number(row.dataset.version)) change(row, clip);
  }
  events.clear();
}

function change(row, clip) {
  row.dataset.version = clip.version;
  row.dataset.terminal = clip.terminal ? "yes" : "no";
  row.querySelector("[data-progress]").value = clip.progress;
  row.querySelector("[data-message]").textContent = clip.message;
  const badge = document.querySelector(`template[data-badge="${CSS.escape(clip.state)}"]`);
  if (badge) row.querySelector("[data-state]").replaceChildren(badge.content.cloneNode(true));
  if (clip.terminal) announce(`${row.querySelector("strong").textContent}: ${clip.message}`);
}

function onClip(clip) {
  if (rowOf(clip.clip_id)) {
    events.set(clip.clip_id, clip);
    frame ||= requestAnimationFrame(draw);
  }
  lookWithin(BUSY_MS);
}

function lookWithin(milliseconds) {
  const at = Date.now() + milliseconds;
  if (document.hidden || at >= due) return;
  clearTimeout(timer);
  due = at;
  timer = setTimeout(() => look().catch(() => {}), milliseconds);
}

// Whoever reads in an open table does not want it to jump.
const isHeld = (region) => Boolean(document.querySelector(`[data-region="${region}"] details[open]`));

async function look() {
  clearTimeout(timer);
  due = Infinity;
  if (isFetching) return;
  isFetching = true;
  try {
    merge(await refresh(isHeld));
    freshAt = Date.now();
    hasFailed = false;
  } catch (problem) {
    hasFailed = true;
    throw problem;
  } finally {
    isFetching = false;
    tell();
    lookWithin(hasFailed ? AGAIN_MS : IDLE_MS);
  }
}

function tell() {
  if (hasFailed) connectionIs("lost", freshAt);
  else connectionIs(word, freshAt);
}

// Somebody who reads further down, or is about to click, does not want the rows to move.
function isReading() {
  return scrollY > place.offsetTop || place.matches(":hover, :focus-within");
}

function merge(fresh) {
  const there = fresh.querySelector("[data-rows]");
  if (!there) throw new Error("the page has no rows");
  const [before, after] = [rowsIn(place), rowsIn(there)];
  if (!before.length || !after.length) return replaceAll(there);
  const known = new Set(before.map((row) => row.dataset.clip));
  const fresher = new Map(after.map((row) => [row.dataset.clip, row]));
  for (const row of before) if (fresher.has(row.dataset.clip)) renew(row, fresher.get(row.dataset.clip));
  const newcomers = after.filter((row) => !known.has(row.dataset.clip));
  if (newcomers.length && isReading()) return hold(newcomers, there);
  settle(there);
}

// The rows as the server has them now, each that is here already as the element it is.
function settle(there) {
  held = null;
  newcomersButton.hidden = true;
  const list = place.querySelector("ul");
  const here = new Map(rowsIn(place).map((row) => [row.dataset.clip, row]));
  const wanted = rowsIn(there).map((row) => here.get(row.dataset.clip) ?? adopt(row));
  wanted.forEach((row, index) => { if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null); });
  while (list.children.length > wanted.length) list.lastElementChild.remove();
  showTimes(list);
}

function adopt(row) {
  rendered.set(row.dataset.clip, row.outerHTML);
  return document.importNode(row, true);
}

function renew(row, fresh) {
  if (Number(fresh.dataset.version) < Number(row.dataset.version) || rendered.get(row.dataset.clip) === fresh.outerHTML) return;
  const hadFocus = row.contains(document.activeElement);
  rendered.set(row.dataset.clip, fresh.outerHTML);
  Object.assign(row.dataset, fresh.dataset);
  row.replaceChildren(...[...fresh.childNodes].map((node) => document.importNode(node, true)));
  showTimes(row);
  if (hadFocus) row.querySelector("a").focus({ preventScroll: true });
}

function hold(newcomers, there) {
  held = there;
  if (newcomersButton.hidden) announce("Other clips have come");
  newcomersButton.hidden = false;
  newcomersButton.textContent = newcomers.length === 1 ? "Show 1 other clip" : `Show ${newcomers.length} other clips`;
}

function replaceAll(there) {
  const hadFocus = place.contains(document.activeElement);
  place.replaceChildren(...[...there.childNodes].map((node) => document.importNode(node, true)));
  note();
  showTimes(place);
  if (hadFocus) document.getElementById("main").focus({ preventScroll: true });
}

function note() {
  rendered.clear();
  for (const row of rowsIn(place)) rendered.set(row.dataset.clip, row.outerHTML);
}

newcomersButton.addEventListener("click", () => {
  if (held) settle(held);
  rowsIn(place)[0]?.querySelector("a").focus();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(timer);
    due = Infinity;
  } else lookWithin(0);
});

note();
remember();
const moving = rowsIn(place).filter((row) => row.dataset.terminal === "no").map((row) => row.dataset.clip);
// A page further back changes in its own rows alone; on the first one newcomers appear.
if (isFirst || moving.length) {
  follow(isFirst ? null : moving, {
    onClip,
    poll: look,
    onConnection(now) {
      word = now;
      tell();
    },
  });
}
lookWithin(IDLE_MS);
addEventListener("pagehide", () => clearTimeout(timer));
