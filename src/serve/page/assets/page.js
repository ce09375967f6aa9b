// Makes the page live: newer values without a reload, filtering while typing, keyboard.
// The server renders everything; this only puts newer parts in place. Without it the page is complete, but still.

import * as charts from "./charts.js";
import { follow } from "./live.js";

const main = document.getElementById("page");
const live = document.getElementById("live");
const notice = document.getElementById("notice");
document.documentElement.classList.add("scripted");

let chosen = ""; // the address of the chosen HPA, for the keyboard
let paused = false;
let loading = null; // ends the request under way
let last = 0; // when the page was last updated
let cost = 0; // how long that took, in milliseconds
let problem = ""; // why there are no live updates

// --- updates -----------------------------------------------------------------------------------------------

/** Puts the page at this address in place of the present one. Returns whether the server answered. */
async function show(address, { push = false } = {}) {
  loading?.abort();
  const request = (loading = new AbortController());
  const started = performance.now();
  try {
    const response = await fetch(address, { signal: request.signal });
    const text = await response.text();
    // A replica that does not lead has nothing to show: what is there is better than nothing.
    if (response.status >= 500) throw new Error(`status ${response.status}`);
    const next = new DOMParser().parseFromString(text, "text/html");
    const content = next.getElementById("page");
    if (!content) throw new Error("unexpected response");
    if (push) window.history.pushState(null, "", address);
    else if (address !== here()) window.history.replaceState(null, "", address);
    document.title = next.title;
    replace(content);
    last = Date.now();
    cost = performance.now() - started;
    say(problem);
    return true;
  } catch (error) {
    if (error.name !== "AbortError") say(problem || "the server does not answer");
    return error.name === "AbortError";
  } finally {
    if (loading === request) loading = null;
  }
}

/** Replaces the content and keeps what the reader does: focus, selection in a field, opened and closed details. */
function replace(content) {
  const focused = document.activeElement;
  const field = focused?.id && main.contains(focused) ? focused.id : "";
  const caret = field && "selectionStart" in focused ? focused.selectionStart : null;
  const typed = field === "search" ? focused.value : null;
  const toggled = new Map();
  main.querySelectorAll("details").forEach((details, place) => toggled.set(place, details.open));
  main.replaceChildren(...content.childNodes);
  main.querySelectorAll("details").forEach((details, place) => {
    if (toggled.has(place)) details.open = toggled.get(place);
  });
  if (field) {
    const again = document.getElementById(field);
    if (again) {
      if (typed !== null) again.value = typed;
      again.focus({ preventScroll: true });
      if (caret !== null && again.type !== "hidden" && again.tagName === "INPUT") again.setSelectionRange(caret, caret);
    }
  }
  decorate();
}

/** What the server cannot know: times in the zone of the reader, and which HPA is chosen. */
function decorate() {
  for (const time of main.querySelectorAll("time")) {
    const date = new Date(time.dateTime);
    if (Number.isNaN(date.getTime())) continue;
    time.title = time.dateTime;
    const isToday = date.toDateString() === new Date().toDateString();
    const clock = date.toLocaleTimeString([], { hour12: false });
    time.textContent = isToday || "clock" in time.dataset ? clock : `${date.toLocaleDateString()} ${clock}`;
  }
  choose(rows().find((row) => row.dataset.href === chosen), { scroll: false });
  charts.enhance();
}

/** Says whether the page is live, and if not, why and of when its values are. */
function say(why) {
  const isStill = paused || why !== "";
  const values = new Date(last).toLocaleTimeString([], { hour12: false });
  live.textContent = paused ? "paused" : why ? "not live" : "live";
  notice.hidden = !isStill;
  // Not set again, so that it is not read aloud again.
  const text = paused ? `Paused: values of ${values}. Press p to go on.` : `Not live: values of ${values}; ${why}.`;
  if (isStill && notice.textContent !== text) notice.textContent = text;
}

const here = () => location.pathname + location.search;

/** Whether an update would disturb the reader. */
function isBusy() {
  const selection = document.getSelection();
  const isSelecting = selection && !selection.isCollapsed && main.contains(selection.anchorNode);
  return paused || document.hidden || isSelecting || loading !== null || charts.isInUse();
}

/** Shows newer values unless that would disturb. Returns whether the server answered, as far as is known. */
async function refresh() {
  // A large page takes long, and must not be all that the browser does.
  if (isBusy() || Date.now() - last <= Math.max(1000, cost * 10)) return true;
  return show(here());
}

if (main.dataset.live === "yes") {
  last = Date.now();
  follow(refresh, (why) => say((problem = why)));
  document.addEventListener("visibilitychange", refresh);
}

// --- filters -----------------------------------------------------------------------------------------------

document.addEventListener("click", (event) => {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
  const link = event.target.closest("a[data-swap]");
  if (link) {
    event.preventDefault();
    show(link.getAttribute("href"), { push: true });
  }
});

/** The address for the form. */
function searched(form) {
  const query = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) query.set(name, value);
  return query.size ? `/?${query}` : "/";
}

let typing = 0;
document.addEventListener("input", (event) => {
  const form = event.target.closest("form.search");
  if (!form) return;
  clearTimeout(typing);
  typing = setTimeout(() => show(searched(document.querySelector("form.search"))), 120);
});
document.addEventListener("submit", (event) => {
  if (!event.target.matches("form.search")) return;
  event.preventDefault();
  show(searched(event.target));
});
window.addEventListener("popstate", () => show(here()));

// --- keyboard ----------------------------------------------------------------------------------------------

const rows = () => [...main.querySelectorAll("tr[data-href]")];

function choose(row, { scroll = true } = {}) {
  for (const other of rows()) {
    other.classList.toggle("chosen", other === row);
    if (other === row) other.setAttribute("aria-current", "true");
    else other.removeAttribute("aria-current");
  }
  if (!row) return;
  chosen = row.dataset.href;
  if (scroll) row.scrollIntoView({ block: "nearest" });
}

function move(by) {
  const all = rows();
  const at = all.findIndex((row) => row.dataset.href === chosen);
  const next = at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1);
  choose(all[next]);
}

document.addEventListener("keydown", (event) => {
  if (event.metaKey || event.ctrlKey || event.altKey) return;
  const isField = event.target.matches("input, select, textarea");
  if (event.key === "Escape") {
    if (isField) event.target.blur();
    else document.getElementById("up")?.click();
    return;
  }
  if (isField) {
    if (event.key === "ArrowDown" && event.target.id === "search") {
      event.preventDefault();
      event.target.blur();
      move(1);
    }
    return;
  }
  const isLink = event.target.closest?.("a, button, summary");
  const act = {
    "/": () => document.getElementById("search")?.focus(),
    j: () => move(1),
    k: () => move(-1),
    p: () => {
      paused = !paused;
      say(problem);
      refresh();
    },
    Enter: () => chosen && rows().length > 0 && !isLink && location.assign(chosen),
  }[event.key];
  if (!act || (event.key === "Enter" && isLink)) return;
  event.preventDefault();
  act();
});

charts.watch(main, (address) => show(address, { push: true }));
decorate();
