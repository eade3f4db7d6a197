// The page: one state, in the address; every change of it is drawn by `render`.

import * as api from "./api.js";
import { drawAsk } from "./ask.js";
import { byId, counted, h, put } from "./dom.js";
import { closeDrawer, openDrawer } from "./drawer.js";
import { listen as listenToFiles } from "./files.js";
import { drawFilters, toggleFilters } from "./filters.js";
import { trouble } from "./hits.js";
import { help, listen as listenToKeys } from "./keys.js";
import { unlock } from "./lock.js";
import { drawMap, repaint } from "./map.js";
import { answering } from "./query.js";
import { answer, forget, scoresOf, shownHits } from "./search.js";
import { openShare } from "./share.js";
import { fromAddress, mainText, NOTHING, toAddress } from "./state.js";
import { listen as listenToTheme } from "./theme_switch.js";

let state = fromAddress(location.search);
let indexes = [];
let ready = false; // whether the indexes are known; what is typed before waits for them

const addressOf = (next) => `/${toAddress(next) && "?"}${toAddress(next)}`;

/** Go on to another state: a new step of the browser's history. */
function go(patch) {
  const next = { ...state, ...patch };
  if (addressOf(next) === addressOf(state) && patch.terms === undefined) return;
  history.pushState({ opened: (patch.open ?? null) !== null }, "", addressOf(next));
  state = next;
  render();
}

/** The same, without a step of its own. */
function correct(patch) {
  state = { ...state, ...patch };
  history.replaceState(history.state, "", addressOf(state));
  render();
}

const change = (patch) => go({ ...patch, open: null });

function render() {
  const answerers = answering(state, indexes);
  const onMap = state.view === "map";
  document.title = mainText(state.terms) ? `${mainText(state.terms).value} · mmdata` : "mmdata";
  drawAsk(state, indexes, answerers, change);
  drawFilters(state, answerers, change);
  byId("results").hidden = onMap;
  byId("map").hidden = !onMap;
  byId("view-results").setAttribute("aria-pressed", String(!onMap));
  byId("view-map").setAttribute("aria-pressed", String(onMap));
  if (!ready) return;
  answer(state, indexes, does, arrived);
  mapHits();
  if (state.open === null) closeDrawer();
  else openDrawer(state.open, shownHits().find(({ id }) => id === state.open), scoresOf(state.open), does);
}

/** Hits have come: a key among the terms may have a face now, and the map has something to ring. */
function arrived() {
  if (!byId("terms").contains(document.activeElement)) drawAsk(state, indexes, answering(state, indexes), change);
  mapHits();
}

function mapHits() {
  const [about] = answering(state, indexes);
  if (state.view === "map" && about) drawMap(state, about, shownHits(about.name), { open: does.open, colour: (colour) => change({ colour }) });
}

/** What one can do with a hit or a search. */
const does = {
  open: ({ id }) => go({ open: id }),
  close: () => (history.state?.opened ? history.back() : correct({ open: null })),
  step: (by) => {
    const ids = [...new Set(shownHits().map(({ id }) => id))];
    const next = ids[ids.indexOf(state.open) + by];
    if (ids.includes(state.open) && next !== undefined) correct({ open: next });
  },
  like: ({ key }) => change({ terms: [{ kind: "key", value: key, weight: 1 }], view: "results" }),
  add: ({ key }, weight) => {
    const others = state.terms.filter((term) => term.kind !== "key" || term.value !== key);
    change({ terms: [...others, { kind: "key", value: key, weight: others.length || weight < 0 ? weight : 1 }] });
  },
  ask: (text) => change({ terms: [{ kind: "text", value: text, weight: 1 }] }),
  narrowed: () => state.where.length > 0 || state.atLeast !== "",
  widen: () => change({ where: [], atLeast: "" }),
  take: () => openShare(state, answering(state, indexes)),
  again: () => {
    forget();
    render();
  },
  terms: (terms, add) => change({ terms: add ? [...state.terms, ...terms] : terms }),
  asked: () => state.terms.length > 0,
  turn: () => go({ view: state.view === "map" ? "results" : "map" }),
};

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = byId("words").value.trim();
  const main = mainText(state.terms);
  const others = state.terms.filter((term) => term !== main);
  change({ terms: words ? [{ kind: "text", value: words, weight: 1 }, ...others] : others });
});
byId("home").addEventListener("click", (event) => {
  event.preventDefault();
  go(NOTHING);
});
byId("help").addEventListener("click", help);
byId("view-results").addEventListener("click", () => go({ view: "results" }));
byId("view-map").addEventListener("click", () => go({ view: "map" }));
byId("show-filters").addEventListener("click", () => toggleFilters());
byId("drawer").addEventListener("cancel", (event) => {
  event.preventDefault();
  does.close();
});
byId("drawer").addEventListener("click", ({ target }) => target === byId("drawer") && does.close());
for (const sheet of [byId("keys"), byId("share")]) sheet.addEventListener("click", ({ target }) => target === sheet && sheet.close());
addEventListener("popstate", () => {
  state = fromAddress(location.search);
  render();
});
listenToFiles(does);
listenToKeys(does, shownHits);
listenToTheme(repaint);
api.whenLocked(unlock);

/** The label of each index: what it holds, how it finds, how well, and whose vectors it has. */
function drawLabel() {
  const recall = (about) => Object.entries(about.recall).map(([modality, at]) => `${modality} ${at["10"]}`).join(", ");
  const line = (about) => `${counted(about.rows, about.modality)}, ${about.dim} dimensions, ${about.kind}, ${about.metric}, recall at 10: ${recall(about) || "not measured"}; ${about.encoder.spec}; generation ${about.generation}`;
  put(byId("label"), ...indexes.map((about) => h("p", {}, h("b", {}, about.name), ` ${line(about)}`)));
}

/** What the service cannot open, and why. */
function drawProblems(listed) {
  const line = ({ name, rows, problem }) => h("p", { className: "problem" }, h("b", {}, name), rows === undefined ? ` cannot be opened: ${problem}` : ` is answered for by an older generation; the newest cannot be opened: ${problem}`);
  put(byId("problems"), ...listed.filter(({ problem }) => problem).map(line));
}

async function start() {
  byId("progress").hidden = false;
  try {
    const order = ["image", "audio", "text"]; // pictures first: they are seen at once
    const listed = await api.indexes();
    drawProblems(listed);
    indexes = listed.filter(({ rows }) => rows !== undefined).sort((a, b) => order.indexOf(a.modality) - order.indexOf(b.modality));
  } catch (error) {
    put(byId("results"), trouble(error, start));
    return;
  } finally {
    byId("progress").hidden = true;
  }
  ready = true;
  drawLabel();
  render();
}

start();
