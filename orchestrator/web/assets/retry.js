// Asking for a large number goes in batches: this sends the next one as soon as one is done, as long as it gets on.
// Each answer is a page of its own, so going on without scripts is a press of the same button.

const card = document.querySelector("[data-retry]");
const form = card?.querySelector("form");
const asked = Number(card?.dataset.asked ?? 0);
const KEY = "retry-asked";

if (form && asked > 0 && asked > Number(sessionStorage.getItem(KEY) ?? 0)) {
  sessionStorage.setItem(KEY, String(asked));
  // A moment in which the progress can be read, and the page left.
  setTimeout(() => form.requestSubmit(), 400);
} else {
  sessionStorage.removeItem(KEY);
}
form?.addEventListener("submit", () => { form.querySelector("button").disabled = true; });
