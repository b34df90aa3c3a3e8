// A click on the picture names a pixel, in shares of the photo; a drag of the handle or of a zoomed picture does not.
// The mark stands where the drawing's pixel is, which may also have been typed.
const tab = element.closest(".tabitem");
const area = tab.querySelector("#doubt");
const mark = Object.assign(document.createElement("div"), { className: "pick", hidden: true });
area.append(mark);

function putMark() {
  const { u, v } = element.querySelector("[data-u]")?.dataset ?? {};
  const photo = u && box(area.querySelector(".comparison img"));
  const frame = area.getBoundingClientRect();
  mark.hidden = !photo;
  if (mark.hidden) return;
  mark.style.left = `${photo.left - frame.left + u * photo.width}px`;
  mark.style.top = `${photo.top - frame.top + v * photo.height}px`;
}

let pressed = { clientX: 0, clientY: 0 };
tab.addEventListener("pointerdown", (event) => { pressed = event; }, true);
tab.addEventListener("click", (event) => {
  const photo = box(area.querySelector(".comparison img"));
  if (!photo || !event.target.closest("#doubt .comparison") || event.target.closest("button, a, .outer")) return;
  if (Math.hypot(event.clientX - pressed.clientX, event.clientY - pressed.clientY) > 4) return;
  const u = (event.clientX - photo.left) / photo.width;
  const v = (event.clientY - photo.top) / photo.height;
  if (u >= 0 && u < 1 && v >= 0 && v < 1) trigger("click", { u, v });
}, true);
tab.addEventListener("load", putMark, true);
tab.addEventListener("wheel", () => setTimeout(putMark, 150), true); // zooming takes its time
new ResizeObserver(putMark).observe(area);
new MutationObserver(putMark).observe(element, { attributes: true, childList: true, subtree: true });
putMark();
