// Short messages in a corner. Good news leaves by itself; an error stays until somebody closes it.

import { announce } from "./announce.js";

const LEAVES_MS = 5000;
// More at once nobody reads: the oldest gives way.
const AT_ONCE_MAX = 4;
const MARKS = { info: "ℹ", success: "✓", error: "✕" };

function close(toast) {
  const hadFocus = toast.contains(document.activeElement);
  toast.remove();
  if (hadFocus) document.getElementById("main").focus({ preventScroll: true });
}

/** Show *text* as "info", "success" or "error"; `isSaid` when a screen reader is told the same anyway. */
export function toast(kind, text, { isSaid = false } = {}) {
  const place = document.querySelector("[data-toasts]");
  if (!place) return;
  while (place.children.length >= AT_ONCE_MAX) place.firstElementChild.remove();
  const element = document.createElement("div");
  element.className = `toast ${kind}`;
  const mark = document.createElement("span");
  mark.setAttribute("aria-hidden", "true");
  mark.textContent = MARKS[kind];
  const words = document.createElement("bdi");
  words.textContent = text;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet";
  button.setAttribute("aria-label", "Close this message");
  button.textContent = "✕";
  button.onclick = () => close(element);
  element.append(mark, words, button);
  // An alert is spoken when it comes in; the others share the page's one polite region.
  if (kind === "error") element.setAttribute("role", "alert");
  else if (!isSaid) announce(text);
  place.append(element);
  if (kind === "error") return;
  // Whoever reads it, or is about to close it, keeps it.
  const leave = () => (element.matches(":hover, :focus-within") ? setTimeout(leave, LEAVES_MS) : close(element));
  setTimeout(leave, LEAVES_MS);
}
