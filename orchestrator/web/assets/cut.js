// Cutting a video: mark ranges on it while it is still on this computer, send it, ask for the clips, go to their page.

import { announce } from "./announce.js";
import { faultOf, takeFiles } from "./dropping.js";
import { size } from "./measures.js";
import { sendResumable } from "./resumable.js";
import { documentOf, sendForm } from "./sending.js";

const form = document.querySelector("form[data-cut]");
const at = (name) => document.querySelector(`[data-${name}]`);
const input = form.elements.file;
const preview = at("preview");
const rows = at("ranges");
let shown = null; // address of the previewed file
let begun = null; // a start that has no end yet
let control = null; // of the sending under way

const seconds = (value) => Number(value.toFixed(3));
const check = (file) => faultOf(file, Number(form.dataset.uploadMax), size);
const isManual = () => form.elements.mode.value === "manual";

function showFault(text) {
  at("fault").textContent = text;
  at("fault").hidden = !text;
}

function chosen() {
  const file = input.files[0];
  if (shown) URL.revokeObjectURL(shown);
  shown = file ? URL.createObjectURL(file) : null;
  at("chosen").textContent = file ? `${file.name}, ${size(file.size)}` : "";
  at("marking").hidden = !file;
  at("no-preview").hidden = true;
  if (shown) preview.src = shown;
  showFault(file ? check(file) : "");
  if (file && !rows.children.length) add();
}

function cell(row, child) {
  const made = document.createElement("td");
  made.append(child);
  row.append(made);
  return made;
}

function time(label, value) {
  const made = document.createElement("input");
  Object.assign(made, { type: "number", min: "0", step: "any", required: true, value: value ?? "" });
  made.setAttribute("aria-label", label);
  return made;
}

function add(start = null, end = null) {
  if (rows.children.length >= Number(form.dataset.mostClips)) return showFault(`At most ${form.dataset.mostClips} clips.`);
  const row = document.createElement("tr");
  cell(row, "");
  cell(row, time("Start in seconds", start));
  cell(row, time("End in seconds", end));
  cell(row, "");
  const remove = document.createElement("button");
  Object.assign(remove, { type: "button", textContent: "Remove" });
  remove.addEventListener("click", () => { row.remove(); number(); (rows.querySelector("button") ?? at("add")).focus(); });
  cell(row, remove);
  rows.append(row);
  number();
  return row;
}

const timesOf = (row) => [...row.querySelectorAll("input")].map((each) => (each.value === "" ? NaN : Number(each.value)));

function number() {
  [...rows.children].forEach((row, place) => {
    const [start, end] = timesOf(row);
    row.cells[0].textContent = place + 1;
    row.cells[3].textContent = end > start ? `${seconds(end - start)} s` : "";
    row.querySelector("button").setAttribute("aria-label", `Remove clip ${place + 1}`);
  });
}

function showMarked(text) {
  at("marked").textContent = text;
  announce(text);
}

function mark(which) {
  const now = seconds(preview.currentTime);
  if (which === "start") {
    begun = now;
    return showMarked(`Starts at ${now} s`);
  }
  if (begun === null || now <= begun) return showMarked("Mark a start before the end.");
  const empty = [...rows.children].find((row) => timesOf(row).every(Number.isNaN));
  empty?.remove();
  add(begun, now);
  showMarked(`Clip ${rows.children.length}: ${begun} to ${now} s`);
  begun = null;
}

/** What is asked for, or a sentence that says what is missing. */
function wanted() {
  const common = { precision: form.elements.fast.checked ? "fast" : "exact" };
  const title = form.elements.title.value.trim();
  if (title) common.title = title;
  if (!isManual()) {
    const [clipDuration, maxClips] = [Number(form.elements.clip_seconds.value), Number(form.elements.max_clips.value)];
    if (!(clipDuration >= 0.1) || !(maxClips >= 1)) return "Say how long each clip is, and how many there may be.";
    return { ...common, mode: "automatic", clipDuration, maxClips };
  }
  const clips = [];
  for (const [place, row] of [...rows.children].entries()) {
    const [start, end] = timesOf(row);
    if (!(start >= 0) || !(end > start)) return `Clip ${place + 1} needs a start, and an end behind it.`;
    if (preview.duration && end > preview.duration + 0.05) return `Clip ${place + 1} ends behind the video, which has ${seconds(preview.duration)} s.`;
    clips.push({ start, end });
  }
  return clips.length ? { ...common, mode: "manual", clips, maxClips: clips.length } : "Mark at least one range.";
}

const base64 = (text) => btoa(String.fromCodePoint(...new TextEncoder().encode(text)));

/** Send *file* here; the id it is kept under. In one go where this installation has no part for resuming. */
async function sendFile(file, how) {
  if (form.dataset.resumable !== "yes") {
    // Under a name of its own, so that a second try after a lost answer is the same upload.
    const id = `page-${Date.now()}-${Math.random().toString(36).slice(2)}`;
    await sendForm(file, `/api/videos/upload?uploadId=${id}`, how);
    return id;
  }
  const answer = await fetch("/api/videos/tus", {
    method: "POST",
    headers: { "Tus-Resumable": "1.0.0", "Upload-Length": String(file.size), "Upload-Metadata": `filename ${base64(file.name.slice(0, 200))}` },
  });
  if (!answer.ok) await documentOf(answer);
  const url = answer.headers.get("Location");
  await sendResumable(file, url, how);
  return decodeURIComponent(url.slice(url.lastIndexOf("/") + 1));
}

function onSent(file) {
  let quarter = 0;
  return (bytes) => {
    const part = Math.min(100, (100 * bytes) / file.size);
    at("sent").value = part;
    at("speed").textContent = `${size(Math.min(bytes, file.size))} of ${size(file.size)}`;
    at("doing").textContent = "Sending…";
    if (Math.floor(part / 25) > quarter) {
      quarter = Math.floor(part / 25);
      announce(`${quarter * 25} percent sent`);
    }
  };
}

async function start(event) {
  event.preventDefault();
  const file = input.files[0];
  const asked = wanted();
  const wrong = file ? check(file) || (typeof asked === "string" ? asked : "") : "Choose a file first.";
  showFault(wrong);
  if (wrong) return;
  const button = form.querySelector("button.primary");
  button.disabled = true;
  control = new AbortController();
  try {
    at("name").textContent = file.name;
    at("sending").hidden = false;
    const onRetry = (problem) => { at("doing").textContent = `${problem.message}; trying again`; };
    const uploadId = await sendFile(file, { onSent: onSent(file), onRetry, signal: control.signal });
    at("doing").textContent = "Asking for the clips…";
    const job = await documentOf(await fetch("/api/process-video", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ uploadId, title: file.name.slice(0, 200), ...asked }),
    }));
    control = null; // leaving the page loses nothing any more
    location.assign(`/clips/${encodeURIComponent(job.jobId)}`);
  } catch (problem) {
    if (problem !== "cancelled") showFault(`Not started: ${problem.message ?? problem}`);
    at("sending").hidden = true;
  } finally {
    button.disabled = false;
    control = null;
  }
}

function showMode() {
  at("manual").hidden = !isManual();
  at("automatic").hidden = isManual();
  for (const each of rows.querySelectorAll("input")) each.disabled = !isManual();
}

function onKey(event) {
  const which = { i: "start", o: "end" }[event.key.toLowerCase()];
  const isTyping = event.target.closest("input:not([type=radio]):not([type=checkbox]), textarea, select");
  if (!which || isTyping || event.ctrlKey || event.metaKey || event.altKey || at("marking").hidden) return;
  event.preventDefault();
  mark(which);
}

takeFiles(at("drop"), input, chosen);
addEventListener("beforeunload", (event) => { if (control) event.preventDefault(); });
addEventListener("keydown", onKey);
preview.addEventListener("error", () => { at("no-preview").hidden = false; });
rows.addEventListener("input", number);
for (const each of form.elements.mode) each.addEventListener("change", showMode);
for (const each of document.querySelectorAll("[data-mark]")) each.addEventListener("click", () => mark(each.dataset.mark));
at("add").addEventListener("click", () => add()?.querySelector("input").focus());
at("cancel").addEventListener("click", () => control?.abort("cancelled"));
form.addEventListener("submit", start);
