// One zoom for every picture of a comparison: wheel, drag, pinch, buttons and keys move all of them together.
//
// The zoom lives in custom properties of the element that Gradio redraws the grid into. They are inherited by the
// pictures, so that a redraw, while a comparison runs or after other colours were asked for, moves nothing.
// Gradio gives `element`, `trigger`, and `props`: `photos` are words for the example photos.

const MOST = 16;
const STEP = 1.25; // of one key press or click
const PAN = 0.1; // of a window's width or height, for one key press
const SLOP_PX = 5; // a press that moves further is a drag and picks nothing
const SCROLLED_MS = 350; // the page goes on scrolling when a picture comes under the wheel

let zoom = 1;
let left = 0; // where the enlarged picture begins, in widths and heights of its window: 0 down to 1 - zoom
let top = 0;

const show = () => {
  left = Math.min(0, Math.max(1 - zoom, left));
  top = Math.min(0, Math.max(1 - zoom, top));
  element.style.setProperty("--zoom", zoom);
  element.style.setProperty("--left", `${100 * left}%`);
  element.style.setProperty("--top", `${100 * top}%`);
  element.style.setProperty("--level", `"${zoom.toFixed(1)}×"`);
  element.classList.toggle("zoomed", zoom > 1);
};

// Enlarge by a factor, keeping the point (x, y) of the windows, in [0, 1], where it is.
const enlarge = (factor, x = 0.5, y = 0.5) => {
  const next = Math.min(MOST, Math.max(1, zoom * factor));
  left = x - ((x - left) * next) / zoom;
  top = y - ((y - top) * next) / zoom;
  zoom = next;
  show();
};

const pan = (x, y) => {
  left += x;
  top += y;
  show();
};

const reset = () => {
  zoom = 1;
  show();
};

const ACTIONS = { in: () => enlarge(STEP), out: () => enlarge(1 / STEP), reset };
const KEYS = {
  "+": ACTIONS.in,
  "=": ACTIONS.in,
  "-": ACTIONS.out,
  0: reset,
  ArrowLeft: () => pan(PAN, 0),
  ArrowRight: () => pan(-PAN, 0),
  ArrowUp: () => pan(0, PAN),
  ArrowDown: () => pan(0, -PAN),
};

const windowOf = (event) => event.target.closest?.(".cell")?.querySelector(".window");
const within = (box, event) => [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];

// ------------------------------------------------------------------------------- wheel

let scrolled = -SCROLLED_MS;
window.addEventListener("scroll", () => (scrolled = performance.now()), { passive: true, capture: true });

element.addEventListener(
  "wheel",
  (event) => {
    const view = windowOf(event);
    const passing = zoom === 1 && (event.deltaY > 0 || performance.now() - scrolled < SCROLLED_MS);
    if (!view || (passing && !event.ctrlKey)) return;
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    enlarge(Math.exp((-event.deltaY * lines) / 400), ...within(view.getBoundingClientRect(), event));
  },
  { passive: false },
);

// ------------------------------------------------------------------------------- drag and pinch

const fingers = new Map(); // pointers that are down, and where they were last
let grip = null; // the window that was taken hold of, as it lay then
let moved = 0;

const centre = () => {
  const points = [...fingers.values()];
  const [first, second] = points;
  return {
    clientX: points.reduce((sum, point) => sum + point.clientX, 0) / points.length,
    clientY: points.reduce((sum, point) => sum + point.clientY, 0) / points.length,
    apart: second ? Math.hypot(first.clientX - second.clientX, first.clientY - second.clientY) : 0,
  };
};

element.addEventListener("pointerdown", (event) => {
  const view = windowOf(event);
  if (!view || event.button) return;
  if (!fingers.size) {
    grip = view.getBoundingClientRect();
    moved = 0;
  }
  fingers.set(event.pointerId, event);
});

element.addEventListener("pointermove", (event) => {
  if (!fingers.has(event.pointerId)) return;
  const before = centre();
  fingers.set(event.pointerId, event);
  const after = centre();
  const [x, y] = [after.clientX - before.clientX, after.clientY - before.clientY];
  moved += Math.hypot(x, y) + Math.abs(after.apart - before.apart);
  if (moved < SLOP_PX) return;
  if (zoom > 1 || fingers.size > 1) element.setPointerCapture(event.pointerId); // also outside of the picture
  pan(x / grip.width, y / grip.height);
  if (before.apart && after.apart) enlarge(after.apart / before.apart, ...within(grip, after));
});

for (const end of ["pointerup", "pointercancel"])
  element.addEventListener(end, (event) => fingers.delete(event.pointerId));

// One finger scrolls the page as long as nothing is enlarged (the style sheet says so); two are always ours.
element.addEventListener("touchstart", (event) => event.touches.length > 1 && event.preventDefault(), {
  passive: false,
});

// ------------------------------------------------------------------------------- keys, buttons, picking

element.addEventListener("keydown", (event) => {
  const act = event.ctrlKey || event.metaKey || event.altKey ? null : KEYS[event.key];
  if (!act || (event.key.startsWith("Arrow") && zoom === 1)) return;
  event.preventDefault();
  act();
});

element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-zoom]");
  if (button) return ACTIONS[button.dataset.zoom]();
  const cell = event.target.closest("[data-cell]");
  const dragged = event.detail > 0 && moved >= SLOP_PX; // a key press has no detail
  if (cell && !dragged) trigger("select", { index: Number(cell.dataset.cell), value: null });
});

// ------------------------------------------------------------------------------- the same spot in every picture

element.addEventListener("pointermove", (event) => {
  const view = event.pointerType === "mouse" && windowOf(event);
  element.classList.toggle("marked", Boolean(view));
  if (!view) return;
  const [x, y] = within(view.getBoundingClientRect(), event);
  element.style.setProperty("--mark-x", `${100 * x}%`);
  element.style.setProperty("--mark-y", `${100 * y}%`);
});
element.addEventListener("pointerleave", () => element.classList.remove("marked"));

// ------------------------------------------------------------------------------- what Gradio's widgets lack

// Names for groups and pictures, which may be drawn after this.
const lab = document.getElementById("lab");
const amend = () => {
  for (const group of lab.querySelectorAll("fieldset:not([aria-label])")) {
    const label = group.querySelector("[data-testid='block-info']");
    if (label) group.setAttribute("aria-label", label.textContent);
  }
  lab.querySelectorAll("#lab-examples img").forEach((picture, index) => (picture.alt = props.photos[index]));
};
new MutationObserver(amend).observe(lab, { childList: true, subtree: true, characterData: true });
amend();

show();
