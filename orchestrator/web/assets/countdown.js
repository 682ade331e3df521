// Moments to come, counted down each second by the server's clock, in the words the server uses.

const SECOND = 1000;
let ahead = 0; // how far this machine's clock is ahead of the server's, in milliseconds

/** Take the server's time as it was when the page was made. */
export function setClock(moment) {
  const at = Date.parse(moment);
  if (!Number.isNaN(at)) ahead = Date.now() - at;
}

export function spell(seconds) {
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const [hours, rest] = [Math.floor(minutes / 60), minutes % 60];
  if (hours < 48) return rest ? `${hours} h ${rest} min` : `${hours} h`;
  const [days, left] = [Math.floor(hours / 24), hours % 24];
  return left ? `${days} d ${left} h` : `${days} d`;
}

export function showCountdowns(root = document) {
  for (const element of root.querySelectorAll("[data-until]")) {
    const seconds = Math.round((Date.parse(element.dataset.until) - (Date.now() - ahead)) / SECOND);
    const words = seconds > 0 ? `in ${spell(seconds)}` : "now";
    if (element.textContent !== words) element.textContent = words;
  }
}

setInterval(() => { if (!document.hidden) showCountdowns(); }, SECOND);
