// A click on the button of a row names the row.
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-row]");
  if (button) trigger("click", { row: Number(button.dataset.row) });
});
