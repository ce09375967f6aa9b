// A cursor in the charts of one HPA with the numbers below it, and zoom: a time is selected by dragging, or with the arrow
// keys. The zoomed page has an address of its own, which the server renders.

const NUMBERS = [
  ["replicas", "now"],
  ["desired", "desired"],
  ["uncapped", "worth"],
  ["ceiling", "ceiling"],
  ["lag", "lag"],
  ["lag_seconds", "behind, s"],
  ["produced_per_second", "arriving/s"],
  ["consumed_per_second", "consumed/s"],
];

/** Pixels that a pointer moves at least to select. */
const DRAG = 5;

/** Part of the span that an arrow key moves the cursor by. */
const STEP = 0.01;

const charts = () => document.getElementById("charts");
const limit = (share) => Math.min(Math.max(share, 0), 1);
const format = (number) => number.toLocaleString(undefined, { maximumFractionDigits: 1 });

let cursor = null; // place of the cursor, as a part of the span
let anchor = null; // where the selection began
let isDragging = false;
let history = null; // the points of the charts, read at the first use

/** The time that the charts cover, in seconds since 1970. */
function span() {
  const { from, to } = charts().dataset;
  return { from: Number(from), to: Number(to) };
}

/** Whether somebody reads or selects, so that an update would disturb. */
export const isInUse = () => cursor !== null;

/** Adds what only a script can do to charts that are new on the page. */
export function enhance() {
  history = null;
  clear();
  const group = charts();
  if (!group) return;
  group.tabIndex = 0;
  group.setAttribute("role", "group");
  group.setAttribute(
    "aria-label",
    "Charts. The left and right arrow keys move a cursor, with Shift they select a time. Enter zooms to it, Escape clears it.",
  );
}

/** Watches pointer and keys. `show` opens an address. */
export function watch(main, show) {
  const shareAt = (picture, event) => {
    const box = picture.getBoundingClientRect();
    return limit((event.clientX - box.left) / box.width);
  };
  let pressedAt = 0;
  let pointer = ""; // where it was
  main.addEventListener("pointerdown", (event) => {
    const picture = event.target.closest(".picture");
    if (!picture || event.button !== 0) return;
    event.preventDefault(); // no selection of text
    charts().focus({ preventScroll: true });
    isDragging = true;
    pressedAt = event.clientX;
    anchor = cursor = shareAt(picture, event);
    draw();
  });
  document.addEventListener("pointermove", (event) => {
    const group = charts();
    // Browsers also send this event if the element below a resting pointer changes. That must not end a selection by keys.
    const place = `${event.clientX} ${event.clientY}`;
    if (!group || place === pointer) return;
    pointer = place;
    // A selection may go on outside of the chart where it began.
    const picture = event.target.closest?.(".picture") ?? (isDragging ? group.querySelector(".picture") : null);
    if (!picture) {
      if (cursor !== null && event.pointerType === "mouse") clear();
      return;
    }
    if (!isDragging && event.buttons === 0) anchor = null;
    move(shareAt(picture, event));
  });
  document.addEventListener("pointerup", (event) => {
    if (!isDragging) return;
    isDragging = false;
    if (Math.abs(event.clientX - pressedAt) >= DRAG) zoom(show);
    else {
      anchor = null;
      draw();
    }
  });
  document.addEventListener("pointercancel", clear);
  main.addEventListener("pointerleave", () => isDragging || clear());
  main.addEventListener("focusout", (event) => event.target === charts() && !isDragging && clear());
  main.addEventListener("dblclick", (event) => event.target.closest(".picture") && document.getElementById("latest")?.click());
  main.addEventListener("keydown", (event) => {
    if (event.target !== charts() || event.metaKey || event.ctrlKey || event.altKey) return;
    const by = { ArrowLeft: -STEP, ArrowRight: STEP }[event.key];
    if (by !== undefined) {
      const start = cursor ?? 1;
      if (event.shiftKey) anchor ??= start;
      else anchor = null;
      move(limit(start + by));
    } else if (event.key === "Enter" && anchor !== null && anchor !== cursor) {
      zoom(show);
    } else if (event.key === "Escape" && cursor !== null) {
      clear();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  });
}

/** Opens the page of the selected time. */
function zoom(show) {
  const { from, to } = span();
  const time = (share) => new Date(Math.round(from + share * (to - from)) * 1000).toISOString().replace(".000", "");
  const [first, last] = [anchor, cursor].sort((a, b) => a - b);
  const address = `${location.pathname}?from=${time(first)}&to=${time(last)}`;
  clear();
  show(address);
}

async function move(share) {
  cursor = share;
  draw();
  const { from, to } = span();
  history ??= points(from, to);
  const all = await history;
  // It may be somewhere else by now.
  if (cursor !== share) return;
  const at = from + share * (to - from);
  const nearest = all.reduce((best, point) => (!best || Math.abs(point.at - at) < Math.abs(best.at - at) ? point : best), null);
  const numbers = NUMBERS.filter(([key]) => nearest && nearest[key] !== null);
  const texts = numbers.map(([key, title]) => `${title} ${format(nearest[key])}`);
  if (nearest) texts.push(nearest.rule ? `rule ${nearest.rule.replaceAll("_", " ")}` : "no value");
  const clock = new Date((nearest?.at ?? at) * 1000).toLocaleTimeString([], { hour12: false });
  say(`${clock}  ${texts.join(" · ") || "unknown"}`);
}

/** The points of the charts on the page. */
async function points(from, to) {
  const [, , namespace, name] = location.pathname.split("/");
  try {
    const response = await fetch(`/api/hpas/${namespace}/${name}?since=${from}&until=${to}`);
    return response.ok ? (await response.json()).history.points : [];
  } catch {
    return [];
  }
}

function say(text) {
  const readout = document.querySelector(".readout");
  if (readout) readout.textContent = text;
}

function draw() {
  for (const picture of document.querySelectorAll(".picture")) {
    put(picture, "cursor", cursor === null ? "" : `M${cursor * 1000} 0V100`);
    const isSelected = anchor !== null && cursor !== null && anchor !== cursor;
    put(picture, "selection", isSelected ? `M${anchor * 1000} 0H${cursor * 1000}V100H${anchor * 1000}Z` : "");
  }
}

/** Puts a path of this class into a picture, or takes it away. */
function put(picture, name, path) {
  let line = picture.querySelector(`.${name}`);
  if (!path) return line?.remove();
  if (!line) {
    line = document.createElementNS("http://www.w3.org/2000/svg", "path");
    line.setAttribute("class", name);
    picture.append(line);
  }
  line.setAttribute("d", path);
}

function clear() {
  cursor = anchor = null;
  isDragging = false;
  draw();
  say("");
}
