// The board, kept up to date: rows change in place as events come, and the page is fetched again for the rest, at most
// every three seconds. However much happens elsewhere, a frame draws each row once, and no more rows than the server sends.

import { announce } from "./announce.js";
import { follow } from "./live.js";
import { refresh, remember } from "./regions.js";
import { showTimes } from "./times.js";

// A busy system changes all the time; this is often enough for the eye, and seldom enough for the server.
const BUSY_MS = 3000;
// Ages and figures move even when no clip does.
const IDLE_MS = 15_000;
const AGE_MS = 1000;

const place = document.querySelector("[data-rows]");
const newcomersButton = document.querySelector("[data-newcomers]");
const connection = document.querySelector("[data-connection]");
const isFirst = place.dataset.rows === "all";
const rendered = new Map(); // clip id -> the row as the server wrote it
const events = new Map(); // clip id -> its newest event, until the next frame
let frame = 0;
let timer = 0;
let due = Infinity;
let isFetching = false;
let freshAt = Date.now();
let word = "";
let following = null;
let held = null; // rows of newcomers that wait to be let in

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
  if (at >= due) return;
  clearTimeout(timer);
  due = at;
  timer = setTimeout(() => look().catch(() => {}), milliseconds);
}

async function look() {
  clearTimeout(timer);
  due = Infinity;
  if (isFetching) return;
  isFetching = true;
  try {
    merge(await refresh());
    freshAt = Date.now();
  } finally {
    isFetching = false;
    showAge();
    if (!document.hidden) lookWithin(IDLE_MS);
  }
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

function showAge() {
  const seconds = Math.round((Date.now() - freshAt) / 1000);
  const says = { lost: `Connection lost, trying again. This picture is ${seconds} s old.`, polling: "Asking every few seconds." };
  const text = says[word] ?? "";
  if (connection.textContent !== text) connection.textContent = text;
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
setInterval(() => { if (word === "lost") showAge(); }, AGE_MS);

note();
remember();
const moving = rowsIn(place).filter((row) => row.dataset.terminal === "no").map((row) => row.dataset.clip);
if (isFirst || moving.length) {
  following = follow(isFirst ? null : moving, {
    onClip,
    poll: look,
    onConnection(now) {
      word = now;
      showAge();
    },
  });
}
lookWithin(IDLE_MS);
addEventListener("pagehide", () => clearTimeout(timer));
