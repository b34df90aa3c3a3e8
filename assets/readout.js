// Writes what the map holds under the pointer, or under a mark that the arrow keys move. The numbers are in the page.
const field = element.querySelector(".readout");
const sentence = field.querySelector("span");
const hint = sentence.textContent;
const area = element.closest(".tabitem").querySelector("#look");
const mark = Object.assign(document.createElement("div"), { className: "pick", hidden: true });
area.append(mark);
let channels = [];
let place = null; // of what is read, in shares of the photo's width and height

function read() {
  channels = (props.value?.channels ?? []).map((channel) => {
    const bytes = Uint8Array.from(atob(channel.codes), (letter) => letter.charCodeAt(0));
    return { ...channel, numbers: new Uint16Array(bytes.buffer) };
  });
  write();
}

function write() {
  sentence.style.visibility = channels.length ? "" : "hidden"; // it keeps its lines where there is no picture to point at
  if (!place || !channels.length) {
    sentence.textContent = hint;
    return;
  }
  const [u, v] = place;
  const readings = channels.map(({ label, unit, digits, low, step, columns, rows, numbers }) => {
    const number = numbers[Math.floor(v * rows) * columns + Math.floor(u * columns)];
    return `${label} ${(low + number * step).toFixed(digits)}${unit}`;
  });
  const { width, height, at } = props.value;
  sentence.textContent = `${readings.join(", ")} ${at} ${Math.floor(u * width)}, ${Math.floor(v * height)}`;
}

function putMark() {
  const photo = place && box(area.querySelector(".comparison img"));
  const frame = area.getBoundingClientRect();
  mark.hidden = !photo || document.activeElement !== field;
  if (mark.hidden) return;
  mark.style.left = `${photo.left - frame.left + place[0] * photo.width}px`;
  mark.style.top = `${photo.top - frame.top + place[1] * photo.height}px`;
}

function follow(event) {
  const photo = box(area.querySelector(".comparison img"));
  if (!photo) return;
  const u = (event.clientX - photo.left) / photo.width;
  const v = (event.clientY - photo.top) / photo.height;
  const inside = u >= 0 && u < 1 && v >= 0 && v < 1;
  if (!inside && event.pointerType !== "mouse") return;
  place = inside ? [u, v] : null;
  write();
  putMark();
}

area.addEventListener("pointermove", follow, true);
area.addEventListener("pointerdown", follow, true);
area.addEventListener("pointerleave", (event) => {
  if (event.pointerType !== "mouse") return; // a finger is lifted to see what it has touched
  place = null;
  write();
  putMark();
});

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
field.addEventListener("keydown", (event) => {
  const move = MOVES[event.key];
  if (!move) return;
  event.preventDefault();
  const step = event.shiftKey ? 0.1 : 0.01;
  const within = (share) => Math.min(Math.max(share, 0), 0.9999);
  place = place ? [within(place[0] + step * move[0]), within(place[1] + step * move[1])] : [0.5, 0.5];
  write();
  putMark();
});
field.addEventListener("focus", () => {
  sentence.setAttribute("aria-live", "polite"); // not for a mouse, which would never let it finish
  place ??= [0.5, 0.5];
  write();
  putMark();
});
field.addEventListener("blur", () => {
  sentence.removeAttribute("aria-live");
  putMark();
});
area.addEventListener("load", putMark, true);
watch("value", read);
read();
