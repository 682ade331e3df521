// Bringing a page up to date with what the server renders now, region by region, so that what has not changed
// (a playing video, a chosen text) is left alone, and focus stays where it was.

import { showTimes } from "./times.js";

const rendered = new Map();

export function remember() {
  for (const region of document.querySelectorAll("[data-region]")) rendered.set(region.dataset.region, region.innerHTML);
  showTimes();
}

function focusable(region) {
  return [...region.querySelectorAll("a[href], button, summary, input, select, [tabindex]")];
}

function replace(region, fresh) {
  const place = focusable(region).indexOf(document.activeElement);
  const open = [...region.querySelectorAll("details")].map((details) => details.open);
  region.replaceChildren(...[...fresh.childNodes].map((node) => document.importNode(node, true)));
  region.querySelectorAll("details").forEach((details, index) => { details.open = open[index] ?? false; });
  if (place >= 0) (focusable(region)[place] ?? document.getElementById("main")).focus({ preventScroll: true });
  showTimes(region);
}

/**
 * Fetch this page again and put in what changed, but for regions that *isHeld* names; the fetched document.
 * Throws when it cannot be had.
 */
export async function refresh(isHeld = () => false) {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
  if (answer.redirected) location.reload();
  if (!answer.ok) throw new Error(`the page answered ${answer.status}`);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const region of document.querySelectorAll("[data-region]")) {
    const name = region.dataset.region;
    const there = fresh.querySelector(`[data-region="${name}"]`);
    if (!there || there.innerHTML === rendered.get(name) || isHeld(name)) continue;
    rendered.set(name, there.innerHTML);
    replace(region, there);
  }
  return fresh;
}
