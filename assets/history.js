// A click names a run. The strip is drawn again after every run; the picked button gets the focus back.
let picked = null;
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-run]");
  if (!button) return;
  picked = button.dataset.run;
  trigger("click", { run: picked });
});
watch("value", () => {
  if (picked && document.activeElement === document.body) element.querySelector(`[data-run="${picked}"]`)?.focus();
});
