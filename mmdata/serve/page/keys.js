// The keyboard. Arrows between hits are in hits.js, where the hits are.

import { byId, h, put } from "./dom.js";
import { toggleFilters } from "./filters.js";

const KEYS = {
  "/": ["to the search box", () => byId("words").select()],
  v: ["results or map", (does) => does.turn()],
  f: ["to the filters", () => toFilters()],
  m: ["more like the hit in focus", (does, hit) => hit && does.like(hit)],
  "+": ["add it as more", (does, hit) => hit && does.add(hit, 0.5)],
  "-": ["add it as less", (does, hit) => hit && does.add(hit, -0.5)],
  "?": ["this list", () => help()],
};
const OTHERS = [["↓", "from the search box to the hits"], ["← → ↑ ↓", "from hit to hit; in the drawer to the next"], ["Enter", "open the hit in focus"], ["Esc", "close"]];

/** From now on keys do what `help` lists; `hits()` are those on the page. */
export function listen(does, hits) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (byId("drawer").open) inDrawer(event, does);
    else if (event.key === "Escape") leave();
    else if (event.key === "ArrowDown" && event.target === byId("words")) toHits(event);
    else if (!event.target.matches?.("input, select, audio") && !document.querySelector("dialog[open]")) press(event, does, hits());
  });
}

function press(event, does, hits) {
  if (!Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  const id = event.target.closest?.(".hit")?.dataset.id;
  KEYS[event.key][1](does, hits.find((hit) => String(hit.id) === id));
}

function inDrawer(event, does) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && !event.target.matches?.("audio")) does.step(step);
}

function leave() {
  toggleFilters(false);
  if (document.activeElement === byId("words")) byId("words").blur();
}

function toHits(event) {
  event.preventDefault();
  byId("results").querySelector(".hit .open")?.focus();
}

function toFilters() {
  toggleFilters(true);
  byId("filters").querySelector("button, input, select")?.focus();
}

/** The list of keys. */
export function help() {
  const rows = [...Object.entries(KEYS).map(([key, [meaning]]) => [key, meaning]), ...OTHERS];
  put(
    byId("keys"),
    h("h2", { id: "keys-title" }, "Keys"),
    h("dl", {}, ...rows.flatMap(([key, meaning]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, meaning)])),
    h("form", { method: "dialog" }, h("button", { className: "go" }, "Close")),
  );
  byId("keys").showModal();
}
