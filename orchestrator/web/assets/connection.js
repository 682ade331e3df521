// How this page is kept up to date, in words; when it is not, how old what it shows is.

import { announce } from "./announce.js";

const WORDS = { live: "live", polling: "asking every few seconds" };
let word = "";
let seenAt = 0;
let timer = 0;

function age() {
  const seconds = Math.max(0, Math.round((Date.now() - seenAt) / 1000));
  return seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
}

/** Write it where the page has a place for it; also after that place was replaced. */
export function showConnection() {
  for (const place of document.querySelectorAll("[data-connection]")) {
    place.textContent = word === "lost" ? `connection lost, trying again; updated ${age()} ago` : WORDS[word] ?? "";
    place.dataset.state = word;
  }
}

/** The connection is *now*: "live", "polling", "lost", or "" when nothing is followed any more. */
export function connectionIs(now, at = Date.now()) {
  if (now !== word && now === "lost") announce("Connection lost");
  if (word === "lost" && (now === "live" || now === "polling")) announce("Connected again");
  word = now;
  seenAt = at;
  clearInterval(timer);
  timer = word === "lost" ? setInterval(showConnection, 1000) : 0;
  showConnection();
}
