// Sending a file: ask for an address, show the clip's page at once, send the bytes, go there.

import { announce } from "./announce.js";
import { mayPass, pause, send, wait } from "./sending.js";
import { upload as sendByTus } from "./tus.js";

const FORM_TRIES_MAX = 3;
const form = document.querySelector("form[data-upload]");
const sending = document.querySelector("[data-sending]");
const fault = document.querySelector("[data-fault]");
const at = (name) => document.querySelector(`[data-${name}]`);
const input = form.elements.file;

let control = null; // of the sending under way
let goOn = null; // set while it is paused
let isCancelled = false;

function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB"];
  let place = 0;
  for (; bytes >= 1000 && place < 3; place += 1) bytes /= 1000;
  return `${bytes.toFixed(place ? 1 : 0)} ${units[place]}`;
}

function showFault(text) {
  fault.textContent = text;
  fault.hidden = !text;
  if (text) form.hidden = false;
}

function chosen() {
  const file = input.files[0];
  at("chosen").textContent = file ? `${file.name}, ${size(file.size)}` : "";
  showFault(file ? check(file) : "");
}

function check(file) {
  if (!file.size) return "The file is empty.";
  if (file.size > Number(form.dataset.uploadMax)) return `The file has ${size(file.size)}; the provider takes 30 GB at most.`;
  return "";
}

// A file that was being sent before the page was closed goes on where it stopped.
const memory = (file) => `upload:${file.name}:${file.size}:${file.lastModified}`;

function remembered(file) {
  try {
    const kept = JSON.parse(localStorage.getItem(memory(file)));
    return kept && new Date(kept.upload_expires_at) > new Date() ? kept : null;
  } catch {
    return null;
  }
}

function remember(file, clip) {
  try {
    if (clip) localStorage.setItem(memory(file), JSON.stringify(clip));
    else localStorage.removeItem(memory(file));
  } catch {
    // Private windows have no storage: then a closed page means a new start.
  }
}

async function create(file) {
  const title = form.elements.title.value.trim() || file.name;
  const answer = await fetch("/api/clips", {
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}` },
    body: JSON.stringify({ source: "upload", title: title.slice(0, Number(form.dataset.titleMax)), size_bytes: file.size }),
  });
  const document_ = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error([document_.detail ?? `The service answered ${answer.status}.`, document_.hint].filter(Boolean).join(" "));
  return document_;
}

function progressFor(file) {
  let quarter = 0;
  let mark = { at: performance.now(), bytes: null };
  return (bytes) => {
    const part = Math.min(100, (100 * Math.min(bytes, file.size)) / file.size);
    at("sent").value = part;
    at("speed").textContent = `${size(Math.min(bytes, file.size))} of ${size(file.size)}`;
    const seconds = (performance.now() - mark.at) / 1000;
    if (mark.bytes === null || seconds > 5) mark = { at: performance.now(), bytes };
    else if (seconds > 1) at("speed").textContent += `, ${size((bytes - mark.bytes) / seconds)}/s`;
    if (Math.floor(part / 25) > quarter) {
      quarter = Math.floor(part / 25);
      announce(`${quarter * 25} percent sent`);
    }
  };
}

async function sendByForm(file, url, onSent, signal) {
  for (let failures = 1; ; failures += 1) {
    const body = new FormData();
    body.append("file", file, file.name);
    try {
      await send("POST", url, { body, onSent, signal });
      return;
    } catch (problem) {
      if (!mayPass(problem) || failures >= FORM_TRIES_MAX) throw problem;
      at("doing").textContent = `${problem.message}; trying again`;
      await wait(pause(failures), signal);
    }
  }
}

async function sendAll(file, clip) {
  const onSent = progressFor(file);
  for (;;) {
    control = new AbortController();
    at("doing").textContent = "Sending…";
    try {
      if (clip.protocol === "form") await sendByForm(file, clip.upload_url, onSent, control.signal);
      else {
        const onRetry = (problem) => { at("doing").textContent = `${problem.message}; trying again`; };
        const heard = (bytes) => { at("doing").textContent = "Sending…"; onSent(bytes); };
        await sendByTus(file, clip.upload_url, { onSent: heard, onRetry, signal: control.signal });
      }
      return;
    } catch (problem) {
      if (problem !== "paused") throw problem;
      at("doing").textContent = "Paused";
      await new Promise((resolve) => { goOn = resolve; });
      goOn = null;
      if (isCancelled) throw "cancelled";
    }
  }
}

async function start(event) {
  event.preventDefault();
  const file = input.files[0];
  const wrong = file ? check(file) : "Choose a file first.";
  if (wrong) return showFault(wrong);
  showFault("");
  isCancelled = false;
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const clip = remembered(file) ?? (await create(file));
    if (clip.protocol === "tus") remember(file, clip);
    form.hidden = true;
    sending.hidden = false;
    at("name").textContent = file.name;
    at("page").href = `/clips/${encodeURIComponent(clip.id)}`;
    at("pause").hidden = clip.protocol === "form";
    await sendAll(file, clip);
    remember(file, null);
    control = null; // leaving the page loses nothing any more
    announce("The file is sent");
    location.assign(`/clips/${encodeURIComponent(clip.id)}`);
  } catch (problem) {
    sending.hidden = true;
    if (problem === "cancelled") return;
    if ([403, 404, 410].includes(problem.status)) remember(file, null);
    showFault(`Not sent: ${problem.message ?? problem}`);
  } finally {
    button.disabled = false;
    control = null;
    if (sending.hidden) form.hidden = false;
  }
}

function pauseOrGoOn() {
  if (goOn) goOn();
  else control?.abort("paused");
  at("pause").textContent = goOn ? "Pause" : "Go on";
}

function cancel() {
  const file = input.files[0];
  if (file) remember(file, null);
  isCancelled = true;
  if (goOn) goOn();
  else control?.abort("cancelled");
  at("pause").textContent = "Pause";
}

const drop = at("drop");
for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  if (!event.dataTransfer.files.length) return;
  input.files = event.dataTransfer.files;
  chosen();
});
// A file that misses the target would otherwise replace the page.
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
addEventListener("beforeunload", (event) => { if (control) event.preventDefault(); });
input.addEventListener("change", chosen);
form.addEventListener("submit", start);
at("pause").addEventListener("click", pauseOrGoOn);
at("cancel").addEventListener("click", cancel);
