// What a screen reader is told: one polite region a page, a sentence only when it is a new one.

let said = "";

export function announce(text) {
  if (!text || text === said) return;
  said = text;
  document.getElementById("announcer").textContent = text;
}
