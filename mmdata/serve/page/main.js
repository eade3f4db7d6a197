// The page: one state, in the address; every change of it is drawn by `render`.

import * as api from "./api.js";
import { drawAsk } from "./ask.js";
import { byId, counted, h, PLURAL, put, say, tell } from "./dom.js";
import { closeDrawer, openDrawer } from "./drawer.js";
import { drawFilters, toggleFilters } from "./filters.js";
import { drawHits, drawWelcome } from "./hits.js";
import { drawMap, repaint } from "./map.js";
import { answering, body, cannot, usable } from "./query.js";
import { remember } from "./seen.js";
import { openShare } from "./share.js";
import { fromAddress, mainText, NOTHING, toAddress } from "./state.js";
import { take } from "./uploads.js";

const WELCOME = 18; // samples that are shown before anything is asked
const KEPT = 30; // answers that going back finds again

let state = fromAddress(location.search);
let indexes = [];
let sections = [];
let asked = null; // what the sections answer
let running = new AbortController();
let welcomed = null;
const answers = new Map();

// --- moving from state to state

function address(next) {
  const said = toAddress(next);
  return said ? `/?${said}` : "/";
}

function go(patch, { replace = false } = {}) {
  const next = { ...state, ...patch };
  if (address(next) === address(state) && patch.terms === undefined) return;
  history[replace ? "replaceState" : "pushState"]({ opened: (patch.open ?? null) !== null && !replace }, "", address(next));
  state = next;
  render();
}

addEventListener("popstate", () => {
  state = fromAddress(location.search);
  render();
});

const change = (patch) => go({ ...patch, open: null });

// --- asking

function render() {
  const answerers = answering(state, indexes);
  document.title = mainText(state.terms) ? `${mainText(state.terms).value} · mmdata` : "mmdata";
  document.body.dataset.view = state.view;
  drawAsk(state, indexes, answerers, change);
  drawFilters(state, answerers, change);
  byId("results").hidden = state.view === "map";
  byId("map").hidden = state.view !== "map";
  byId("view-results").setAttribute("aria-pressed", String(state.view !== "map"));
  byId("view-map").setAttribute("aria-pressed", String(state.view === "map"));
  answer(answerers);
  if (state.view === "map" && answerers.length) drawMap(state, answerers[0], sections[0]?.hits ?? [], { open, colour: (colour) => change({ colour }) });
  if (state.open === null) closeDrawer();
  else openDrawer(state.open, shownHits().find(({ id }) => id === state.open), scoresOf(state.open), does);
}

function answer(answerers) {
  const { there, lost } = usable(state.terms);
  if (lost) say("This link was made with a picture or a sound of another tab. Please add the file again.");
  if (!there.length && (state.terms.length || !state.where.length)) return welcome();
  const question = JSON.stringify([state.terms, answerers.map(({ name }) => name), state.where, state.k, state.atLeast, state.fold]);
  if (question === asked) return;
  running.abort();
  running = new AbortController();
  asked = question;
  sections = answerers.map((about) => ({ about, ...answers.get(keyOf(about)) }));
  draw();
  const { signal } = running;
  for (const section of sections) if (!section.hits) one(section, there, signal);
}

const keyOf = (about) => JSON.stringify(body(state, `${about.name} ${about.generation}`, about, (one) => one.id));

async function one(section, terms, signal) {
  const { about } = section;
  const key = keyOf(about);
  const since = performance.now();
  try {
    const refused = cannot(about, terms);
    if (refused) throw new api.Refused(409, `${about.name} cannot be asked with ${PLURAL[refused]}: nothing takes them into its space (mmdata align).`);
    const said = await api.search(body(state, about.name, about), signal);
    Object.assign(section, { hits: said.answers[0].hits, seconds: said.seconds, trip: (performance.now() - since) / 1000 });
    section.hits.forEach((hit) => remember(hit.key, hit.id));
    keep(key, section);
  } catch (error) {
    if (signal.aborted) return;
    section.error = error;
  }
  if (!signal.aborted) draw();
}

function keep(key, { hits, seconds, trip }) {
  answers.set(key, { hits, seconds, trip });
  if (answers.size > KEPT) answers.delete(answers.keys().next().value);
}

function draw() {
  const waiting = sections.some(({ hits, error }) => !hits && !error);
  byId("progress").hidden = !waiting;
  const held = document.activeElement?.closest?.(".hit")?.dataset.id;
  drawHits(sections, usable(state.terms).there.length > 0, does);
  if (held) document.querySelector(`#results .hit[data-id="${CSS.escape(held)}"] .open`)?.focus();
  if (waiting) return tell("Searching");
  byId("results").prepend(h("div", { className: "share" }, h("button", { type: "button", className: "plain", id: "take", onclick: () => openShare(state, answering(state, indexes)) }, "Copy as link, curl or Python")));
  tell(sections.map(({ about, hits, error }) => (error ? `${about.name}: ${error.message}` : counted(hits.length, about.modality))).join(", "));
  if (state.view === "map" && sections[0]?.hits) render();
}

async function welcome(again = false) {
  running.abort();
  byId("progress").hidden = true;
  sections = [];
  if (asked === "welcome" && !again) return;
  asked = "welcome";
  if (!welcomed || again) {
    drawWelcome(indexes, [], does);
    welcomed = await some();
  }
  if (asked === "welcome") drawWelcome(indexes, welcomed, does);
}

/** Samples drawn by chance, of the first index's modality. */
async function some() {
  const about = answering(NOTHING, indexes)[0];
  if (!about) return [];
  const ids = new Set(Array.from({ length: WELCOME }, () => Math.floor(Math.random() * about.rows)));
  const found = await Promise.allSettled([...ids].map((id) => api.sample(id)));
  return found
    .filter(({ status, value }) => status === "fulfilled" && value.parts[about.modality])
    .map(({ value: { id, key, caption, parts } }) => {
      remember(key, id);
      return { id, key, caption, modality: about.modality, media: parts[about.modality].url };
    });
}

// --- what one can do with a hit

const shownHits = () => (sections.length ? sections.flatMap(({ hits }) => hits ?? []) : state.view === "map" ? [] : (welcomed ?? []));

const scoresOf = (id) =>
  sections.flatMap(({ about, hits }) => (hits ?? []).flatMap((hit, place) => (hit.id === id && usable(state.terms).there.length ? [{ index: about.name, rank: place + 1, score: hit.score }] : [])));

const open = (hit) => go({ open: hit.id });

const does = {
  open,
  like: ({ key }) => change({ terms: [{ kind: "key", value: key, weight: 1 }], view: "results" }),
  add: ({ key }, weight) => change({ terms: [...state.terms.filter((term) => term.kind !== "key" || term.value !== key), { kind: "key", value: key, weight: state.terms.length || weight < 0 ? weight : 1 }] }),
  ask: (text) => change({ terms: [{ kind: "text", value: text, weight: 1 }] }),
  narrowed: () => state.where.length > 0 || state.atLeast !== "",
  widen: () => change({ where: [], atLeast: "" }),
  shuffle: () => welcome(true),
  again: () => {
    asked = null;
    indexes.length ? render() : start();
  },
  close: () => (history.state?.opened ? history.back() : go({ open: null }, { replace: true })),
  step: (by) => {
    const ids = [...new Set(shownHits().map(({ id }) => id))];
    const next = ids[ids.indexOf(state.open) + by];
    if (next === undefined || !ids.includes(state.open)) return;
    history.replaceState(history.state, "", address({ ...state, open: next }));
    state = { ...state, open: next };
    render();
  },
};

// --- words, files and keys

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = byId("words").value.trim();
  const main = mainText(state.terms);
  const others = state.terms.filter((term) => term !== main);
  change({ terms: words ? [{ kind: "text", value: words, weight: 1 }, ...others] : others });
});

async function takeIn(files, add) {
  if (!files.length) return;
  try {
    const terms = await Promise.all([...files].map(take));
    change({ terms: add ? [...state.terms, ...terms] : terms });
  } catch (error) {
    say(error.message);
  }
}

byId("pick").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", () => {
  takeIn(byId("file").files, state.terms.length > 0);
  byId("file").value = "";
});
document.addEventListener("paste", (event) => takeIn(event.clipboardData?.files ?? [], state.terms.length > 0));

const brings = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragenter", (event) => {
  if (!brings(event)) return;
  byId("drop").hidden = false;
  byId("drop-add").hidden = state.terms.length === 0;
});
document.addEventListener("dragover", (event) => brings(event) && event.preventDefault());
byId("drop").addEventListener("dragleave", (event) => event.relatedTarget === null && (byId("drop").hidden = true));
document.addEventListener("drop", (event) => {
  byId("drop").hidden = true;
  if (!brings(event)) return;
  event.preventDefault();
  takeIn(event.dataTransfer.files, event.target.closest?.(".zone")?.dataset.add === "yes");
});

const KEYS = [
  ["/", "to the search box", () => byId("words").select()],
  ["v", "results or map", () => go({ view: state.view === "map" ? "results" : "map" })],
  ["f", "to the filters", () => (toggleFilters(true), byId("filters").querySelector("button, input, select")?.focus())],
  ["m", "more like the hit in focus", (hit) => hit && does.like(hit)],
  ["+", "add it as more", (hit) => hit && does.add(hit, 0.5)],
  ["-", "add it as less", (hit) => hit && does.add(hit, -0.5)],
  ["?", "this list", () => help()],
];

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches?.("input, select, textarea");
  if (byId("drawer").open && !event.target.matches?.("audio")) return drawerKeys(event);
  if (event.key === "Escape") return escape(event);
  if (event.key === "ArrowDown" && event.target === byId("words")) return firstHit(event);
  if (typing || document.querySelector("dialog[open]")) return;
  const entry = KEYS.find(([key]) => key === event.key);
  if (!entry) return;
  event.preventDefault();
  const id = event.target.closest?.(".hit")?.dataset.id;
  entry[2](shownHits().find((hit) => String(hit.id) === id));
});

function drawerKeys(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) does.step(step);
}

function escape(event) {
  toggleFilters(false);
  if (event.target === byId("words")) byId("words").blur();
}

function firstHit(event) {
  event.preventDefault();
  document.querySelector("#results .hit .open")?.focus();
}

function help() {
  const rows = [...KEYS.map(([key, meaning]) => [key, meaning]), ["arrows", "from hit to hit; in the drawer to the next"], ["Enter", "open the hit in focus"], ["Esc", "close"]];
  put(
    byId("keys"),
    h("h2", { id: "keys-title" }, "Keys"),
    h("dl", {}, ...rows.flatMap(([key, meaning]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, meaning)])),
    h("form", { method: "dialog" }, h("button", { className: "go" }, "Close")),
  );
  byId("keys").showModal();
}

byId("help").addEventListener("click", help);
byId("view-results").addEventListener("click", () => go({ view: "results" }));
byId("view-map").addEventListener("click", () => go({ view: "map" }));
byId("show-filters").addEventListener("click", () => toggleFilters(!byId("filters").classList.contains("open")));
byId("home").addEventListener("click", (event) => {
  event.preventDefault();
  go(NOTHING);
});
byId("drawer").addEventListener("cancel", (event) => {
  event.preventDefault();
  does.close();
});
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => {
    if (event.target !== dialog) return;
    if (dialog.id === "drawer") does.close();
    else if (dialog.id !== "locked") dialog.close();
  });
}

// --- light and dark

const THEMES = { system: "as the system", light: "light", dark: "dark" };
byId("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length];
  localStorage.setItem("mmdata-theme", next);
  document.documentElement.dataset.theme = next;
  byId("theme-now").textContent = THEMES[next];
  say(`Colours: ${THEMES[next]}`);
  repaint();
});
byId("theme-now").textContent = THEMES[document.documentElement.dataset.theme] ?? "as the system";

// --- the key of a locked service

let unlocking = null;
api.whenLocked((wrong) => {
  unlocking ??= new Promise((resolve) => {
    const box = h("input", { type: "password", id: "api-key", required: true, autocomplete: "off" });
    const send = (event) => {
      event.preventDefault();
      byId("locked").close();
      unlocking = null;
      resolve(box.value.trim());
    };
    put(
    byId("locked"),
      h("h2", { id: "locked-title" }, "This collection is locked"),
      h("form", { onsubmit: send }, h("label", { for: "api-key" }, wrong ? "That key is not right. The API key:" : "The API key of this service:"), box, h("p", { className: "note" }, "It stays in this tab, and is forgotten with it."), h("button", { className: "go" }, "Unlock")),
    );
    byId("locked").showModal();
  });
  return unlocking;
});
byId("locked").addEventListener("cancel", (event) => event.preventDefault());

// --- the start

function drawLabel() {
  const recall = (about) => Object.entries(about.recall ?? {}).map(([modality, at]) => (typeof at === "object" && at["10"] !== undefined ? `${modality} ${at["10"]}` : null)).filter(Boolean);
  put(
    byId("label"),
    ...indexes.map((about) => h("p", {}, h("b", {}, about.name), ` ${counted(about.rows, about.modality)}, ${about.dim} dimensions, ${about.kind}, ${about.metric}${recall(about).length ? `, recall at 10: ${recall(about).join(", ")}` : ""}; ${about.encoder?.spec ?? ""}; generation ${about.generation}`)),
  );
}

async function start() {
  byId("progress").hidden = false;
  try {
    indexes = await api.indexes();
  } catch (error) {
    put(byId("results"), h("div", { className: "trouble", role: "alert" }, h("p", {}, error.message), h("button", { type: "button", onclick: start }, "Try again")));
    return;
  } finally {
    byId("progress").hidden = true;
  }
  drawLabel();
  render();
}

start();
