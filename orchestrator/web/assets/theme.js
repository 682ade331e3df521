// The choice of a theme, without loading the page again. Without scripts the form does it by itself.

const form = document.querySelector("[data-theme-form]");

function show(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  document.querySelector("meta[name=color-scheme]").content = theme === "system" ? "light dark" : theme;
  for (const button of form.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.value === theme));
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = new URLSearchParams(new FormData(form, event.submitter));
  show(event.submitter.value);
  // What cannot be kept holds for this page.
  await fetch(form.action, { method: "POST", body, redirect: "manual" }).catch(() => {});
});
