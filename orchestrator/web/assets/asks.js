// The page's forms, sent without leaving it, and addresses that are copied. Without scripts the forms work by themselves.

import { toast } from "./toasts.js";

async function ask(form, onAsked) {
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    // A redirect is the answer to what was taken; the page is brought up to date anyway.
    const answer = await fetch(form.action, {
      method: "POST", redirect: "manual", headers: { Accept: "application/problem+json" },
    });
    if (answer.type === "opaqueredirect" || answer.ok) {
      toast("info", "Requested: the monitor decides in a moment");
    } else {
      const problem = await answer.json().catch(() => ({}));
      toast("error", `${problem.title ?? "It was refused"}: ${problem.detail ?? `answer ${answer.status}`}`);
    }
    await onAsked();
  } catch {
    toast("error", "The service cannot be reached; nothing was asked");
  } finally {
    button.disabled = false;
  }
}

async function copy(address) {
  try {
    await navigator.clipboard.writeText(address);
    toast("success", "The address was copied");
  } catch {
    toast("error", "The browser does not let this page copy; take the address from the link");
  }
}

export function handleAsks(onAsked) {
  document.documentElement.classList.add("scripted");
  document.addEventListener("submit", (event) => {
    if (!event.target.matches("form[data-asks]")) return;
    event.preventDefault();
    event.target.closest("details")?.removeAttribute("open");
    ask(event.target, onAsked);
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) copy(button.dataset.copy);
  });
}
