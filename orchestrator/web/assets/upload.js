// The page that sends files: what is chosen is listed and checked, then sent, a few at a time; each leads to its clip.

import { announce } from "./announce.js";
import { faultOf, takeFiles } from "./dropping.js";
import { size, span } from "./measures.js";
import { forget, unfinished } from "./remembering.js";
import { Transfer } from "./transfer.js";

// More at once share the same line; fewer leave it idle while one waits for an answer.
const AT_ONCE = 3;

const form = document.querySelector("form[data-upload]");
const list = document.querySelector("[data-transfers]");
const at = (name, place = document) => place.querySelector(`[data-${name}]`);
const isResumable = form.dataset.resumable === "yes";
const most = Number(isResumable ? form.dataset.uploadMax : form.dataset.formMax);
const rows = new Map(); // transfer -> its line
const queue = []; // wanted, and not yet on their way
let isAloneOnPage = true; // a single file leads to its clip when it is sent; of several, each line does

const STATES = {
  waiting: () => "Ready to send",
  queued: () => "Waits for its turn",
  starting: () => "Beginning…",
  sending: (transfer) => {
    const rate = transfer.rate;
    const left = rate ? `, ${size(rate)}/s, ${span((transfer.file.size - transfer.sent) / rate)} left` : "";
    return `${size(transfer.sent)} of ${size(transfer.file.size)}${left}`;
  },
  retrying: (transfer) => `${transfer.problem}; trying again`,
  paused: (transfer) => `Paused at ${size(transfer.sent)} of ${size(transfer.file.size)}`,
  sent: () => "Sent",
  failed: () => "Not sent",
  cancelled: () => "Cancelled",
};

const stateOf = (transfer) => (queue.includes(transfer) ? "queued" : transfer.state);

function showFault(text) {
  at("fault", form).textContent = text;
  at("fault", form).hidden = !text;
}

function show(transfer) {
  const row = rows.get(transfer);
  const state = stateOf(transfer);
  row.dataset.state = state;
  at("doing", row).textContent = STATES[state](transfer);
  at("sent", row).value = state === "sent" ? 100 : (100 * transfer.sent) / transfer.file.size;
  at("fault", row).textContent = state === "failed" ? transfer.problem : "";
  at("fault", row).hidden = state !== "failed";
  at("page", row).hidden = !transfer.clip;
  if (transfer.clip) at("page", row).href = `/clips/${encodeURIComponent(transfer.clip.id)}`;
  at("anew", row).hidden = !transfer.wasBegun || state !== "waiting";
  at("pause", row).hidden = !isResumable || !(transfer.isMoving || state === "paused");
  at("pause", row).firstChild.data = state === "paused" ? "Go on" : "Pause";
  at("retry", row).hidden = state !== "failed";
  at("cancel", row).hidden = transfer.isOver;
  at("cancel", row).firstChild.data = state === "waiting" ? "Remove" : "Cancel";
  tell(transfer, row, state);
}

/** A sentence at every quarter of the way, and at every turn. */
function tell(transfer, row, state) {
  const quarter = Math.floor((4 * transfer.sent) / transfer.file.size);
  const name = transfer.file.name;
  if (state === "sending" && quarter > Number(row.dataset.quarter) && quarter < 4) announce(`${name}: ${quarter * 25} percent sent`);
  if (state === "sending") row.dataset.quarter = String(Math.max(quarter, Number(row.dataset.quarter)));
  if (state === row.dataset.told || !["sent", "paused", "cancelled"].includes(state)) return;
  row.dataset.told = state;
  announce(`${name}: ${{ sent: "sent", paused: "paused", cancelled: "cancelled" }[state]}`);
}

function add(file) {
  const transfer = new Transfer(file, { isResumable, onChange: show });
  const row = at("row").content.firstElementChild.cloneNode(true);
  rows.set(transfer, row);
  row.dataset.quarter = "0";
  at("name", row).textContent = file.name;
  at("size", row).textContent = size(file.size);
  at("sent", row).setAttribute("aria-label", `${file.name}, sent`);
  for (const button of row.querySelectorAll("button")) {
    const whose = document.createElement("span");
    whose.className = "hidden";
    whose.textContent = ` ${file.name}`;
    button.append(whose);
  }
  at("anew", row).querySelector("input").addEventListener("change", ({ target }) => { transfer.startsAnew = target.checked; });
  at("pause", row).addEventListener("click", () => (transfer.isMoving ? transfer.pause() : want(transfer)));
  at("retry", row).addEventListener("click", () => want(transfer));
  at("cancel", row).addEventListener("click", () => cancel(transfer));
  list.append(row);
  list.hidden = false;
  show(transfer);
}

function cancel(transfer) {
  const isUntouched = transfer.state === "waiting" && !queue.includes(transfer);
  const place = queue.indexOf(transfer);
  if (place >= 0) queue.splice(place, 1);
  if (!isUntouched) return transfer.cancel();
  rows.get(transfer).remove();
  rows.delete(transfer);
  list.hidden = !rows.size;
  showChosen();
  form.elements.file.focus();
}

function showChosen() {
  const waiting = [...rows.keys()].filter((transfer) => stateOf(transfer) === "waiting");
  // One title for several clips would tell none of them apart.
  at("title-field").hidden = waiting.length > 1;
  form.querySelector("button").textContent = waiting.length > 1 ? `Upload ${waiting.length} files` : "Upload";
}

function chosen(files) {
  const known = new Set([...rows.keys()].filter((transfer) => !transfer.isOver).map(({ file }) => `${file.name}:${file.size}:${file.lastModified}`));
  const faults = [];
  for (const file of files) {
    const fault = faultOf(file, most, size);
    if (fault) faults.push(files.length > 1 ? `${file.name}: ${fault}` : fault);
    else if (!known.has(`${file.name}:${file.size}:${file.lastModified}`)) add(file);
  }
  showFault(faults.join(" "));
  // What is listed is listed: the same file can be chosen again after it was removed.
  form.elements.file.value = "";
  showChosen();
}

function want(transfer) {
  queue.push(transfer);
  show(transfer);
  pump();
}

function pump() {
  const moving = [...rows.keys()].filter((transfer) => transfer.isMoving).length;
  for (const transfer of queue.splice(0, Math.max(0, AT_ONCE - moving))) transfer.run().finally(() => onStop(transfer));
}

function onStop(transfer) {
  pump();
  if (transfer.state !== "sent" || !isAloneOnPage) return;
  location.assign(`/clips/${encodeURIComponent(transfer.clip.id)}`);
}

function start(event) {
  event.preventDefault();
  const waiting = [...rows.keys()].filter((transfer) => stateOf(transfer) === "waiting");
  if (!waiting.length) return showFault("Choose a file first.");
  showFault("");
  isAloneOnPage = rows.size === 1;
  const title = form.elements.title.value.trim();
  for (const transfer of waiting) {
    transfer.title = (waiting.length === 1 && title) || transfer.file.name.slice(0, Number(form.dataset.titleMax));
    queue.push(transfer);
  }
  form.elements.title.value = "";
  waiting.forEach(show);
  pump();
  showChosen();
}

/** What another visit began: its bytes can only come from the person who has the file. */
async function offerUnfinished() {
  const found = isResumable ? await unfinished() : [];
  const place = at("unfinished");
  place.querySelector("ul").replaceChildren(...found.map(([key, clip]) => {
    const item = at("unfinished-row").content.firstElementChild.cloneNode(true);
    at("name", item).textContent = clip.name;
    at("size", item).textContent = size(clip.bytes);
    at("page", item).href = `/clips/${encodeURIComponent(clip.id)}`;
    item.querySelector("button").addEventListener("click", () => { forget(key); item.remove(); place.hidden = !place.querySelector("li"); });
    return item;
  }));
  place.hidden = !found.length;
}

takeFiles(at("drop"), form.elements.file, chosen);
form.addEventListener("submit", start);
addEventListener("beforeunload", (event) => { if ([...rows.keys()].some((transfer) => transfer.isMoving)) event.preventDefault(); });
// The browser keeps what was typed over a reload; what was chosen is chosen anew.
form.reset();
offerUnfinished();
